"""What a run would cost, from one real step and one real prediction of each network."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from segpatch.attack_config import AttackConfig, resolve
from segpatch.attack_step import draw_samples, patch_gradient
from segpatch.data import Dataset
from segpatch.data.images import SplitImages, split_images
from segpatch.evaluation import predict
from segpatch.losses import LOSSES
from segpatch.models.networks import network_name, network_spec
from segpatch.models.victim import Victim
from segpatch.patch import Patch, random_pixels
from segpatch.studies.fit import start, victim_for
from segpatch.studies.matrix import measured_indices
from segpatch.studies.planned import MatrixPlan, planned_patches, untrained
from segpatch.training import FitConfig, fit_network
from segpatch.transforms import as_float


@dataclass(frozen=True)
class Estimate:
    """Lines that name each piece with its minutes, the peak memory of one piece in GiB, and a line of counts."""

    pieces: tuple[tuple[str, float], ...]
    memory: float
    counts: str = ""

    @property
    def minutes(self) -> float:
        """All pieces together."""
        return sum(minutes for _, minutes in self.pieces)

    def describe(self) -> str:
        """A line a piece, how many there are where that was counted, and the sum."""
        lines = [f"{name}: about {minutes:.1f} minutes" for name, minutes in self.pieces]
        lines += [self.counts] if self.counts else []
        whole = f"in all about {self.minutes:.0f} minutes and {self.memory:.1f} GiB of memory"
        return "\n".join([*lines, f"{whole} (from one step each on this machine)"])


def estimate_attack(victims: Sequence[Victim], images: SplitImages, config: AttackConfig) -> Estimate:
    """The cost of one training."""
    config = resolve(config, images, victims)
    return Estimate((_training(victims, config, step_seconds(victims, images, config)),), peak_memory())


Tried = dict[object, float]
"""Seconds of what was tried already, by what makes it cost what it does."""


def estimate_matrix(
    victims: Sequence[Victim],
    dataset: Dataset,
    plan: MatrixPlan,
    given: Sequence[Patch] = (),
    *,
    out: Path | None = None,
    tried: Tried | None = None,
) -> Estimate:
    """The cost of a whole matrix: ready patches are measured beside those to train.

    out: the run that is gone on with, whose finished patches and measurement are left out. tried: what matrices
    before have tried of the same networks and images, and this one adds to.
    """
    images = split_images(dataset, plan.train_split or dataset.train_split, plan.trained)
    split = plan.split or dataset.eval_split
    tried = {} if tried is None else tried
    pieces: list[tuple[str, float]] = []
    todo = planned_patches(victims, plan)
    for item in untrained(todo, out):
        config = resolve(item.config, images, item.victims)
        pieces.append(_training(item.victims, config, step_seconds(item.victims, images, config, tried)))
    if is_measured(out):
        return Estimate(tuple(pieces), peak_memory())
    measured = len(measured_indices(dataset, split, plan))
    ranges = {item.config.range for item in todo} | {patch.range for patch in given}
    controls = 2 + len(ranges)  # grey, natural, and a random patch of each range
    rows = 1 + len(given) + len(todo) + controls
    for victim in victims:
        seconds = prediction_seconds(victim, dataset, plan, tried)
        pieces.append((f"measure {rows} rows on {victim.name}, {measured} images", seconds * rows * measured / 60))
    return Estimate(tuple(pieces), peak_memory())


def estimate_fit(
    name: str,
    train: SplitImages,
    held_out: SplitImages,
    config: FitConfig,
    *,
    init: Path | None = None,
    device: str = "cpu",
) -> Estimate:
    """The cost of one fit, from two steps of it and one validation on a single image."""
    name = network_name(name)
    classes = train.dataset.classes
    module, _ = start(name, len(classes), init)
    ends = [0.0]

    def victim_of(module: nn.Module) -> Victim:
        return victim_for(module, name, network_spec(name).family, classes)

    fit_network(
        module.to(device),
        victim_of,
        train,
        SplitImages(held_out.dataset, held_out.split, held_out.indices[:1]),
        replace(config, steps=3, validate_every=3),
        on_step=lambda step: ends.append(time.perf_counter()),
    )
    _, first, second, third = ends
    step = second - first
    scored = max(0.0, third - second - step) * len(held_out)
    times = -(-config.steps // config.validate_every)
    return Estimate(
        (
            (f"fit {name}, {config.steps} steps", step * config.steps / 60),
            (f"validate {times} times on {len(held_out)} images", scored * times / 60),
        ),
        peak_memory(),
    )


def _training(victims: Sequence[Victim], config: AttackConfig, seconds: float) -> tuple[str, float]:
    """A training by name, with its minutes at so many seconds a step."""
    name = f"{'+'.join(victim.name for victim in victims)}/{config.preset}/s{config.seed}"
    return f"{name}, {config.steps} steps", seconds * (config.steps or 0) / 60


def is_measured(out: Path | None) -> bool:
    """Whether a directory holds a finished matrix."""
    return out is not None and (out / "transfer.json").is_file()


def prediction_seconds(victim: Victim, dataset: Dataset, plan: MatrixPlan, tried: Tried) -> float:
    """Seconds of a real prediction of one measured image."""
    key = (victim.name, plan.precision)
    if key not in tried:
        image = as_float(split_images(dataset, plan.split or dataset.eval_split, 1)[0][0])[None]
        tried[key] = seconds_of(lambda: predict(victim, image, plan.precision))
    return tried[key]


def step_seconds(
    victims: Sequence[Victim], images: SplitImages, config: AttackConfig, tried: Tried | None = None
) -> float:
    """Seconds of a step of a resolved config, from one real step of at most two images."""
    assert config.patch_size
    pixels = random_pixels(config.patch_size, config.range, config.seed)
    small = replace(config, batch_size=min(2, config.batch_size or 1))
    loss = LOSSES[config.loss]
    # What a step costs; seeds, step sizes and the patch's size hardly change it.
    of_network = (tuple(victim.name for victim in victims), config.crop, small.batch_size, config.precision)
    key = (*of_network, config.patch_eot, len(loss.rules()), loss.seen)
    tried = {} if tried is None else tried
    device = victims[0].device
    pixels = pixels.to(device)

    def step() -> object:
        return patch_gradient(
            victims, pixels, small, lambda: draw_samples(images, range(len(images)), 0, small, device=device)
        )

    if key not in tried:
        tried[key] = seconds_of(step)
    return tried[key] * (config.batch_size or 1) / (small.batch_size or 1)


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds of some work, done a second time."""
    with torch.inference_mode(False):
        work()  # the first call warms caches up
        began = time.perf_counter()
        work()
        return time.perf_counter() - began


def peak_memory() -> float:
    """The most memory that this process has held, in GiB."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
