"""Confusion matrices and the scores that follow from them.

All scores come from one confusion matrix over a whole split (the Cityscapes convention): rows are the true
class, columns the predicted one. A class without a labelled pixel has no IoU (NaN) and stays out of the mean, also
where it is predicted: otherwise a class that only a patch calls forth would enter the mean of the patched score
alone. Its false pixels still lower the IoU of the classes that they are taken from.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segpatch.errors import BadInput, SegpatchError
from segpatch.types import IGNORE


def confusion_matrix(predictions: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Counts (B, K, K) int32 per image: [b, i, j] pixels of true class i predicted as j.

    predictions (B, H, W) class ids below K; labels (B, H, W) such ids, or IGNORE, which is not counted. Raises
    BadInput for other labels.
    """
    _must_be_labels(labels, classes)
    return _counted(labels.int(), predictions, 1, classes)[:, 0]


def confusion_matrices(predictions: Tensor, before: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """The confusion matrices (B, K, K) int32 of predictions: of all pixels, and of those that `before` has right.

    All (B, H, W), and BadInput, as in `confusion_matrix`; both are counted at once.
    """
    _must_be_labels(labels, classes)
    rows = labels.to(torch.int32, copy=True)
    rows.add_((before == labels).int(), alpha=IGNORE + 1)  # in place: as int64 it would take twice as long
    counts = _counted(rows, predictions, 2, classes)
    return counts.sum(1, dtype=torch.int32), counts[:, 1]


def _counted(rows: Tensor, predictions: Tensor, groups: int, classes: int) -> Tensor:
    """Counts (B, groups, K, K) int32 by label and prediction; rows (B, H, W): label + group * (IGNORE + 1)."""
    # One row per value of a label, IGNORE's with them: that costs less than picking pixels.
    length = groups * (IGNORE + 1) * classes
    found = [torch.bincount(cell.flatten(), minlength=length) for cell in rows * classes + predictions]
    counts = torch.stack(found).view(-1, groups, IGNORE + 1, classes)
    if bool(counts[:, :, classes:IGNORE].any()):
        wrong = counts.sum((0, 1, 3))[:IGNORE].nonzero()[-1]
        raise _wrong_label(int(wrong), classes)
    return counts[:, :, :classes].to(torch.int32)


def must_be_finite(logits: Tensor, name: str) -> None:
    """SegpatchError for logits of a network that hold NaN or infinity, of which argmax would make a class."""
    if not bool(logits.isfinite().all()):
        raise SegpatchError(
            f"{name} returned logits that are not finite; check its checkpoint and its preprocessing, and measure "
            "with --precision fp32"
        )


def _must_be_labels(labels: Tensor, classes: int) -> None:
    lowest, highest = (int(value) for value in labels.aminmax()) if labels.numel() else (0, 0)
    if lowest < 0 or highest > IGNORE:
        raise _wrong_label(lowest if lowest < 0 else highest, classes)


def _wrong_label(label: int, classes: int) -> BadInput:
    return BadInput(f"labels must be below {classes} (the classes) or {IGNORE} (no truth); got {label}")


def iou_per_class(confusion: Tensor) -> Tensor:
    """Intersection over union (..., K) float64 of matrices (..., K, K); NaN for a class without labelled pixel."""
    confusion = confusion.double()
    hit = confusion.diagonal(dim1=-2, dim2=-1)
    union = confusion.sum(-1) + confusion.sum(-2) - hit
    return torch.where(confusion.sum(-1) > 0, hit / union.clamp(min=1), torch.nan)


def miou(confusion: Tensor) -> Tensor:
    """Mean IoU (...) float64 over the classes that occur, of confusion matrices (..., K, K); NaN if none does."""
    return iou_per_class(confusion).nanmean(-1)


def pixel_accuracy(confusion: Tensor) -> Tensor:
    """Share of labelled pixels that are right (...) float64, of confusion matrices (..., K, K); NaN if none."""
    confusion = confusion.double()
    total = confusion.sum((-2, -1))
    right = confusion.diagonal(dim1=-2, dim2=-1).sum(-1)
    return torch.where(total > 0, right / total.clamp(min=1), torch.nan)
