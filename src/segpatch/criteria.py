"""What a fit minimises: cross-entropy with rare classes lifted, or over the hardest pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segpatch.types import IGNORE, LabelledImages

CRITERIA = ("balanced", "ohem")


def criterion(
    name: str, train: LabelledImages, classes: int, device: torch.device
) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of that name, of logits (B, K, H, W) and labels (B, H, W): a mean, 0 where no pixel is labelled."""
    if name == "ohem":

        def hard(logits: Tensor, labels: Tensor) -> Tensor:
            loss = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="none")
            return ohem(loss, labels != IGNORE)

        return hard
    weights = class_weights(train, classes).to(device)

    def balanced(logits: Tensor, labels: Tensor) -> Tensor:
        if not bool((labels != IGNORE).any()):
            return logits.sum() * 0
        return F.cross_entropy(logits.float(), labels, weight=weights, ignore_index=IGNORE)

    return balanced


def class_weights(images: LabelledImages, classes: int, sample: int = 200) -> Tensor:
    """Weights (K,) that lift rare classes: 1 / ln(1.1 + share of pixels), mean 1 over the pixels.

    Counted on `sample` evenly spaced images. Source: ENet, arXiv:1606.02147, section 5.1 (with c = 1.1).
    """
    counts = torch.zeros(classes, dtype=torch.float64)
    for index in np.linspace(0, len(images) - 1, min(sample, len(images))).astype(int):
        labels = images[int(index)][1]
        counts += torch.bincount(labels[labels != IGNORE].long().flatten(), minlength=classes)[:classes]
    share = counts / counts.sum().clamp(min=1)
    weights = 1 / torch.log(1.1 + share)
    return (weights / (weights * share).sum()).float()


def ohem(loss: Tensor, counted: Tensor, share: float = 0.25) -> Tensor:
    """Mean of the hardest `share` of the counted pixels' losses, a scalar.

    loss, counted (B, H, W). Source: online hard example mining, Shrivastava et al., arXiv:1604.03540.
    """
    kept = loss[counted]
    if not len(kept):
        return loss.sum() * 0
    return kept.topk(max(1, int(len(kept) * share))).values.mean()
