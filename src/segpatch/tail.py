"""What follows a network's raw logits, computed at once: resize, prediction, loss and its gradient.

Logits leave a network at a fraction of the image size. Resizing them, comparing classes and differentiating back
costs as much as a small network when written plainly, because every step passes over tensors of full size. Here
the resize is a matrix product per axis, the gradient of a weighted cross-entropy is written down (softmax minus
one-hot), and both are formed for a block of rows at a time, so that nothing of full size is ever stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from segpatch.losses import PixelWeight, merge_logits
from segpatch.types import IGNORE

ROWS = 64
"""Rows of a block: few enough for a CPU's cache, enough that the matrix products are worth their call."""


class Sums(NamedTuple):
    """Sums over the pixels of a batch, scalars: the loss (differentiable in the raw logits), the weights, the
    labelled pixels that are right, and the labelled pixels."""

    total: Tensor
    weights: Tensor
    right: Tensor
    labelled: Tensor


def resized_loss(
    raw: Tensor,
    labels: Tensor,
    weight: PixelWeight,
    *,
    size: tuple[int, int],
    align_corners: bool,
    merge: Tensor | None = None,
) -> Sums:
    """The sums of weight x cross-entropy over raw logits (B, K, h, w) resized to `size`, cut to the labels.

    labels (B, H, W), H and W at most those of size (the network's padded input). merge: class of the labels that
    each of the K classes belongs to (K,), whose probabilities are added; None where they are the same.
    Equal to the loss of `segpatch.losses` on bilinearly resized and merged logits, gradient included.
    """
    sums = _ResizedLoss.apply(raw, labels, weight, size, align_corners, merge)  # type: ignore[no-untyped-call]
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
    predicted = torch.empty(len(raw), *shape, dtype=torch.uint8, device=raw.device)
    for out, image in zip(predicted, raw.to(torch.promote_types(raw.dtype, torch.float32)), strict=True):
        for block, logits in _Rows(image, shape, size, align_corners):
            merged = logits if merge is None else merge_logits(logits.unsqueeze(0), merge)[0]
            out[block.rows] = _highest(merged)[1]
    return predicted


def resize_matrix(length: int, out: int, align_corners: bool, like: Tensor) -> Tensor:
    """The matrix (out, length) of a bilinear resize along one axis, as torch.nn.functional.interpolate does it."""
    position = torch.arange(out, device=like.device, dtype=torch.float64)
    if align_corners:
        position = position * ((length - 1) / max(1, out - 1))
    else:
        position = ((position + 0.5) * (length / out) - 0.5).clamp(min=0)
    first = position.floor().long().clamp(max=length - 1)
    second = (first + 1).clamp(max=length - 1)
    share = (position - first).unsqueeze(1)
    matrix = torch.zeros(out, length, dtype=torch.float64, device=like.device)
    matrix.scatter_add_(1, first.unsqueeze(1), 1 - share)
    matrix.scatter_add_(1, second.unsqueeze(1), share)
    return matrix.to(like.dtype)


class _ResizedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        raw: Tensor,
        labels: Tensor,
        weight: PixelWeight,
        size: tuple[int, int],
        align_corners: bool,
        merge: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = raw.detach().to(torch.promote_types(raw.dtype, torch.float32))
        sums = wide.new_zeros(4, dtype=torch.float64)
        gradients = []
        for image, truth in zip(wide, labels, strict=True):
            rows = _Rows(image, (truth.shape[0], truth.shape[1]), size, align_corners)
            for block, logits in rows:
                part, gradient = _block_loss(logits, truth[block.rows].long(), weight, merge)
                sums += part
                rows.add_gradient(block, gradient)
            gradients.append(rows.gradient_at_source())
        ctx.save_for_backward(torch.stack(gradients).to(raw.dtype))
        total, count, right, labelled = sums.unbind()
        ctx.mark_non_differentiable(count, right, labelled)
        return total.to(wide.dtype), count, right, labelled

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0].to(gradient.dtype), None, None, None, None, None


def _block_loss(logits: Tensor, truth: Tensor, weight: PixelWeight, merge: Tensor | None) -> tuple[Tensor, Tensor]:
    """Loss, count, right, labelled (4,) of logits (K, R, W), which are overwritten, and the gradient (K, R, W)."""
    if merge is not None:
        return _merged_loss(logits, truth, weight, merge)
    labelled = truth != IGNORE
    index = torch.where(labelled, truth, 0).unsqueeze(0)
    highest, predicted = _highest(logits)
    right = (predicted == truth) & labelled
    weights = weight(right, labelled).to(logits.dtype)
    logits -= highest
    of_truth = logits.gather(0, index).squeeze(0)
    exponentials = logits.exp_()
    total = exponentials.sum(0)
    loss = (total.log() - of_truth) * weights
    gradient = exponentials.mul_(weights / total)
    gradient.scatter_add_(0, index, -weights.unsqueeze(0))
    return _sums(loss, weights, right, labelled), gradient


def _highest(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The highest logit over the classes (R, W), and the first class that has it (R, W), in floating point.

    On a CPU a third of the time of torch.max, which looks at the classes of one pixel after the other.
    """
    highest = logits.amax(0)
    count = len(logits)
    backwards = torch.arange(count, 0, -1, dtype=logits.dtype, device=logits.device).view(-1, 1, 1)
    return highest, count - torch.where(logits == highest, backwards, 0).amax(0)


def _merged_loss(logits: Tensor, truth: Tensor, weight: PixelWeight, merge: Tensor) -> tuple[Tensor, Tensor]:
    """As _block_loss, with the classes merged; the gradient is left to autograd."""
    logits.requires_grad_(True)
    with torch.enable_grad():
        merged = merge_logits(logits.unsqueeze(0), merge)[0]
        labelled = truth != IGNORE
        right = (merged.argmax(0) == truth) & labelled
        weights = weight(right, labelled).to(logits.dtype)
        loss = F.cross_entropy(merged.unsqueeze(0), truth.unsqueeze(0), ignore_index=IGNORE, reduction="none")[0]
        (gradient,) = torch.autograd.grad((loss * weights).sum(), logits)
    return _sums((loss * weights).detach(), weights, right, labelled), gradient


def _sums(*parts: Tensor) -> Tensor:
    return torch.stack([part.sum(dtype=torch.float64) for part in parts])


class _Block(NamedTuple):
    """Some rows of the resized logits, and the band of rows of the raw ones that the matrix makes them from."""

    rows: slice
    band: slice
    matrix: Tensor


def _block(vertical: Tensor, rows: slice) -> _Block:
    first, last = (int(vertical[row].argmax()) for row in (rows.start, rows.stop - 1))
    band = slice(max(0, first - 1), min(vertical.shape[1], last + 2))
    return _Block(rows, band, vertical[rows, band])


class _Rows:
    """Blocks of rows of one image's logits (K, h, w), resized to `size` and cut to `shape`; and the way back."""

    def __init__(self, raw: Tensor, shape: tuple[int, int], size: tuple[int, int], align_corners: bool) -> None:
        self.vertical = resize_matrix(raw.shape[1], size[0], align_corners, raw)[: shape[0]]
        self.horizontal = resize_matrix(raw.shape[2], size[1], align_corners, raw)[: shape[1]]
        self.wide = raw @ self.horizontal.T
        self.gradient = torch.zeros_like(self.wide)
        tops = range(0, shape[0], ROWS)
        self.blocks = [_block(self.vertical, slice(top, min(top + ROWS, shape[0]))) for top in tops]

    def __iter__(self) -> Iterator[tuple[_Block, Tensor]]:
        """Each block with its resized logits (K, R, W)."""
        for block in self.blocks:
            yield block, block.matrix @ self.wide[:, block.band]

    def add_gradient(self, block: _Block, gradient: Tensor) -> None:
        """Adds the gradient (K, R, W) of a block's logits."""
        self.gradient[:, block.band] += block.matrix.T @ gradient

    def gradient_at_source(self) -> Tensor:
        """The gradient (K, h, w) of the raw logits."""
        return self.gradient @ self.horizontal
