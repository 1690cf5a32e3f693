"""How many cells the study has and what they would cost, from one real step and prediction of each network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from segpatch.attack_config import attack_preset, resolve
from segpatch.data import Dataset
from segpatch.data.images import SplitImages, split_images
from segpatch.evaluation import predict
from segpatch.models.victim import Victim
from segpatch.studies.estimate import Estimate, estimate_matrix, peak_memory, seconds_of, step_seconds
from segpatch.studies.matrix import measured_indices
from segpatch.studies.paper.matrices import study_matrices
from segpatch.studies.paper.plan import PaperPlan
from segpatch.studies.paper.sizes import cases
from segpatch.studies.planned import MatrixPlan, planned_patches
from segpatch.transforms import as_float

_ROWS = 3
"""Predictions of an image for one patch: clean, under it, and under its random control."""


def estimate_paper(victims: Sequence[Victim], dataset: Dataset, plan: PaperPlan) -> Estimate:
    """A line a part, with its number of cells; the matrix by its patches and networks."""
    training = split_images(dataset, dataset.train_split, plan.train_images)
    asked = study_matrices(victims, training, plan)
    pieces: list[tuple[str, float]] = []
    for name, (networks, matrix) in asked.items():
        whole = estimate_matrix(networks, dataset, matrix)
        if name == "matrix":
            pieces += [*whole.pieces, *_parts(networks, dataset, training, plan, matrix)]
        else:
            trained = len(planned_patches(networks, matrix))
            on = ", ".join(victim.name for victim in networks)
            pieces.append((f"{name}, {trained} patches on {on}", whole.minutes))
        if name == "ablations/scenes":
            pieces.append(_distances(networks, dataset, plan, matrix))
    return Estimate(tuple(pieces), peak_memory())


def _parts(
    victims: Sequence[Victim], dataset: Dataset, training: SplitImages, plan: PaperPlan, matrix: MatrixPlan
) -> list[tuple[str, float]]:
    """Cells and minutes of the parts that take the patches of the matrix."""
    todo = planned_patches(victims, matrix)
    seeds = 1 if plan.first_seed_only else len(plan.seeds)
    patches = len(todo) // len(plan.seeds) * seeds
    pairs = sum(len(item.victims) for item in todo) // len(plan.seeds) * seeds
    measured, forward = _prediction(victims, dataset, plan, matrix)

    def images(count: int | None) -> int:
        return min(count or measured, measured)

    pieces = []
    if "alignment" in plan.parts:
        config = resolve(replace(attack_preset("paper"), **matrix.overrides), training, victims)
        gradients = sum(step_seconds([v], training, config) for v in victims if v.differentiable)
        cells = 2 + patches * plan.along
        pieces.append((f"alignment, {cells} cells", cells * plan.draws * gradients / 60))
    for part, predictions in {
        "curves": 2 * (plan.snapshots + 2) * images(plan.curve_images),
        "sizes": _native_sizes(plan) * _ROWS * images(plan.size_images),
        "locality": _ROWS * measured,
        "places": plan.grid[0] * plan.grid[1] * _ROWS * images(plan.place_images),
    }.items():
        if part in plan.parts:
            pieces.append((f"{part}, {pairs} cells", pairs * predictions * forward / 60))
    return pieces


def _distances(
    victims: Sequence[Victim], dataset: Dataset, plan: PaperPlan, matrix: MatrixPlan
) -> tuple[str, float]:
    """Cells and minutes of the patches of the ablation of scenes at other sizes."""
    measured, forward = _prediction(victims, dataset, plan, matrix)
    cells = len(matrix.variants) * len(victims) * (1 if plan.first_seed_only else len(plan.seeds))
    predictions = _native_sizes(plan) * _ROWS * min(plan.size_images or measured, measured)
    return f"distances, {cells} cells", cells * predictions * forward / 60


def _prediction(
    victims: Sequence[Victim], dataset: Dataset, plan: PaperPlan, matrix: MatrixPlan
) -> tuple[int, float]:
    """How many images are measured, and seconds of a prediction, the mean over networks."""
    split = plan.split or dataset.eval_split
    image = as_float(split_images(dataset, split, 1)[0][0])[None]
    seconds = [seconds_of(lambda v=v: predict(v, image, plan.precision)) for v in victims]  # type: ignore[misc]
    return len(measured_indices(dataset, split, matrix)), sum(seconds) / len(seconds)


def _native_sizes(plan: PaperPlan) -> float:
    """The cases of the part "sizes", in images of the native size."""
    return sum(case.scale**2 * (0.5 if case.frame == "crop" else 1) for case in cases(plan.scales))
