"""Training a patch: Expectation over Transformation, loss over the right pixels, uphill steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from segpatch.attack_config import AttackConfig, resolve, step_size
from segpatch.compositing import centre_region, cover, paste
from segpatch.data.dataset import order
from segpatch.eot import EOT, apply_placement, draw, generator_at
from segpatch.errors import BadInput
from segpatch.evaluation import predict
from segpatch.losses import PIXEL_WEIGHTS
from segpatch.memory import in_parts_that_fit
from segpatch.metrics import confusion_matrix, miou
from segpatch.models.folding import folded
from segpatch.models.victim import Victim
from segpatch.patch import Patch, random_pixels
from segpatch.processes import ALONE, Processes
from segpatch.tail import resized_loss
from segpatch.transforms import SceneEOT, apply_scene, apply_scene_to_labels, as_float
from segpatch.types import LabelledImages
from segpatch.updates import AdamState, adam_start, adam_step, sign_step

_HELD_OUT = 0x68656C64  # "held": an address that no training step reaches


class Step(NamedTuple):
    """What one step did: loss (mean over the counted pixels and the networks), share of labelled pixels that
    are still right, share that the loss counted, L2 norm of the patch gradient, share of patch values at a
    bound of their range, and images per forward pass (0: not known)."""

    step: int
    loss: float
    correct: float
    counted: float
    gradient_norm: float
    saturated: float
    micro_batch: int = 0


@dataclass(frozen=True)
class AttackState:
    """All that an attack needs to go on after `step` steps; chance is addressed by the step number."""

    step: int
    pixels: Tensor
    adam: AdamState
    best_pixels: Tensor
    best_miou: float


def train_patch(
    victims: Sequence[Victim],
    images: LabelledImages,
    config: AttackConfig,
    *,
    resume: AttackState | None = None,
    on_step: Callable[[Step], None] | None = None,
    on_state: Callable[[AttackState], None] | None = None,
    processes: Processes = ALONE,
) -> Patch:
    """The trained patch, for one network or for several at once (their mean losses are averaged).

    images: the training images. on_step is called after each step, on_state with what `resume` takes.
    Weights never get gradients. Where memory runs out, it goes on with half as many images per forward pass,
    which `Step.micro_batch` tells. processes: share the images of each step, and all return the patch of one.
    Raises BadInput where config, images and victims do not go together, and SegpatchError where memory does not
    suffice for one image.
    """
    config = resolve(config, images, victims)
    assert config.steps and config.patch_size
    training, held_out = _split(len(images), config)
    low, high = (torch.tensor(bound) for bound in config.range)
    state = resume or _start(config)
    fast = [folded(victim) for victim in victims]
    late = _late_steps(config.steps) if config.select == "best" else set()
    fitting = config
    while state.step < config.steps:
        gradient, step = patch_gradient(fast, images, training, state.pixels, state.step, fitting, processes)
        fitting = replace(config, micro_batch=step.micro_batch)
        size = step_size(config, state.step)
        if config.stepper == "sign":
            pixels, adam = sign_step(state.pixels, gradient, size, low, high), state.adam
        else:
            pixels, adam = adam_step(state.pixels, gradient, state.adam, size, low, high)
        state = replace(state, step=state.step + 1, pixels=pixels, adam=adam)
        if state.step in late:
            score = held_out_miou(fast, images, held_out, pixels, processes)
            if score < state.best_miou:
                state = replace(state, best_miou=score, best_pixels=pixels)
        if on_state:
            on_state(state)
        if on_step:
            at_bound = (pixels <= low.view(3, 1, 1)) | (pixels >= high.view(3, 1, 1))
            on_step(step._replace(step=state.step, saturated=float(at_bound.float().mean())))
    names = [victim.name for victim in victims]
    return Patch(
        state.best_pixels if config.select == "best" else state.pixels,
        name=f"{'+'.join(names)}/{config.preset}/s{config.seed}",
        preset=config.preset,
        trained_on=tuple(names),
        loss=config.loss,
        steps=config.steps,
        seed=config.seed,
        place=config.place,
        range=config.range,
        origin={"config": asdict(config), "victims": [asdict(victim.provenance) for victim in victims]},
    )


def patch_gradient(
    victims: Sequence[Victim],
    images: LabelledImages,
    training: Sequence[int],
    pixels: Tensor,
    step: int,
    config: AttackConfig,
    processes: Processes = ALONE,
) -> tuple[Tensor, Step]:
    """The uphill direction (3, h, w) of one step, and what the step saw.

    Totals and counts are added over micro-batches and processes and divided once, so any split gives the same
    gradient. Where memory runs out, the step is repeated with half the micro-batch.
    """
    assert config.batch_size
    samples = processes.share(range(config.batch_size))

    def summed(part: int) -> tuple[Tensor, Tensor]:
        return _summed(victims, images, training, pixels, step, samples, replace(config, micro_batch=part))

    # Every process adds the sums of all in one order, so that all have the same bits.
    shares = processes.gathered(
        lambda: in_parts_that_fit(summed, config.micro_batch or config.batch_size or 1, len(samples))
    )
    gradients = torch.stack([gradients for (gradients, _), _ in shares]).sum(0)
    tallies = torch.stack([tallies for (_, tallies), _ in shares]).sum(0)
    totals, counts, right, seen = tallies.unbind(1)
    gradient = (gradients / counts.clamp(min=1).to(gradients).view(-1, 1, 1, 1)).mean(0)
    return gradient, Step(
        step,
        loss=float((totals / counts.clamp(min=1)).mean()),
        correct=float(right.sum() / seen.sum().clamp(min=1)),
        counted=float(counts.sum() / seen.sum().clamp(min=1)),
        gradient_norm=float(gradient.norm()),
        saturated=0.0,
        micro_batch=min(part for _, part in shares),
    )


def _summed(
    victims: Sequence[Victim],
    images: LabelledImages,
    training: Sequence[int],
    pixels: Tensor,
    step: int,
    samples: range,
    config: AttackConfig,
) -> tuple[Tensor, Tensor]:
    """Of some samples of a step: summed gradients (V, 3, h, w), one per network, and tallies (V, 4) float64.

    The tallies are loss total, loss count, right pixels, labelled pixels.
    """
    assert config.micro_batch
    leaf = pixels.detach().clone().requires_grad_(True)
    gradients = torch.zeros(len(victims), *pixels.shape, dtype=pixels.dtype)
    tallies = torch.zeros(len(victims), 4, dtype=torch.float64)
    for first in range(0, len(samples), config.micro_batch):
        some = samples[first : first + config.micro_batch]
        patched, labels = _patched_batch(images, training, leaf, step, some, config)
        for index, victim in enumerate(victims):
            device = next(iter(victim.module.parameters()), patched).device
            truth = labels.to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                raw = victim.raw(patched.to(device))
            total, count, right, seen = resized_loss(
                raw.logits,
                truth,
                PIXEL_WEIGHTS[config.loss],
                size=raw.size,
                align_corners=victim.align_corners,
                merge=victim.merge,
            )
            if not total.requires_grad:
                raise BadInput(
                    f"the loss of {victim.name} does not depend on the patch: its module cuts the gradient "
                    "(no_grad, argmax or a detached output); return the raw logits"
                )
            last = index == len(victims) - 1
            (gradient,) = torch.autograd.grad(total, leaf, retain_graph=not last)
            gradients[index] += gradient
            tallies[index] += torch.stack([total.detach(), count, right, seen]).double().cpu()
    return gradients, tallies


def held_out_miou(
    victims: Sequence[Victim],
    images: LabelledImages,
    indices: Sequence[int],
    pixels: Tensor,
    processes: Processes = ALONE,
) -> float:
    """Mean over the networks of the patched mIoU on some training images, patch in the centre."""

    def measured() -> list[Tensor]:
        """The confusion matrix (K, K) of each network over this process's share of the images."""
        out = []
        for victim in victims:
            classes = len(victim.label_classes)
            total = torch.zeros(classes, classes, dtype=torch.int64)
            with torch.inference_mode():
                for position in processes.share(range(len(indices))):
                    image, labels = images[indices[position]]
                    region = centre_region(labels.shape[0], labels.shape[1], pixels.shape[1], pixels.shape[2])
                    predicted = predict(victim, paste(as_float(image), pixels, region)[None])
                    total += confusion_matrix(predicted, cover(labels, region)[None], classes)[0]
            out.append(total)
        return out

    shares = zip(*processes.gathered(measured), strict=True)
    return float(torch.stack([miou(torch.stack(totals).sum(0)) for totals in shares]).mean())


def _patched_batch(
    images: LabelledImages,
    training: Sequence[int],
    pixels: Tensor,
    step: int,
    samples: Sequence[int],
    config: AttackConfig,
) -> tuple[Tensor, Tensor]:
    """Patched crops (b, 3, H, W) that carry the patch's gradient, and their labels (b, H, W)."""
    assert config.batch_size and config.patch_size
    scene_eot = SceneEOT(scales=config.scales, crop=config.crop, flip=config.flip)
    eot = EOT(scene_eot, config.patch_eot, config.place)
    parts = []
    for sample in samples:
        epoch, place = divmod(step * config.batch_size + sample, len(training))
        image, labels = images[training[order(config.seed, epoch, len(training))[place]]]
        size = (labels.shape[0], labels.shape[1])
        scene, placement = draw(eot, (config.seed, step, sample), size, config.patch_size)
        crop = apply_scene(as_float(image), scene).to(pixels.dtype)
        truth = apply_scene_to_labels(labels.long(), scene)
        parts.append(apply_placement(crop, truth, pixels, placement))
    patched, covered = zip(*parts, strict=True)
    return torch.stack(patched), torch.stack(covered)


def _start(config: AttackConfig) -> AttackState:
    assert config.patch_size
    pixels = random_pixels(config.patch_size, config.range, config.seed)
    if config.start == "grey":
        low, high = (torch.tensor(bound).view(3, 1, 1) for bound in config.range)
        pixels = ((low + high) / 2).expand_as(pixels).clone()
    return AttackState(0, pixels, adam_start(pixels), pixels, float("inf"))


def _split(count: int, config: AttackConfig) -> tuple[list[int], list[int]]:
    """Indices to train on, and those held out to choose the checkpoint."""
    mixed = generator_at(config.seed, _HELD_OUT).permutation(count).tolist()
    return sorted(mixed[config.held_out :]), sorted(mixed[: config.held_out])


def _late_steps(steps: int, checkpoints: int = 5) -> set[int]:
    """The steps after which a patch may be kept: the last, and four more in the last third."""
    return {steps - round(k * steps / 3 / checkpoints) for k in range(checkpoints)}
