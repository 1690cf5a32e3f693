"""The patches of a matrix: what is to be trained, and training it here or on a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from segpatch.attack_config import AttackConfig, attack_preset, family_of, overridden
from segpatch.bounds import (
    MOST_BATCH,
    check_number,
    check_precision,
    check_seed,
    check_seeds,
    check_whole,
    check_whole_or_none,
)
from segpatch.data.images import SplitImages
from segpatch.errors import BadInput, unknown_name
from segpatch.models.victim import Victim
from segpatch.names import safe_name
from segpatch.patch import Patch
from segpatch.processes import ALONE, Processes
from segpatch.studies.attack import PATCH_FILE, run_attack
from segpatch.studies.cells import PATIENCE, from_driver, run_cells, to_workers
from segpatch.studies.progress import OnProgress, Progress, silent


@dataclass(frozen=True, kw_only=True)
class MatrixPlan:
    """What to train and how to measure.

    presets, seeds: a patch for each victim, preset and seed, and for each ensemble (tuple of victim names);
    variants: configs beside the presets, by the names in their `preset`. overrides: fields of AttackConfig that
    replace those of presets and variants; by_family: more of them, for patches of a "cnn" or a "transformer".
    measured, trained: how many images to use, evenly spaced, None for all; groups: only images of these
    drives or cities are measured; pictures: scenes to keep index maps of; photographs: whether their images
    are kept too.
    """

    presets: tuple[str, ...] = ("paper",)
    seeds: tuple[int, ...] = (0,)
    ensembles: tuple[tuple[str, ...], ...] = ()
    variants: tuple[AttackConfig, ...] = ()
    overrides: dict[str, Any] = field(default_factory=dict)
    by_family: dict[str, dict[str, Any]] = field(default_factory=dict)
    train_split: str | None = None
    split: str | None = None
    trained: int | None = None
    measured: int | None = None
    groups: tuple[str, ...] = ()
    place: str = "centre"
    precision: str = "fp32"
    batch_size: int = 4
    margin: float = 0.01
    pictures: int = 4
    photographs: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for base in (*map(attack_preset, self.presets), *self.variants):
            overridden(base, self.overrides)
        check_seeds(self.seeds)
        check_whole_or_none("the number of training images", self.trained)
        check_whole_or_none("the number of measured images", self.measured)
        check_whole("pictures", self.pictures)
        check_measurement(self.batch_size, self.margin, self.precision, self.seed)


def check_measurement(batch_size: int, margin: float, precision: str, seed: int) -> None:
    """BadInput unless these are what a matrix can be measured with."""
    check_whole("batch_size", batch_size, 1, MOST_BATCH)
    check_number("margin", margin, 0, 1)
    check_precision(precision)
    check_seed(seed)


@dataclass(frozen=True)
class PlannedPatch:
    """A patch to train: on which victims, with which config, in which folder of the run."""

    victims: tuple[Victim, ...]
    config: AttackConfig

    @property
    def name(self) -> str:
        names = "+".join(victim.name for victim in self.victims)
        return f"{names}/{self.config.preset}/s{self.config.seed}"

    @property
    def folder(self) -> str:
        return f"cells/{safe_name(self.name)}"


def planned_patches(victims: Sequence[Victim], plan: MatrixPlan) -> list[PlannedPatch]:
    """Every patch that the plan asks to train, in order; BadInput for an unknown victim of an ensemble."""
    by_name = {victim.name: victim for victim in victims}
    # Where some networks are for evaluation only, patches are trained on the others.
    trainers = [(victim,) for victim in victims if victim.differentiable] or [(victim,) for victim in victims]
    for ensemble in plan.ensembles:
        for name in ensemble:
            if name not in by_name:
                raise unknown_name("victim in --ensemble", name, by_name)
        trainers.append(tuple(by_name[name] for name in ensemble))  # type: ignore[arg-type]
    out = []
    for base in (*map(attack_preset, plan.presets), *plan.variants):
        for trainer in trainers:
            changes = {**plan.overrides, **plan.by_family.get(family_of(trainer), {})}
            for seed in plan.seeds:
                config = replace(base, seed=seed, **changes)
                out.append(PlannedPatch(tuple(trainer), config))
    return out


def untrained(todo: Sequence[PlannedPatch], out: Path | None) -> list[PlannedPatch]:
    """Those that no finished run of a directory holds; all of them without one."""
    return [item for item in todo if out is None or not (out / item.folder / PATCH_FILE).is_file()]


def train_planned(
    todo: Sequence[PlannedPatch],
    images: SplitImages,
    out: Path,
    *,
    ray: str | None = None,
    on_progress: OnProgress = silent,
    processes: Processes = ALONE,
) -> list[Patch]:
    """The trained patches, in order, each a run in its folder of `out`; those that are finished are read.

    ray: where cells run, see `run_cells`; None: here, one after the other.
    """
    if ray is None:
        return [
            run_attack(
                item.victims,
                images,
                item.config,
                out / item.folder,
                resume=(out / item.folder).exists(),
                on_progress=on_progress,
                processes=processes,
            )
            for item in todo
        ]
    if processes.world > 1:
        raise BadInput("--ray and torchrun both share work out; use one of them")
    victims = {victim.name: victim for item in todo for victim in item.victims}
    sent, device = to_workers(list(victims.values()))
    cells = [
        (tuple(victim.name for victim in item.victims), item.config, (out / item.folder).resolve())
        for item in todo
    ]

    def show(done: int) -> None:
        on_progress(Progress("train", done, len(cells), f"patches on {ray}"))

    gpus = float(device == "cuda")
    return run_cells(_train_cell, (sent, images, device), cells, ray=ray, gpus=gpus, on_done=show)


def _train_cell(
    shared: tuple[list[Victim], SplitImages, str], cell: tuple[tuple[str, ...], AttackConfig, Path]
) -> Patch:
    (victims, images, device), (names, config, folder) = shared, cell
    chosen = from_driver([victim for name in names for victim in victims if victim.name == name], device)
    return run_attack(chosen, images, config, folder, resume=folder.exists(), patience=PATIENCE)
