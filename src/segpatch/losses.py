"""Losses that a patch climbs. Each returns (total, count), so that sums over parts of a batch stay exact.

The patch ascends: a larger loss means that the network is more wrong. Logits are (B, K, H, W), labels
(B, H, W) class ids with IGNORE where there is no truth or where the patch lies.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from segpatch.types import IGNORE

Loss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
PixelWeight = Callable[[Tensor, Tensor], Tensor]
"""From which pixels are right and which are labelled (both bool), the weight of each pixel's cross-entropy."""


def correct_pixel_loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy over the pixels that the network still gets right: (total, count), both scalars.

    The mean is total / count; both are 0, with zero gradient, once no pixel is right.
    Source: arXiv:2502.16012, section II (the set Omega_x, taken from the prediction on the patched image).
    """
    right = (logits.argmax(dim=1) == labels).detach()
    loss = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
    return (loss * right).sum(), right.sum()


def cross_entropy_loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy over all labelled pixels: (total, count), both scalars; zero gradient if none is labelled."""
    total = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
    return total, (labels != IGNORE).sum()


LOSSES: dict[str, Loss] = {
    "correct-pixel": correct_pixel_loss,
    "cross-entropy": cross_entropy_loss,
}

PIXEL_WEIGHTS: dict[str, PixelWeight] = {
    "correct-pixel": lambda right, labelled: right,
    "cross-entropy": lambda right, labelled: labelled,
}
"""The losses that are a cross-entropy with a weight per pixel, which `segpatch.tail` computes faster."""


def merge_logits(logits: Tensor, table: Tensor) -> Tensor:
    """Logits (B, K', H, W) of merged classes, from logits (B, K, H, W) and the merged class of each (K,).

    Log-sum-exp over the classes that are merged, which adds their probabilities.
    """
    merged = [logits[:, (table == k).nonzero().flatten()].logsumexp(dim=1) for k in range(int(table.max()) + 1)]
    return torch.stack(merged, dim=1)
