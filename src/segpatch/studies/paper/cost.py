"""How many cells the study has and what they would cost, from one real step and prediction of each network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from segpatch.attack_config import attack_preset, resolve
from segpatch.data import Dataset
from segpatch.data.images import split_images
from segpatch.evaluation import predict
from segpatch.models.victim import Victim
from segpatch.studies.estimate import Estimate, estimate_matrix, peak_memory, seconds_of, step_seconds
from segpatch.studies.matrix import measured_indices
from segpatch.studies.paper.plan import PaperPlan
from segpatch.studies.paper.run import matrix_plan
from segpatch.studies.paper.sizes import cases
from segpatch.studies.planned import planned_patches
from segpatch.transforms import as_float

_ROWS = 3
"""Predictions of an image for one patch: clean, under it, and under its random control."""


def estimate_paper(victims: Sequence[Victim], dataset: Dataset, plan: PaperPlan) -> Estimate:
    """A line a part, with its number of cells; the matrix by its patches and networks."""
    asked = matrix_plan(plan)
    whole = estimate_matrix(victims, dataset, asked)
    training = split_images(dataset, dataset.train_split, plan.train_images)
    split = plan.split or dataset.eval_split
    measured = len(measured_indices(dataset, split, asked))
    todo = planned_patches(victims, asked)
    seeds = 1 if plan.first_seed_only else len(plan.seeds)
    patches = len(todo) // len(plan.seeds) * seeds
    pairs = sum(len(item.victims) for item in todo) // len(plan.seeds) * seeds
    image = as_float(split_images(dataset, split, 1)[0][0])[None]
    forward = sum(seconds_of(lambda v=v: predict(v, image, plan.precision)) for v in victims) / len(victims)  # type: ignore[misc]

    def images(count: int | None) -> int:
        return min(count or measured, measured)

    def predictions() -> dict[str, tuple[int, float]]:
        """Cells and full-size predictions of the parts that only measure."""
        of_size = sum(case.scale**2 * (0.5 if case.frame == "crop" else 1) for case in cases(plan.scales))
        return {
            "curves": (pairs, 2 * (plan.snapshots + 2) * images(plan.curve_images)),
            "sizes": (pairs, of_size * _ROWS * images(plan.size_images)),
            "locality": (pairs, _ROWS * measured),
            "places": (pairs, plan.grid[0] * plan.grid[1] * _ROWS * images(plan.place_images)),
        }

    pieces = list(whole.pieces)
    if "alignment" in plan.parts:
        config = resolve(replace(attack_preset("paper"), **asked.overrides), training, victims)
        gradients = sum(step_seconds([v], training, config) for v in victims if v.differentiable)
        cells = 2 + patches * plan.along
        pieces.append((f"alignment, {cells} cells", cells * plan.draws * gradients / 60))
    for part, (cells, count) in predictions().items():
        if part in plan.parts:
            pieces.append((f"{part}, {cells} cells", cells * count * forward / 60))
    return Estimate(tuple(pieces), peak_memory())
