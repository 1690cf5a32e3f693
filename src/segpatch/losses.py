"""Losses that a patch climbs. Each returns (total, count), so that sums over parts of a batch stay exact.

The patch ascends: a larger loss means that the network is more wrong. Logits are (B, K, H, W), labels
(B, H, W) class ids with IGNORE where there is no truth or where the patch lies.

Every loss here is, pixel by pixel, a function of the cross-entropy of the true class, times a weight without
gradient. So its gradient is that of the cross-entropy times a slope, which `segpatch.tail` makes use of.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from segpatch.types import IGNORE


class Pixels(NamedTuple):
    """What a loss sees of pixels, all of one shape and type: which are right and which labelled (1, else 0), the
    cross-entropy of the true class, and what computes the L2 norm of the class probabilities, without gradient."""

    right: Tensor
    labelled: Tensor
    cross_entropy: Tensor
    norm: Callable[[], Tensor]


class PixelLoss(NamedTuple):
    """The loss of each pixel, and its slope: its derivative by the cross-entropy. Both are 0 without a label."""

    value: Tensor
    slope: Tensor


PixelRule = Callable[[Pixels, float], PixelLoss]
"""From pixels and the share of the attack's steps that are done, in [0, 1), to their losses."""


@dataclass(frozen=True)
class Mix:
    """Gradients over the right and over the wrong pixels, taken apart and mixed by gamma and 1 - gamma.

    gamma None: the share of labelled pixels that are right. normalised: each gradient to L2 norm 1 before, and the
    mixture after. Source: arXiv:2201.01850 and its released code, which takes all pixels outside the patch for
    the share; here the unlabelled ones, padding above all, are left out.
    """

    gamma: float | None
    normalised: bool


@dataclass(frozen=True)
class AttackLoss:
    """A loss by its rule per pixel, and what its mean is over.

    seen: whether a pixel counts as right by the prediction on the "patched" image or on the "clean" one; by the
    clean one, all others count as unlabelled. over: the mean is over the "right" pixels, over the "labelled" ones,
    or over "all" with a label, those too that `seen` leaves out. mix: how the gradients of right and wrong pixels
    are put together; None for the gradient of the loss itself.
    """

    rule: PixelRule
    over: Literal["right", "labelled", "all"] = "labelled"
    seen: Literal["patched", "clean"] = "patched"
    mix: Mix | None = None

    def __call__(
        self, logits: Tensor, labels: Tensor, progress: float = 0.0, clean: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(total, count), both scalars, written out plainly; the mean is total / count.

        progress: share of the attack's steps that are done. clean: predictions (B, H, W) without the patch, for a
        loss that takes its pixels from them. No counted pixel gives 0, with zero gradient.
        """
        fixed = (labels != IGNORE).sum()
        if self.seen == "clean":
            assert clean is not None
            labels = from_clean(labels, clean)
        labelled = labels != IGNORE
        right = (logits.argmax(dim=1) == labels).detach()
        cross_entropy = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
        rule = self.rule
        if self.mix:
            rule = weighted(self.gamma(right.sum(), labelled.sum()))
        which = right.to(cross_entropy), labelled.to(cross_entropy)
        pixels = Pixels(*which, cross_entropy, lambda: logits.detach().softmax(dim=1).norm(dim=1))
        value = rule(pixels, progress).value
        return value.sum(), {"right": right.sum(), "labelled": labelled.sum(), "all": fixed}[self.over]

    def rules(self) -> tuple[PixelRule, ...]:
        """The rules whose gradients a step needs: over right and over wrong pixels where they are mixed."""
        return (correct_pixels, wrong_pixels) if self.mix else (self.rule,)

    def gamma(self, right: Tensor, labelled: Tensor) -> Tensor:
        """The weight of the right pixels, a scalar, where gradients are mixed."""
        assert self.mix
        if self.mix.gamma is not None:
            return torch.full_like(right, self.mix.gamma, dtype=torch.float64)
        return right.double() / labelled.clamp(min=1)

    def direction(self, gradients: Tensor, right: Tensor, labelled: Tensor) -> Tensor:
        """The uphill direction (3, h, w) of the gradients (R, 3, h, w) of the sums of its `rules` over a step, in
        which so many pixels are right and labelled."""
        if self.mix is None:
            return gradients[0] / (right if self.over == "right" else labelled).clamp(min=1).to(gradients)
        gamma = self.gamma(right, labelled).to(gradients)
        if not self.mix.normalised:
            return (gamma * gradients[0] + (1 - gamma) * gradients[1]) / labelled.clamp(min=1).to(gradients)
        return unit(gamma * unit(gradients[0]) + (1 - gamma) * unit(gradients[1]))

    def mean(self, totals: Tensor, right: Tensor, labelled: Tensor) -> Tensor:
        """The loss, a scalar, of the sums (R,) of its `rules` over a step."""
        count = (right if self.over == "right" else labelled).clamp(min=1)
        if self.mix is None:
            return totals[0] / count
        gamma = self.gamma(right, labelled)
        return (gamma * totals[0] + (1 - gamma) * totals[1]) / count


def from_clean(labels: Tensor, clean: Tensor) -> Tensor:
    """Labels (B, H, W) of the pixels that the prediction without the patch (B, H, W) gets right, else IGNORE."""
    return torch.where(clean == labels, labels, IGNORE)


def unit(gradient: Tensor) -> Tensor:
    """A gradient (3, h, w) of L2 norm 1; zero stays zero."""
    return F.normalize(gradient.flatten(), dim=0, eps=torch.finfo(gradient.dtype).tiny).view_as(gradient)


def weighted(of_right: float | Tensor) -> PixelRule:
    """Cross-entropy times gamma on right and 1 - gamma on wrong pixels."""

    def rule(pixels: Pixels, progress: float) -> PixelLoss:
        return _times((1 - of_right + (2 * of_right - 1) * pixels.right) * pixels.labelled, pixels)

    return rule


def correct_pixels(pixels: Pixels, progress: float) -> PixelLoss:
    """Cross-entropy of the pixels that the network still gets right.

    Source: arXiv:2502.16012, section II (the set Omega_x, taken from the prediction on the patched image).
    """
    return _times(pixels.right, pixels)


def wrong_pixels(pixels: Pixels, progress: float) -> PixelLoss:
    """Cross-entropy of the pixels that the network gets wrong."""
    return _times(pixels.labelled - pixels.right, pixels)


def all_pixels(pixels: Pixels, progress: float) -> PixelLoss:
    """Cross-entropy of all labelled pixels."""
    return _times(pixels.labelled, pixels)


def segpgd(pixels: Pixels, progress: float) -> PixelLoss:
    """Cross-entropy that turns from the right pixels to all alike: 1 - lambda on right, lambda on wrong pixels,
    lambda from 0 to 0.5 over the attack. Source: Gu et al., arXiv:2207.12391 (SegPGD)."""
    return weighted(1 - progress / 2)(pixels, progress)


def cospgd(pixels: Pixels, progress: float) -> PixelLoss:
    """Cross-entropy times the cosine of the class probabilities with the one-hot truth, without its gradient.

    Source: Agnihotri et al., arXiv:2302.02213 (CosPGD).
    """
    return _times(pixels.labelled * (-pixels.cross_entropy.detach()).exp() / pixels.norm(), pixels)


def jensen_shannon(pixels: Pixels, progress: float) -> PixelLoss:
    """Jensen-Shannon divergence of the class probabilities and the one-hot truth, in nats: at most ln 2.

    Source: Croce et al., arXiv:2306.12941. With q the probability of the true class it is
    ln 2 + (q ln q - (1 + q) ln(1 + q)) / 2, whose derivative by -ln q is q ln((1 + q) / q) / 2.
    """
    log_q = -pixels.cross_entropy
    q = log_q.exp()
    value = math.log(2) + (q * log_q - (1 + q) * q.log1p()) / 2
    slope = q * (q.log1p() - log_q) / 2
    return PixelLoss(value * pixels.labelled, slope * pixels.labelled)


def _times(weight: Tensor, pixels: Pixels) -> PixelLoss:
    return PixelLoss(weight * pixels.cross_entropy, weight)


GAMMAS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

LOSSES: dict[str, AttackLoss] = {
    "correct-pixel": AttackLoss(correct_pixels, over="right"),
    "correct-pixel-fixed": AttackLoss(correct_pixels),
    "correct-pixel-clean": AttackLoss(all_pixels, seen="clean"),
    "correct-pixel-clean-fixed": AttackLoss(all_pixels, over="all", seen="clean"),
    "cross-entropy": AttackLoss(all_pixels),
    **{f"gamma-{gamma}": AttackLoss(weighted(gamma)) for gamma in GAMMAS},
    "gamma-dynamic": AttackLoss(all_pixels, mix=Mix(None, normalised=False)),
    **{f"gamma-{gamma}-normalised": AttackLoss(all_pixels, mix=Mix(gamma, normalised=True)) for gamma in GAMMAS},
    "gamma-dynamic-normalised": AttackLoss(all_pixels, mix=Mix(None, normalised=True)),
    "segpgd": AttackLoss(segpgd),
    "cospgd": AttackLoss(cospgd),
    "jensen-shannon": AttackLoss(jensen_shannon),
}
"""By the name that a user types. `-fixed`: divided by all labelled pixels, not by the right ones."""


def merge_logits(logits: Tensor, table: Tensor) -> Tensor:
    """Logits (B, K', H, W) of merged classes, from logits (B, K, H, W) and the merged class of each (K,).

    Log-sum-exp over the classes that are merged, which adds their probabilities.
    """
    merged = [logits[:, (table == k).nonzero().flatten()].logsumexp(dim=1) for k in range(int(table.max()) + 1)]
    return torch.stack(merged, dim=1)
