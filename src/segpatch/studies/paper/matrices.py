"""The matrices of the study: which networks, and what is trained and measured on them."""

from __future__ import annotations

from collections.abc import Sequence

from segpatch.data.images import SplitImages
from segpatch.errors import BadInput, unknown_name
from segpatch.models.victim import Victim
from segpatch.published import updates_as_released
from segpatch.studies.paper.ablations import ablation_plans, accuracy_plan
from segpatch.studies.paper.plan import PaperPlan
from segpatch.studies.planned import MatrixPlan


def study_matrices(
    victims: Sequence[Victim], training: SplitImages, plan: PaperPlan
) -> dict[str, tuple[list[Victim], MatrixPlan]]:
    """Every matrix that the plan's parts ask for, by the folder that it has in the run.

    Raises BadInput for names in `ablation_victims` or `checkpoints` that no victim has, and where the checkpoints
    leave no network.
    """
    by_name = {victim.name: victim for victim in victims}
    for field in ("ablation_victims", "checkpoints"):
        for name in getattr(plan, field):
            if name not in by_name:
                raise unknown_name(f"victim in {field}", name, by_name)
    networks = [victim for victim in victims if victim.name not in plan.checkpoints]
    if not networks and set(plan.parts) != {"accuracy"}:
        raise BadInput("every victim is one of the checkpoints; give a network beside them, or --only accuracy")
    out = {}
    if "matrix" in plan.parts:
        out["matrix"] = (networks, matrix_plan(plan))
    if {"losses", "ablations"} & set(plan.parts):
        ablated = [by_name[name] for name in plan.ablation_victims] or networks[:1]
        for name, asked in ablation_plans(plan.parts, ablated, training, plan).items():
            out[f"ablations/{name}"] = (ablated, asked)
    if "accuracy" in plan.parts:
        checkpoints = [by_name[name] for name in plan.checkpoints]
        out["ablations/accuracy"] = (checkpoints, accuracy_plan(checkpoints, training, plan))
    return out


def matrix_plan(plan: PaperPlan) -> MatrixPlan:
    """The first matrix, Table I."""
    return MatrixPlan(
        presets=plan.presets,
        seeds=plan.seeds,
        ensembles=plan.ensembles,
        overrides={**plan.overrides, "snapshots": plan.snapshots, "precision": plan.precision},
        by_family=updates_as_released() if plan.as_released else {},
        trained=plan.train_images,
        split=plan.split,
        measured=plan.images,
        groups=plan.groups,
        precision=plan.precision,
        batch_size=plan.batch_size,
        margin=plan.margin,
        seed=plan.seed,
    )
