"""One step of an attack: scenes drawn, the patch put into them, forward, and the gradient back to the patch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from segpatch.attack_config import AttackConfig
from segpatch.cores import side_by_side
from segpatch.data.dataset import order
from segpatch.eot import EOT, Appearance, appearance, draw
from segpatch.errors import BadInput
from segpatch.evaluation import predict_prepared
from segpatch.losses import LOSSES, PixelLoss, PixelRule, Pixels, from_clean, unit
from segpatch.memory import in_parts_that_fit
from segpatch.models.victim import Victim
from segpatch.processes import ALONE, Processes
from segpatch.tail import resized_loss
from segpatch.transforms import SceneEOT, apply_scene, apply_scene_to_labels
from segpatch.types import IGNORE, LabelledImages


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


class Samples(NamedTuple):
    """The drawn scenes of a step, ready but for the patch: crops (b, 3, H, W) in [0, 1], labels (b, H, W) uint8,
    IGNORE where the patch will be, how it will appear in each, and what will be under it there (3, h', w')."""

    scenes: Tensor
    labels: Tensor
    looks: tuple[Appearance, ...]
    under: tuple[Tensor, ...]


def draw_samples(
    images: LabelledImages,
    training: Sequence[int],
    step: int,
    config: AttackConfig,
    processes: Processes = ALONE,
    device: torch.device | None = None,
) -> Samples:
    """This process's samples of a step, made on a device; the same whenever and wherever they are drawn.

    training: which of the images are trained on.
    """
    patch_size = config.patch_size
    assert config.batch_size and patch_size and config.crop
    scene_eot = SceneEOT(scales=config.scales, crop=config.crop, flip=config.flip)
    eot = EOT(scene_eot, config.patch_eot, config.place)
    numbers = processes.share(range(config.batch_size))
    # In the memory order of convolutions.
    scenes = torch.empty(len(numbers), 3, *config.crop, device=device, memory_format=torch.channels_last)
    labels = torch.empty(len(numbers), *config.crop, dtype=torch.uint8, device=device)
    places = [divmod(step * config.batch_size + number, len(training)) for number in numbers]
    wanted = [training[order(config.seed, epoch, len(training))[place]] for epoch, place in places]
    read = list(_readers().map(images.__getitem__, wanted))

    def make(which: int) -> Appearance:
        image, truth = read[which]
        _must_be_labels(truth)
        image, truth = image.to(device, non_blocking=True), truth.to(device, non_blocking=True)
        size = (truth.shape[0], truth.shape[1])
        drawn, placement = draw(eot, (config.seed, step, numbers[which]), size, patch_size)
        look = appearance(placement, patch_size).to(scenes.device)
        scenes[which].copy_(apply_scene(image, drawn))
        labels[which].copy_(look.cover(apply_scene_to_labels(truth, drawn)))
        return look

    looks = tuple(side_by_side(make, range(len(numbers)), scenes.device))
    under = tuple(scene[look.at].clone() for scene, look in zip(scenes, looks, strict=True))
    return Samples(scenes, labels, looks, under)


@functools.cache
def _readers() -> ThreadPoolExecutor:
    """Threads that decode the images of a step at once, so that a fast network need not wait for one to do it."""
    return ThreadPoolExecutor(8)


def _must_be_labels(labels: Tensor) -> None:
    """BadInput for what would be another label in a byte."""
    if labels.dtype != torch.uint8:
        lowest, highest = (int(value) for value in labels.aminmax())
        if lowest < 0 or highest > IGNORE:
            wrong = lowest if lowest < 0 else highest
            raise BadInput(f"labels must be class ids, or {IGNORE} where there is no truth; got {wrong}")


class Seen(NamedTuple):
    """What a step saw, still on the device: loss, correct, counted and gradient_norm of `Step` (4,) float64, and
    the images per forward pass."""

    values: Tensor
    micro_batch: int

    def read(self, step: int, saturated: float = 0.0) -> Step:
        """As numbers; waits for the device."""
        loss, correct, counted, norm = self.values.tolist()
        return Step(step, loss, correct, counted, norm, saturated, self.micro_batch)


class Gradients(NamedTuple):
    """A step as each of V networks sees it: uphill directions (V, 3, h, w), mean losses, right, labelled and
    counted pixels (V,) float64, and the images per forward pass."""

    directions: Tensor
    losses: Tensor
    right: Tensor
    labelled: Tensor
    counted: Tensor
    micro_batch: int


def patch_gradient(
    victims: Sequence[Victim],
    pixels: Tensor,
    config: AttackConfig,
    samples: Callable[[], Samples],
    processes: Processes = ALONE,
    step: int = 0,
) -> tuple[Tensor, Seen]:
    """The uphill direction (3, h, w) of a step, and what the step saw.

    Of several networks it is the mean of their directions, each of L2 norm 1, so that no network drowns another.
    Source: arXiv:2303.14304, which weighs its surrogates so. For the rest see `network_gradients`.
    """
    seen = network_gradients(victims, pixels, config, samples, processes, step)
    directions = seen.directions if len(victims) == 1 else torch.stack([unit(one) for one in seen.directions])
    gradient = directions.mean(0)
    labelled = seen.labelled.sum().clamp(min=1)
    values = [seen.losses.mean(), seen.right.sum() / labelled, seen.counted.sum() / labelled]
    return gradient, Seen(torch.stack([*values, gradient.norm().double()]), seen.micro_batch)


def network_gradients(
    victims: Sequence[Victim],
    pixels: Tensor,
    config: AttackConfig,
    samples: Callable[[], Samples],
    processes: Processes = ALONE,
    step: int = 0,
) -> Gradients:
    """What each network makes of the same samples of a step.

    samples: draws this process's of the step, which are used up. Totals and counts are added over micro-batches
    and processes and divided once, so any split gives the same gradient. Where memory runs out, the step is
    repeated with half the micro-batch, on samples drawn again.
    """
    batch = config.batch_size or 1
    progress = step / (config.steps or 1)

    def summed(part: int) -> tuple[Tensor, Tensor]:
        return _summed(victims, samples(), pixels, part, config, progress)

    def of_this_process() -> tuple[Tensor, Tensor, int]:
        part = config.micro_batch or batch
        (gradients, tallies), part = in_parts_that_fit(summed, part, len(processes.share(range(batch))))
        if processes.world == 1:
            return gradients, tallies, part
        return gradients.cpu(), tallies.cpu(), part  # what another process sends has no place on this one's GPU

    # Every process adds the sums of all in one order, so that all have the same bits.
    shares = processes.gathered(of_this_process)
    gradients = torch.stack([gradients for gradients, _, _ in shares]).sum(0).to(pixels.device)
    tallies = torch.stack([tallies for _, tallies, _ in shares]).sum(0).to(pixels.device)
    loss = LOSSES[config.loss]
    totals, right, labelled = tallies[:, :-2], tallies[:, -2], tallies[:, -1]
    of_each = list(zip(right, labelled, strict=True))
    return Gradients(
        torch.stack([loss.direction(one, *counts) for one, counts in zip(gradients, of_each, strict=True)]),
        torch.stack([loss.mean(one, *counts) for one, counts in zip(totals, of_each, strict=True)]),
        right,
        labelled,
        right if loss.over == "right" else labelled,
        min(part for _, _, part in shares),
    )


def _summed(
    victims: Sequence[Victim], samples: Samples, pixels: Tensor, part: int, config: AttackConfig, progress: float
) -> tuple[Tensor, Tensor]:
    """Of samples, `part` at a time: summed gradients (V, R, 3, h, w) of the R rules of the loss, and tallies
    (V, R + 2) float64: the R totals, right pixels, labelled pixels."""
    loss = LOSSES[config.loss]
    rules = loss.rules()
    gradients = torch.zeros(len(victims), len(rules), *pixels.shape, dtype=pixels.dtype, device=pixels.device)
    tallies = torch.zeros(len(victims), len(rules) + 2, dtype=torch.float64, device=pixels.device)
    for first in range(0, len(samples.looks), part):
        some = slice(first, first + part)
        looks, scenes, under = samples.looks[some], samples.scenes[some].to(pixels), samples.under[some]
        labels = [samples.labels[some]] * len(victims)
        labelled = (samples.labels[some] != IGNORE).sum()
        if loss.seen == "clean":
            _put(scenes, looks, under)
            labels = [
                _right_when_clean(victim, scenes, truth, config)
                for victim, truth in zip(victims, labels, strict=True)
            ]
        leaf = pixels.detach().clone().requires_grad_(True)
        shown = [look.over(below.to(leaf), leaf) for look, below in zip(looks, under, strict=True)]
        _put(scenes, looks, [patch.detach() for patch in shown])
        for index, (victim, truth) in enumerate(zip(victims, labels, strict=True)):
            x = victim.prepared(scenes, in_place=index == len(victims) - 1)
            of_scenes, tally = scene_gradients(victim, x, truth, config, rules, progress)
            if loss.over == "all":
                tally[-1] = labelled
            tallies[index] += tally.to(tallies)
            for rule, gradient in enumerate(of_scenes):
                # Only what the patch shows of itself leads back to it.
                regions = [
                    victim.gradient_of_images(whole[look.at].to(leaf))
                    for whole, look in zip(gradient, looks, strict=True)
                ]
                (of_patch,) = torch.autograd.grad(shown, leaf, regions, retain_graph=True)
                gradients[index, rule] += of_patch
    return gradients, tallies


def show_patch(samples: Samples, pixels: Tensor | None) -> None:
    """Puts a patch (3, h, w) into the scenes of the samples, in place, or takes it out again (None)."""
    shown = samples.under
    if pixels is not None:
        shown = tuple(look.over(below, pixels) for look, below in zip(samples.looks, samples.under, strict=True))
    _put(samples.scenes, samples.looks, shown)


def _put(scenes: Tensor, looks: Sequence[Appearance], regions: Sequence[Tensor]) -> None:
    """Writes to each scene what is to be seen where its patch lies."""
    for scene, look, region in zip(scenes, looks, regions, strict=True):
        scene[look.at] = region.to(scene)


def _right_when_clean(victim: Victim, scenes: Tensor, labels: Tensor, config: AttackConfig) -> Tensor:
    """Labels (b, H, W) of the pixels that the network gets right in scenes without the patch, else IGNORE."""
    with torch.inference_mode():
        predicted = predict_prepared(victim, victim.prepared(scenes), config.precision)
    return from_clean(labels.to(predicted.device), predicted)


def scene_gradients(
    victim: Victim,
    x: Tensor,
    labels: Tensor,
    config: AttackConfig,
    rules: Sequence[PixelRule],
    progress: float = 0.0,
) -> tuple[list[Tensor], Tensor]:
    """The gradient of the summed loss by each rule for scenes that a victim has prepared (b, 3, H, W), and a
    tally: the sums by rule, right pixels, labelled pixels (R + 2,) float64."""
    x = x.detach().requires_grad_(True)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        raw = victim.raw_of(x)
    gradients, totals = [], []
    for number, rule in enumerate(rules):

        def loss(pixels: Pixels, rule: PixelRule = rule) -> PixelLoss:
            return rule(pixels, progress)

        sums = resized_loss(
            raw.logits,
            labels.to(x.device),
            loss,
            size=raw.size,
            align_corners=victim.align_corners,
            merge=victim.merge,
        )
        if not sums.total.requires_grad:
            raise BadInput(
                f"the loss of {victim.name} does not depend on the patch: its module cuts the gradient "
                "(no_grad, argmax or a detached output); return the raw logits"
            )
        gradients.append(torch.autograd.grad(sums.total, x, retain_graph=number + 1 < len(rules))[0])
        totals.append(sums.total.detach().double())
    return gradients, torch.stack([*totals, sums.right, sums.labelled])
