"""What a network is asked before its numbers are believed: each sentence is a fault that would make them mislead.

Source: the checks of AutoAttack (arXiv:2003.01690) and of "Obfuscated gradients" (arXiv:1802.00420).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from segpatch.evaluation import evaluate_all
from segpatch.memory import out_of_memory
from segpatch.models.victim import Victim
from segpatch.patch import Patch
from segpatch.transforms import as_float
from segpatch.types import Batch, LabelledImages

T = TypeVar("T")
ROUNDING = 1e-3
"""Share of the largest logit by which two predictions of one image may differ; float32 differs by 1e-5."""
LOST_IN_PNG = 0.01
"""mIoU that a patch's 8-bit picture may lose of its drop."""


def probe_images(images: LabelledImages, crop: tuple[int, int] | None = None) -> Tensor:
    """The first two images (2, 3, H, W), or their upper left corners.

    The first one and its mirror image where there is no other of its size.
    """
    shown = [as_float(images[index][0]) for index in range(min(2, len(images)))]
    if shown[0].shape != shown[-1].shape or len(shown) == 1:
        shown = [shown[0], shown[0].flip(-1)]
    height, width = crop or shown[0].shape[1:]
    return torch.stack(shown)[:, :, :height, :width]


def check_network(victim: Victim, images: Tensor) -> list[str]:
    """Warnings about a network, from two images (2, 3, H, W) in [0, 1]; it is left as it was."""
    buffers = {name: buffer.clone() for name, buffer in victim.module.named_buffers()}
    training = sum(part.training for part in victim.module.modules())
    with torch.inference_mode():
        alone, again = victim(images[:1]), victim(images[:1])
        together = _if_it_fits(lambda: victim(images))
    changed = [name for name, buffer in victim.module.named_buffers() if not _same(buffer, buffers[name])]
    reached = not victim.differentiable or _if_it_fits(lambda: _has_gradient(victim, images[:1])) is not False
    with torch.no_grad():
        for name, buffer in victim.module.named_buffers():
            buffer.copy_(buffers[name])
    said = []
    if training:
        said.append(f"{training} of its modules are in training mode; call eval() on it")
    if changed:
        said.append(
            f"predicting changes its {changed[0]} (buffers changed: {len(changed)}), as batch norms do while they "
            "train; put it into eval mode, or each number depends on those before"
        )
    if _apart(alone, again):
        said.append("it predicts one image differently when asked twice; turn its dropout or noise off")
    elif together is not None and _apart(alone, together[:1]):
        said.append(
            "its prediction of an image depends on what else is in the batch; let its batch norms use their "
            "running statistics"
        )
    if not reached:
        said.append(
            "no gradient leads from its logits to the image (a rounding step, no_grad, or a defence that hides "
            "it); patches trained on it say nothing, take the gradient of a network without that step"
        )
    return [f"{victim.name}: {text}" for text in said]


def check_png(patches: Sequence[Patch], victims: Sequence[Victim], batches: Sequence[Batch]) -> list[str]:
    """Warnings about trained patches whose 8-bit picture does less on their networks than their exact pixels."""
    warnings = []
    for victim in victims:
        own = [patch for patch in patches if victim.name in patch.trained_on]
        if not own:
            continue
        seen = [replace(patch, pixels=patch.pixels.mul(255).round().div(255)) for patch in own]
        scores = [row[0].miou_drop for row in evaluate_all([victim], batches, [*own, *seen])]
        for patch, exact, rounded in zip(own, scores[: len(own)], scores[len(own) :], strict=True):
            if exact - rounded > LOST_IN_PNG:
                warnings.append(
                    f"{patch.name} on {victim.name}: as an 8-bit PNG its drop is {rounded:.3f}, not {exact:.3f}; "
                    "its effect lies in values that no picture holds, so pass the .safetensors file on"
                )
    return warnings


def _if_it_fits(work: Callable[[], T]) -> T | None:
    """What the work returns; None where memory does not suffice for it."""
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return None


def _apart(one: Tensor, other: Tensor) -> bool:
    """Whether logits differ by more than rounding; what is not finite is told of elsewhere."""
    return bool((one - other).abs().max() > ROUNDING * one.abs().max())


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.nan_to_num(), other.nan_to_num())


def _has_gradient(victim: Victim, image: Tensor) -> bool:
    x = victim.prepared(image).detach().requires_grad_(True)
    with torch.enable_grad():
        best = victim.raw_of(x).logits.amax(1).sum()
    if not best.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(best, x, allow_unused=True)
    return gradient is not None and bool(gradient.any())
