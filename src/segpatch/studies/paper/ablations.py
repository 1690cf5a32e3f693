"""One thing changed at a time: the loss, the scenes, the step, the patch; each ablation a matrix of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from segpatch.attack_config import AttackConfig, attack_preset, resolve
from segpatch.data.images import SplitImages
from segpatch.eot import PatchEOT
from segpatch.errors import unknown_name
from segpatch.losses import LOSSES
from segpatch.models.victim import Victim
from segpatch.studies.paper.plan import PaperPlan
from segpatch.studies.planned import MatrixPlan

STEP_FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
LENGTHS = (0.25, 0.5, 1.0, 2.0)
BATCHES = (1, 2, 6, 12)
SIDES = (100, 150, 200, 300, 400)
"""Patch sides, in pixels of an image of 1024 rows."""
OBLONG = (100, 400)


def ablation_victims(victims: Sequence[Victim], plan: PaperPlan) -> list[Victim]:
    """The networks that ablations are done on: those that the plan names, else the first one."""
    by_name = {victim.name: victim for victim in victims}
    for name in plan.ablation_victims:
        if name not in by_name:
            raise unknown_name("victim in ablation_victims", name, by_name)
    return [by_name[name] for name in plan.ablation_victims] or [victims[0]]


def ablation_plans(
    parts: Sequence[str], victims: Sequence[Victim], training: SplitImages, plan: PaperPlan
) -> dict[str, MatrixPlan]:
    """The matrices of the parts "losses" and "ablations", by name."""
    base = replace(attack_preset(plan.ablation_preset), **plan.overrides)
    base = resolve(replace(base, precision=plan.precision), training, victims)
    out = {}
    if "losses" in parts:
        out["losses"] = [_named(base, name, loss=name) for name in plan.losses or tuple(LOSSES)]
    if "ablations" in parts:
        out |= _ablations(base, training.dataset.size(training.split)[0])
    return {name: _matrix(plan, tuple(variants), name) for name, variants in out.items()}


def _ablations(base: AttackConfig, height: int) -> dict[str, list[AttackConfig]]:
    assert base.steps
    out = {
        "scenes": [
            _named(base, "as-it-is"),
            _named(base, "no-scaling", scales=(1.0, 1.0)),
            _named(base, "no-eot", scales=(1.0, 1.0), flip=0.0),
            _named(base, "patch-eot", patch_eot=PatchEOT()),
        ],
        "step-size": [_named(base, f"step-x{f:g}", step_size=min(1.0, base.step_size * f)) for f in STEP_FACTORS],
        "steps": [_named(base, f"steps-x{f:g}", steps=max(1, round(base.steps * f))) for f in LENGTHS],
        "batch": [_named(base, f"batch-{size}", batch_size=size) for size in BATCHES],
        "place": [_named(base, f"place-{place}", place=place) for place in ("centre", "drawn")],
    }
    for side in SIDES:
        size = max(1, round(side / 1024 * height))
        out[f"patch-{side}"] = [_named(base, f"patch-{side}", patch_size=(size, size))]
    oblong = tuple(max(1, round(side / 1024 * height)) for side in OBLONG)
    out["patch-{}x{}".format(*OBLONG)] = [_named(base, "patch-{}x{}".format(*OBLONG), patch_size=oblong)]
    return out


def _named(base: AttackConfig, name: str, **changes: object) -> AttackConfig:
    return replace(base, preset=name, **changes)  # type: ignore[arg-type]


def _matrix(plan: PaperPlan, variants: tuple[AttackConfig, ...], name: str) -> MatrixPlan:
    return MatrixPlan(
        presets=(),
        variants=variants,
        seeds=plan.seeds,
        trained=plan.train_images,
        split=plan.split,
        measured=plan.images if plan.ablation_images is None else plan.ablation_images,
        groups=plan.groups,
        place="drawn" if name == "place" else "centre",
        precision=plan.precision,
        batch_size=plan.batch_size,
        margin=plan.margin,
        pictures=0,
        seed=plan.seed,
    )
