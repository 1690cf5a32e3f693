"""What follows a network's raw logits, computed at once: resize, prediction, loss and its gradient.

Logits leave a network at a fraction of the image size. Resizing them, comparing classes and differentiating back
costs as much as a small network when written plainly, because every step passes over tensors of full size, and
fresh memory of that size is slow to come by. Here the gradient of a cross-entropy is written down (softmax minus
one-hot, times the slope of a `PixelLoss`). On a CPU all of it is done while a run of pixels is in a core's cache,
by compiled loops (`segpatch.kernels`); on a GPU, in double precision and where classes are merged, by torch, block
by block of the resized logits (`segpatch.resizing`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segpatch.cores import side_by_side
from segpatch.losses import PixelLoss, Pixels, merge_logits
from segpatch.resizing import RUN, Piece, in_pieces, plan_resize
from segpatch.types import IGNORE

_PIXELS = 2**16
"""Pixels whose loss is taken at once in compiled code: few enough for a core's cache."""

PixelsLoss = Callable[[Pixels], PixelLoss]


class Sums(NamedTuple):
    """Sums over the pixels of a batch, scalars: the loss (differentiable in the raw logits), the labelled pixels
    that are right, and the labelled pixels."""

    total: Tensor
    right: Tensor
    labelled: Tensor


def resized_loss(
    raw: Tensor,
    labels: Tensor,
    loss: PixelsLoss,
    *,
    size: tuple[int, int],
    align_corners: bool,
    merge: Tensor | None = None,
) -> Sums:
    """The sums of a loss over raw logits (B, K, h, w) resized to `size`, cut to the labels.

    loss: of pixels as `segpatch.losses` takes them. labels (B, H, W), H and W at most those of size (the network's
    padded input). merge: class of the labels that each of the K classes belongs to (K,), whose probabilities are
    added; None where they are the same.
    Equal to the loss written out on bilinearly resized and merged logits, gradient included.
    """
    sums = _ResizedLoss.apply(raw, labels, loss, size, align_corners, merge)  # type: ignore[no-untyped-call]
    return Sums(*sums)


@torch.no_grad()
def resized_prediction(
    raw: Tensor,
    shape: tuple[int, int],
    *,
    size: tuple[int, int],
    align_corners: bool,
    merge: Tensor | None = None,
) -> Tensor:
    """Class indices (B, H, W), uint8, of raw logits (B, K, h, w) resized to `size` and cut to `shape` (H, W)."""
    plan = plan_resize(raw, shape, size, align_corners)
    predicted = torch.empty(len(raw), plan.rows, plan.columns, dtype=torch.uint8, device=raw.device)
    fused = _fused(raw, merge)

    @torch.inference_mode(torch.is_inference_mode_enabled())
    def fill(piece: Piece) -> None:
        if fused:
            _predict_fused(piece, predicted)
            return
        for block, logits, scratch in piece.resized():
            if merge is not None:
                logits = merge_logits(logits, merge)
                scratch = torch.empty_like(logits)
            predicted[piece.image, block.at] = _from_highest(logits, scratch).view(-1, plan.columns)

    side_by_side(fill, in_pieces(raw.detach(), plan), raw.device)
    return predicted[:, : shape[0], : shape[1]]


class _ResizedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        raw: Tensor,
        labels: Tensor,
        loss: PixelsLoss,
        size: tuple[int, int],
        align_corners: bool,
        merge: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        plan = plan_resize(raw, (labels.shape[1], labels.shape[2]), size, align_corners)
        truths = plan.padded(labels)
        fused = _fused(raw, merge)
        if fused:
            truths = _as_bytes(truths, raw.shape[1])

        def counted(piece: Piece) -> tuple[Tensor, Tensor]:
            truth = truths[piece.image]
            sums, wide = _loss_fused(piece, truth, loss) if fused else _loss(piece, truth, loss, merge)
            return sums, piece.gradient_at_source(wide)

        gradient = torch.zeros_like(raw)
        sums = raw.new_zeros(3, dtype=torch.float64)
        pieces = in_pieces(raw.detach(), plan)
        for piece, (part, of_rows) in zip(pieces, side_by_side(counted, pieces, raw.device), strict=True):
            gradient[piece.image, :, piece.rows] += of_rows
            sums += part
        total, right, labelled = sums.unbind()
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(right, labelled)
        return total.to(torch.promote_types(raw.dtype, torch.float32)), right, labelled

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0].to(gradient.dtype), None, None, None, None, None


def _sums(value: Tensor, right: Tensor, labelled: Tensor) -> Tensor:
    """The sums (3,) of a block's pixels: in single precision within it, where counts are exact; over blocks they
    are added in double."""
    return torch.stack([part.sum().double() for part in (value, right, labelled)])


def _fused(raw: Tensor, merge: Tensor | None) -> bool:
    """Whether `segpatch.kernels` does it: on a CPU, in single precision, without merging."""
    return raw.device.type == "cpu" and merge is None and raw.dtype != torch.float64


def _as_bytes(labels: Tensor, classes: int) -> Tensor:
    """Labels as uint8; IndexError, as torch raises it, for one that is no class."""
    found = labels.to(torch.uint8)
    after_ignore = (found + 1).amax()  # IGNORE becomes 0, and the rest are seen with one look
    if after_ignore > classes or (found is not labels and not torch.equal(found.to(labels), labels)):
        raise IndexError(f"labels must be below {classes}, or {IGNORE} where there is no truth")
    return found


def _predict_fused(piece: Piece, predicted: Tensor) -> None:
    """Fills in the rows of a piece."""
    from segpatch import kernels

    rows = _in_runs(predicted[piece.image, piece.at])
    kernels.predict_rows(piece.wide().numpy(), *piece.between(piece.at), rows)


def _loss_fused(piece: Piece, labels: Tensor, loss: PixelsLoss) -> tuple[Tensor, Tensor]:
    """As _loss."""
    from segpatch import kernels

    wide = piece.wide().numpy()
    gradient = np.zeros_like(wide)
    sums = torch.zeros(3, dtype=torch.float64)
    step = max(1, _PIXELS // labels.shape[1])
    for start in range(piece.at.start, piece.at.stop, step):
        at = slice(start, min(start + step, piece.at.stop))
        rows, truth = piece.between(at), _in_runs(labels[at])
        of_pixels = np.empty((7, *truth.shape), np.float32)
        kernels.softmax_rows(wide, *rows, truth, *of_pixels)
        highest, rest, *for_loss = of_pixels
        added, slope = _rated(loss, *(torch.from_numpy(part) for part in for_loss))
        sums += added
        kernels.gradient_rows(wide, *rows, truth, highest, rest, slope.numpy(), gradient)
    return sums, torch.from_numpy(gradient)


def _rated(
    loss: PixelsLoss, right: Tensor, labelled: Tensor, below: Tensor, total: Tensor, squares: Tensor
) -> tuple[Tensor, Tensor]:
    """The sums (3,) of `Sums` over pixels, and their slopes over `total`; of what `kernels.softmax_rows` makes."""
    cross_entropy = total.log().add_(below)
    value, slope = loss(Pixels(right, labelled, cross_entropy, lambda: squares.sqrt() / total))
    return _sums(value, right, labelled), slope / total


def _in_runs(rows: Tensor) -> Any:
    """Rows (R, W) as runs of pixels (R, G, RUN), NumPy, in the same memory."""
    return rows.view(len(rows), -1, RUN).numpy()


def _loss(piece: Piece, labels: Tensor, loss: PixelsLoss, merge: Tensor | None) -> tuple[Tensor, Tensor]:
    """The sums (3,) of `Sums` over a piece, labels being those of its image, and the gradient of `Piece.wide`."""
    sums = labels.new_zeros(3, dtype=torch.float64)
    gradient = piece.gradient_like_wide()
    for block, logits, scratch in piece.resized():
        truth = labels[block.at].reshape(-1, 1, RUN)
        labelled = truth != IGNORE
        index = torch.where(labelled, truth, 0).long()
        if merge is not None:
            value, right, of_logits = _merged_loss(logits, index, labelled, loss, merge)
        else:
            value, right, of_logits = _block_loss(logits, scratch, index, labelled, loss)
        sums += _sums(value, right, labelled)
        piece.add_gradient(block, of_logits, gradient)
    return sums, gradient


def _block_loss(
    logits: Tensor, scratch: Tensor, index: Tensor, labelled: Tensor, loss: PixelsLoss
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and right pixels (P, 1, C), and the gradient (P, K, C) of the loss by the logits, in scratch.

    The logits are overwritten.
    """
    logits -= logits.amax(1, keepdim=True)
    of_truth = logits.gather(1, index)
    truth = of_truth.exp()
    others = torch.exp(logits, out=scratch).scatter_(1, index, 0)
    rest = others.sum(1, keepdim=True)
    total = truth + rest
    right = labelled & (logits.argmax(1, keepdim=True) == index)

    def norm() -> Tensor:
        return torch.hypot((others / total).norm(dim=1, keepdim=True), truth / total)

    which = right.to(logits), labelled.to(logits)
    value, slope = loss(Pixels(*which, total.log() - of_truth, norm))
    of_each = slope / total
    return value, right, others.mul_(of_each).scatter_(1, index, -rest * of_each)


def _from_highest(logits: Tensor, scratch: Tensor) -> Tensor:
    """The first class of the highest logit (P, 1, C), in floating point; that logit is taken from all (P, K, C).

    scratch, of the same shape, is overwritten. On a CPU a tenth of the time of torch.max, which looks at the
    classes of one pixel after the other.
    """
    classes = logits.shape[1]
    unit = 2.0 ** -classes.bit_length()  # of a class: all of them stay below 1, and exact
    backwards = torch.arange(classes, 0, -1, dtype=logits.dtype, device=logits.device).mul_(unit).view(-1, 1)
    logits -= logits.amax(1, keepdim=True)
    torch.floor(logits, out=scratch)  # 0 for the highest, else -1 or less
    return classes - scratch.add_(backwards).amax(1, keepdim=True).div_(unit)


def _merged_loss(
    logits: Tensor, index: Tensor, labelled: Tensor, loss: PixelsLoss, merge: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As _block_loss, of plain logits with the classes merged; the gradient is left to autograd."""
    leaf = logits.clone().requires_grad_(True)
    with torch.enable_grad():
        merged = merge_logits(leaf, merge)
        right = (merged.argmax(1, keepdim=True) == index) & labelled
        cross_entropy = F.cross_entropy(merged, index.squeeze(1), reduction="none").unsqueeze(1)
        norm = merged.detach().softmax(1).norm(dim=1, keepdim=True)
        which = right.to(norm), labelled.to(norm)
        value = loss(Pixels(*which, cross_entropy, lambda: norm)).value
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), right, gradient
