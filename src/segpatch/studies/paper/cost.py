"""What the study has left to do and what that would cost, from one real step and prediction of each network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from segpatch.attack_config import attack_preset, resolve, snapshot_steps
from segpatch.clean import BUDGET
from segpatch.data import Dataset
from segpatch.data.images import SplitImages, split_images
from segpatch.models.victim import Victim
from segpatch.statistics import REPLICATES, resampled_miou
from segpatch.studies.estimate import (
    Estimate,
    Tried,
    estimate_matrix,
    is_measured,
    peak_memory,
    prediction_seconds,
    seconds_of,
    step_seconds,
)
from segpatch.studies.matrix import measured_indices
from segpatch.studies.paper.context import RESULT
from segpatch.studies.paper.drives import drive_names
from segpatch.studies.paper.matrices import study_matrices
from segpatch.studies.paper.plan import PaperPlan
from segpatch.studies.paper.sizes import cases
from segpatch.studies.planned import MatrixPlan, PlannedPatch, planned_patches, untrained

_ROWS = 3
"""Predictions of an image for one patch where none is shared: clean, under it, and under its random control."""


def estimate_paper(
    victims: Sequence[Victim], dataset: Dataset, plan: PaperPlan, out: Path | None = None
) -> Estimate:
    """A line a part, with its number of cells; the matrix by its patches and networks; and how many there are.

    out: the run that is gone on with, whose finished patches, matrices and cells are left out.
    """
    training = split_images(dataset, dataset.train_split, plan.train_images)
    tried: Tried = {}
    pieces: list[tuple[str, float]] = []
    patches, matrices, cells = 0, 0, 0
    for name, (networks, matrix) in study_matrices(victims, training, plan).items():
        place = out / name if out else None
        whole = estimate_matrix(networks, dataset, matrix, out=place, tried=tried)
        todo = len(untrained(planned_patches(networks, matrix), place))
        patches, matrices = patches + todo, matrices + (not is_measured(place))
        if name == "matrix":
            pieces += whole.pieces
        elif whole.pieces:
            on = ", ".join(victim.name for victim in networks)
            pieces.append((f"{name}, {todo} patches on {on}", whole.minutes))
        asked = _Asked(networks, dataset, training, plan, matrix, tried)
        parts = asked.of_matrix() if name == "matrix" else {}
        if name == "ablations/scenes":
            parts = {"distances": asked.sizes()}
        for part, (number, seconds) in parts.items():
            left = max(0, number - len(list((out / "cells" / part).glob(f"*/{RESULT}")))) if out else number
            cells += left
            if left:
                pieces.append((f"{part}, {left} cells", seconds() * left / number / 60))
    counts = f"patches to train: {patches}, matrices to measure: {matrices}, other cells: {cells}"
    return Estimate(tuple(pieces), peak_memory(), counts)


_Part = tuple[int, Callable[[], float]]
"""How many cells a part has, and what tells the seconds of all together."""


@dataclass(frozen=True)
class _Asked:
    """What the parts ask of a matrix's patches, of networks, training images and plan."""

    victims: Sequence[Victim]
    dataset: Dataset
    training: SplitImages
    plan: PaperPlan
    matrix: MatrixPlan
    tried: Tried

    @property
    def split(self) -> str:
        return self.plan.split or self.dataset.eval_split

    @property
    def patches(self) -> list[PlannedPatch]:
        """Those that the parts look at."""
        seeds = {min(self.plan.seeds)} if self.plan.first_seed_only else set(self.plan.seeds)
        return [item for item in planned_patches(self.victims, self.matrix) if item.config.seed in seeds]

    def of_matrix(self) -> dict[str, _Part]:
        """The parts that take the patches of the matrix, by name."""
        plan, measured = self.plan, len(measured_indices(self.dataset, self.split, self.matrix))
        every: dict[str, Callable[[], _Part]] = {
            "drives": self.drives,
            "alignment": self.alignment,
            "curves": lambda: self.shown(2 * (plan.snapshots + 2) * min(plan.curve_images or measured, measured)),
            "sizes": self.sizes,
            "locality": lambda: self.shown(2 * measured, once=measured),
            "places": lambda: self.places(min(plan.place_images or measured, measured)),
        }
        return {part: every[part]() for part in plan.parts if part in every}

    def shown(self, under: float, once: int = 0) -> _Part:
        """A cell per patch and network, each of so many predictions; once: of each network, for all patches."""
        owned = [victim for item in self.patches for victim in item.victims]
        height, width = self.dataset.size(self.split)
        networks = list({victim.name: victim for victim in owned}.values())
        shared = networks if len(networks) * once * height * width <= BUDGET else owned

        def seconds() -> float:
            each = {v.name: prediction_seconds(v, self.dataset, self.matrix, self.tried) for v in networks}
            return under * sum(each[v.name] for v in owned) + once * sum(each[v.name] for v in shared)

        return len(owned), seconds

    def sizes(self) -> _Part:
        """Images of other sizes cost by their area."""
        measured = len(measured_indices(self.dataset, self.split, self.matrix))
        native = sum(case.scale**2 * (0.5 if case.frame == "crop" else 1) for case in cases(self.plan.scales))
        return self.shown(native * _ROWS * min(self.plan.size_images or measured, measured))

    def places(self, images: int) -> _Part:
        """Under the patch and its control at each place, and clean once."""
        return self.shown(2 * self.plan.grid[0] * self.plan.grid[1] * images, once=images)

    def alignment(self) -> _Part:
        """Each network's gradient at each draw, for clean scenes, the start, and points on each patch's way."""
        victims = [victim for victim in self.victims if victim.differentiable]
        if len(victims) < 2:
            return 0, float
        cells = 2
        for item in self.patches:
            kept = len(snapshot_steps(resolve(item.config, self.training, item.victims)))
            cells += min(self.plan.along, kept)
        config = resolve(replace(attack_preset("paper"), **self.matrix.overrides), self.training, victims)

        def seconds() -> float:
            gradients = sum(step_seconds([victim], self.training, config, self.tried) for victim in victims)
            return cells * self.plan.draws * gradients

        return cells, seconds

    def drives(self) -> _Part:
        """Of each drive, the resampled mIoU of every row on every network, clean and patched."""
        indices = measured_indices(self.dataset, self.split, self.matrix)
        groups = [self.dataset.groups(self.split)[index] for index in indices]
        named = drive_names(groups)
        rows = 4 + len(planned_patches(self.victims, self.matrix))  # without a patch, and the controls
        images = len(groups) + sum(group in named for group in groups)

        def seconds() -> float:
            classes = len(self.dataset.classes)
            counts = torch.ones(REPLICATES, len(groups), dtype=torch.float64)
            confusions = torch.ones(len(groups), classes, classes, dtype=torch.int32)
            once = seconds_of(lambda: resampled_miou(confusions, counts))
            return 2 * rows * len(self.victims) * once * images / len(groups)

        return 1 + len(named), seconds
