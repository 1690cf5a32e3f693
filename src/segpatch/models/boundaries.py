"""Where classes meet: targets and loss of a network that learns boundaries (PIDNet's D branch)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segpatch.types import IGNORE

NEIGHBOURHOOD = 5  # side in pixels; thin boundaries would be too few to learn from


def boundaries(labels: Tensor, neighbourhood: int = NEIGHBOURHOOD) -> Tensor:
    """True where a labelled pixel has another class in the square around it.

    labels (B, H, W), IGNORE where there is no truth (no class of its own); neighbourhood: odd side in pixels.
    """
    known = labels != IGNORE
    ids = labels.float().unsqueeze(1)
    pad = neighbourhood // 2
    highest = F.max_pool2d(ids.masked_fill(~known.unsqueeze(1), -1), neighbourhood, 1, pad)
    lowest = -F.max_pool2d(-ids, neighbourhood, 1, pad)  # IGNORE lies above every class
    return known & (highest != lowest).squeeze(1)


def boundary_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of boundary logits (B, 1, H, W), both answers given the same total weight.

    labels (B, H, W). Mean over labelled pixels; a boundary pixel weighs the share of the others and the
    other way round. 0 where no pixel is labelled.
    Source: arXiv:2206.02066 (weighted against the rarity of boundaries).
    """
    target = boundaries(labels)
    known = labels != IGNORE
    count = known.sum().clamp(min=1)
    share = target.sum() / count
    weight = torch.where(target, 1 - share, share) * known
    loss = F.binary_cross_entropy_with_logits(
        logits.squeeze(1), target.to(logits.dtype), weight=weight.to(logits.dtype), reduction="sum"
    )
    return loss / count


def keep_boundaries(labels: Tensor, logits: Tensor, threshold: float = 0.8) -> Tensor:
    """Labels (B, H, W) with IGNORE wherever sigmoid(boundary logits (B, 1, H, W)) is at most the threshold.

    Source: arXiv:2206.02066 (the boundary-awareness loss, threshold 0.8).
    """
    return labels.masked_fill(logits.detach().squeeze(1).sigmoid() <= threshold, IGNORE)
