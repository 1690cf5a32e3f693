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

_LEAST = -115.0
"""Powers of two further below the highest are taken for this one: their share of any sum is 0, and numbers below
single precision's smallest normal one slow a CPU down several times."""

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
        powers = raw.detach() if merge is not None else _as_powers(raw.detach())
        # A resized logit lies between those it is made of: where none of these is far below the highest of its
        # pixel, no resized one needs a look for itself. A GPU would have to be waited for to know.
        near = raw.device.type == "cpu" and merge is None and bool(powers.amin() > _LEAST)

        def counted(piece: Piece) -> tuple[Tensor, Tensor]:
            sums = raw.new_zeros(3, dtype=torch.float64)
            for block, logits, scratch in piece.resized():
                truth = truths[piece.image, block.at].reshape(-1, 1, RUN)
                labelled = truth != IGNORE
                index = torch.where(labelled, truth, 0).long()
                if merge is not None:
                    value, right, gradient = _merged_loss(logits, index, labelled, loss, merge)
                else:
                    value, right, gradient = _block_loss(logits, scratch, index, labelled, loss, near)
                # In single precision within a block, where counts are exact, and in double over blocks.
                sums += torch.stack([part.sum().double() for part in (value, right, labelled)])
                piece.add_gradient(block, gradient)
            return sums, piece.gradient_at_source()

        gradient = torch.zeros_like(raw)
        sums = raw.new_zeros(3, dtype=torch.float64)
        pieces = in_pieces(powers, plan)
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


def _as_powers(logits: Tensor) -> Tensor:
    """Logits (B, K, h, w) as powers of two, the highest of each pixel 0, in single precision or better.

    The softmax is the same. Powers of two take a CPU a third of the time of exponentials.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return (logits - logits.amax(1, keepdim=True)).mul_(1 / math.log(2))


def _block_loss(
    powers: Tensor, scratch: Tensor, index: Tensor, labelled: Tensor, loss: PixelsLoss, near: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and right pixels (P, 1, C), and the gradient (P, K, C) of the loss by the logits, in scratch.

    powers: of two, that the logits are; overwritten. near: whether all are known to be near 0.
    """
    if not near:
        powers -= powers.amax(1, keepdim=True)
    of_truth = powers.gather(1, index)
    if not near:
        powers.clamp_(min=_LEAST)
    truth = of_truth.clamp(min=_LEAST).exp2()
    # A tensor of zeros is put there in half the time of a number.
    others = torch.exp2(powers, out=scratch).scatter_(1, index, torch.zeros_like(truth))
    rest = others.sum(1, keepdim=True)
    total = truth + rest
    right = labelled & _first_of_highest(powers, index, truth, others)
    cross_entropy = total.log2().sub_(of_truth).mul_(math.log(2))

    def norm() -> Tensor:
        return torch.hypot((others / total).norm(dim=1, keepdim=True), truth / total)

    value, slope = loss(Pixels(right, labelled, cross_entropy, norm))
    of_each = slope / total
    return value, right, others.mul_(of_each).scatter_(1, index, -rest * of_each)


def _first_of_highest(powers: Tensor, index: Tensor, truth: Tensor, others: Tensor) -> Tensor:
    """Where the class `index` is the first of those with the highest of `powers` (P, 1, C).

    truth: two to its power (P, 1, C); others: to those of the other classes (P, K, C), and 0 for this one.
    """
    if powers.device.type != "cpu":
        return powers.argmax(1, keepdim=True) == index
    # A tenth of the time of argmax, which looks at the classes of one pixel after the other: only ties need it.
    highest = others.amax(1, keepdim=True)
    first = truth > highest
    run, _, column = (truth == highest).nonzero(as_tuple=True)
    first[run, 0, column] = powers[run, :, column].argmax(1) == index[run, 0, column]
    return first


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
        value = loss(Pixels(right, labelled, cross_entropy, lambda: norm)).value
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), right, gradient
