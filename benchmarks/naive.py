"""One step of the published attack, written plainly: what a speed-up is measured against.

As arXiv:2502.16012 describes it: the patch is pasted in the centre of each crop, the logits are resized to the
labels, cross-entropy is averaged over the pixels that are still right, the whole network is differentiated, and
IoU is accumulated at every step. For `segpatch bench --against benchmarks/naive.py`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from segpatch.models.victim import Victim

STEP_SIZE = 0.005
IGNORED = 255


def step(victim: Victim, images: Tensor, labels: Tensor, patch: Tensor) -> Tensor:
    """The patch (3, h, w) after one sign step on images (B, 3, H, W) uint8 with labels (B, H, W)."""
    victim.module.requires_grad_(True)  # nothing freezes the weights, so their gradients are computed too
    device = next(victim.module.parameters()).device
    pixels = patch.clone().requires_grad_(True)
    mean = torch.tensor(victim.mean).view(3, 1, 1)
    std = torch.tensor(victim.std).view(3, 1, 1)
    x = images.float() / 255
    truth = labels.long().clone()
    top, left = (x.shape[2] - patch.shape[1]) // 2, (x.shape[3] - patch.shape[2]) // 2
    rows, columns = slice(top, top + patch.shape[1]), slice(left, left + patch.shape[2])
    x[:, :, rows, columns] = pixels
    truth[:, rows, columns] = IGNORED
    x, truth = ((x - mean) / std).to(device), truth.to(device)

    logits = victim.module(x)
    logits = F.interpolate(logits, truth.shape[-2:], mode="bilinear", align_corners=victim.align_corners)
    predicted = logits.softmax(1).argmax(1)
    right = predicted == truth
    loss = F.cross_entropy(logits, truth, ignore_index=IGNORED, reduction="none")
    mean_loss = (loss * right).sum() / right.sum()
    mean_loss.backward()
    classes, counted = logits.shape[1], truth != IGNORED
    for values in (predicted[counted & right], predicted[counted], truth[counted]):
        torch.histc(values.float().cpu(), bins=classes, min=0, max=classes - 1)
    mean_loss.item()
    victim.module.zero_grad(set_to_none=True)
    victim.module.requires_grad_(False)
    assert pixels.grad is not None
    return (pixels.detach() + STEP_SIZE * pixels.grad.sign()).clamp(0, 1)
