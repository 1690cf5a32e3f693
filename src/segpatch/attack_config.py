"""What an attack is: its configuration, the presets, and what follows from the data and the networks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from segpatch.bounds import (
    MOST_BATCH,
    check_number,
    check_pair,
    check_precision,
    check_seed,
    check_size,
    check_whole,
    check_whole_or_none,
)
from segpatch.eot import PLACES, PatchEOT, largest_size
from segpatch.errors import BadInput, unknown_name
from segpatch.losses import LOSSES
from segpatch.models.victim import Victim
from segpatch.patch import FULL_RANGE, RELEASED_RANGE, Range
from segpatch.transforms import SceneEOT
from segpatch.types import LabelledImages

STEPPERS = ("sign", "adam")
STARTS = ("random", "grey")
SCHEDULES = ("constant", "cosine")
MOST_SNAPSHOTS = 10_000
PUBLISHED_SCALES = tuple(round(0.5 + k / 10, 1) for k in range(17))
"""0.5, 0.6 .. 2.1: what the released loader draws from (the paper writes [0.5, 2])."""


@dataclass(frozen=True, kw_only=True)
class AttackConfig:
    """How a patch is trained. What is None is taken from the data and the networks by `resolve`.

    preset: the name it goes by. steps, or epochs over the images; batch_size: images a step; crop, patch_size:
    (height, width) in pixels. start: from "random" pixels of the range, or from its middle, "grey". step_size:
    share of the range per step, which a "cosine" schedule lowers to 0. select: "last" patch, or the "best" of late
    checkpoints on `held_out` training images. micro_batch: images per forward pass. snapshots: how many patches on
    the way a run keeps, evenly spaced, the last one included.
    """

    preset: str = "paper"
    steps: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    micro_batch: int | None = None
    crop: tuple[int, int] | None = None
    patch_size: tuple[int, int] | None = None
    range: Range = FULL_RANGE
    scales: tuple[float, ...] = (0.5, 2.0)
    flip: float = 0.5
    patch_eot: PatchEOT | None = None
    place: str = "centre"
    start: str = "random"
    loss: str = "correct-pixel"
    stepper: str = "sign"
    step_size: float = 0.005
    schedule: str = "constant"
    select: str = "last"
    held_out: int = 0
    seed: int = 0
    precision: str = "fp32"
    snapshots: int = 0

    def __post_init__(self) -> None:
        check_number("step_size", self.step_size, 0, 1, above=True)
        check_whole_or_none("steps", self.steps)
        check_whole_or_none("epochs", self.epochs)
        check_whole_or_none("batch_size", self.batch_size, 1, MOST_BATCH)
        check_whole_or_none("micro_batch", self.micro_batch)
        if self.patch_size is not None:
            check_size("patch_size", self.patch_size)
        for bounds in zip(*self.range, strict=True):
            check_pair("range", bounds, 0, 1)
        SceneEOT(self.scales, self.crop, self.flip)  # says what these may be
        check_whole("held_out", self.held_out)
        check_whole("snapshots", self.snapshots, 0, MOST_SNAPSHOTS)
        check_seed(self.seed)
        if self.loss not in LOSSES:
            raise unknown_name("loss", self.loss, LOSSES)
        if self.stepper not in STEPPERS:
            raise unknown_name("stepper", self.stepper, STEPPERS)
        if self.schedule not in SCHEDULES:
            raise unknown_name("schedule", self.schedule, SCHEDULES)
        if self.place not in PLACES:
            raise unknown_name("place", self.place, PLACES)
        if self.start not in STARTS:
            raise unknown_name("start", self.start, STARTS)
        if self.select not in ("last", "best") or (self.select == "best" and self.held_out < 1):
            raise BadInput("select must be 'last', or 'best' with held_out of at least 1 image")
        check_precision(self.precision)


PRESETS: dict[str, AttackConfig] = {
    "released": AttackConfig(preset="released", range=RELEASED_RANGE, scales=PUBLISHED_SCALES),
    "paper": AttackConfig(preset="paper"),
    "strong": AttackConfig(
        preset="strong",
        patch_eot=PatchEOT(),
        place="drawn",
        stepper="adam",
        step_size=0.15,
        schedule="cosine",
        start="grey",
        select="best",
        held_out=16,
    ),
}


def attack_preset(name: str) -> AttackConfig:
    """The entry of PRESETS; BadInput naming the nearest where there is none."""
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    return PRESETS[name]


def overridden(base: AttackConfig, overrides: Mapping[str, Any]) -> AttackConfig:
    """The config with other values of some fields; BadInput for what is none that a plan may override."""
    known = [field.name for field in fields(AttackConfig) if field.name not in ("preset", "seed")]
    for name in overrides:
        if name not in known:
            raise unknown_name("field in overrides", name, known)
    return replace(base, **overrides)


def resolve(config: AttackConfig, images: LabelledImages, victims: Sequence[Victim]) -> AttackConfig:
    """The config with every None filled in.

    Crop H x H of an H x W image; patch side 200/1024 of H; batch and epochs as published (6 and 30 for CNNs,
    1 and 15 for transformers). Source: arXiv:2502.16012, section III-A. Raises BadInput where the patch, its
    largest drawn appearance included, does not fit the crop.
    """
    if not victims:
        raise BadInput("a patch is trained on at least one network; none was given")
    for victim in victims:
        if not victim.differentiable:
            raise BadInput(
                f"{victim.name} is for evaluation only: no gradient leads through an ONNX file to a patch; train "
                "on the network that it was exported from, and measure the patch on it"
            )
    if len(images) <= config.held_out:
        raise BadInput(
            f"{config.held_out} of {len(images)} training images are to be held out; give more images or "
            "hold out fewer"
        )
    height, width = images[0][1].shape
    transformer = family_of(victims) == "transformer"
    batch_size = config.batch_size or (1 if transformer else 6)
    crop = config.crop or (min(height, width), min(height, width))
    side = max(1, round(200 / 1024 * height))
    patch_size = config.patch_size or (side, side)
    h, w = largest_size(config.patch_eot, patch_size)
    if h > crop[0] or w > crop[1]:
        drawn = f" (largest drawn appearance {h}x{w})" if config.patch_eot else ""
        raise BadInput(
            f"a {patch_size[0]}x{patch_size[1]} patch{drawn} does not fit crops of {crop[0]}x{crop[1]}; "
            "crop larger or shrink it"
        )
    epochs = config.epochs or (15 if transformer else 30)
    steps = config.steps or max(1, round(epochs * (len(images) - config.held_out) / batch_size))
    return replace(config, steps=steps, epochs=None, batch_size=batch_size, crop=crop, patch_size=patch_size)


def family_of(victims: Sequence[Victim]) -> str:
    """ "transformer" where one of the networks is, else "cnn": what batch and epochs go by."""
    return "transformer" if any(victim.provenance.family == "transformer" for victim in victims) else "cnn"


def snapshot_steps(config: AttackConfig) -> list[int]:
    """After which of its steps a resolved config keeps the patch."""
    assert config.steps
    count = min(config.snapshots, config.steps)
    return [round((k + 1) * config.steps / count) for k in range(count)]


def step_size(config: AttackConfig, step: int) -> float:
    """The share of the pixel range that step number `step` (from 0) moves by."""
    if config.schedule == "constant":
        return config.step_size
    assert config.steps
    return config.step_size * (1 + math.cos(math.pi * step / config.steps)) / 2
