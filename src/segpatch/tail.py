"""What follows a network's raw logits, computed at once: resize, prediction, loss and its gradient.

Logits leave a network at a fraction of the image size. Resizing them, comparing classes and differentiating back
costs as much as a small network when written plainly, because every step passes over tensors of full size, and
fresh memory of that size is slow to come by. Here the gradient of a cross-entropy is written down (softmax minus
one-hot, times the slope of a `PixelLoss`), and all of it is done block by block of the resized logits
(`segpatch.resizing`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from segpatch.cores import side_by_side
from segpatch.losses import PixelLoss, Pixels, merge_logits
from segpatch.resizing import RUN, Piece, in_pieces, plan_resize
from segpatch.types import IGNORE

_LEAST = -80.0
"""Logits further below the highest are taken for this one: their share of any sum is 0, and numbers below single
precision's smallest normal one, which their exponentials are, slow a CPU down several times."""

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

    @torch.inference_mode(torch.is_inference_mode_enabled())
    def fill(piece: Piece) -> None:
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

        def counted(piece: Piece) -> tuple[Tensor, Tensor]:
            sums = raw.new_zeros(3, dtype=torch.float64)
            for block, logits, scratch in piece.resized():
                truth = truths[piece.image, block.at].reshape(-1, 1, RUN)
                labelled = truth != IGNORE
                index = torch.where(labelled, truth, 0).long()
                value, right = _block_loss(logits, scratch, index, labelled, loss, merge)
                # In single precision within a block, where counts are exact, and in double over blocks.
                sums += torch.stack([part.sum().double() for part in (value, right, labelled)])
                piece.add_gradient(block, logits)
            return sums, piece.gradient_at_source()

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


def _block_loss(
    logits: Tensor, scratch: Tensor, index: Tensor, labelled: Tensor, loss: PixelsLoss, merge: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Loss and right pixels (P, 1, C) of logits (P, K, C), which become the gradient of the loss."""
    if merge is not None:
        return _merged_loss(logits, index, labelled, loss, merge)
    right = (_from_highest(logits, scratch) == index) & labelled
    of_truth = logits.gather(1, index)
    # Powers of two take a CPU a third of the time of exponentials.
    exponentials = logits.clamp_(min=_LEAST).mul_(1 / math.log(2)).exp2_()
    total = exponentials.sum(1, keepdim=True)
    cross_entropy = total.log().sub_(of_truth)
    value, slope = loss(
        Pixels(right, labelled, cross_entropy, lambda: exponentials.norm(dim=1, keepdim=True) / total)
    )
    exponentials.mul_(slope / total).scatter_add_(1, index, -slope)
    return value, right


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
) -> tuple[Tensor, Tensor]:
    """As _block_loss, with the classes merged; the gradient is left to autograd."""
    leaf = logits.clone().requires_grad_(True)
    with torch.enable_grad():
        merged = merge_logits(leaf, merge)
        right = (merged.argmax(1, keepdim=True) == index) & labelled
        cross_entropy = F.cross_entropy(merged, index.squeeze(1), reduction="none").unsqueeze(1)
        norm = merged.detach().softmax(1).norm(dim=1, keepdim=True)
        value = loss(Pixels(right, labelled, cross_entropy, lambda: norm)).value
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
    logits.copy_(gradient)
    return value.detach(), right
