"""One thing changed at a time: the loss, the scenes, the step, the patch; each ablation a matrix of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from segpatch.attack_config import AttackConfig, attack_preset, resolve
from segpatch.data.images import SplitImages
from segpatch.eot import PatchEOT
from segpatch.losses import LOSSES
from segpatch.models.victim import Victim
from segpatch.studies.paper.plan import ABLATIONS, PaperPlan
from segpatch.studies.planned import MatrixPlan

STEP_FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
LENGTHS = (0.25, 0.5, 1.0, 2.0)
BATCHES = (1, 2, 6, 12)
SIDES = (100, 150, 200, 300, 400)
"""Patch sides, in pixels of an image of 1024 rows."""
OBLONG = (100, 400)


def ablation_plans(
    parts: Sequence[str], victims: Sequence[Victim], training: SplitImages, plan: PaperPlan
) -> dict[str, MatrixPlan]:
    """The matrices of the parts "losses" and "ablations", by name."""
    base = _base(plan, training, victims)
    out = {}
    if "losses" in parts:
        out["losses"] = [_named(base, name, loss=name) for name in plan.losses or tuple(LOSSES)]
    if "ablations" in parts:
        every = _ablations(base, training.dataset.size(training.split))
        for name in plan.ablations or ABLATIONS:
            out |= every[name]
    return {name: _matrix(plan, tuple(variants), name) for name, variants in out.items()}


def accuracy_plan(victims: Sequence[Victim], training: SplitImages, plan: PaperPlan) -> MatrixPlan:
    """The matrix of checkpoints of one network: where few pixels are right, the loss has few to work on."""
    return _matrix(plan, (_base(plan, training, victims),), "accuracy")


def _base(plan: PaperPlan, training: SplitImages, victims: Sequence[Victim]) -> AttackConfig:
    """What everything but the thing changed is."""
    config = replace(attack_preset(plan.ablation_preset), **plan.overrides)
    return resolve(replace(config, precision=plan.precision), training, victims)


def _ablations(base: AttackConfig, whole: tuple[int, int]) -> dict[str, dict[str, list[AttackConfig]]]:
    """By ablation, its matrices by name; patches of other sizes cover other pixels, so each has its own."""
    assert base.steps
    one = {
        "scenes": [
            _named(base, "as-it-is"),
            _named(base, "no-scaling", scales=(1.0, 1.0)),
            _named(base, "no-scaling-nor-flip", scales=(1.0, 1.0), flip=0.0),
            # A crop of the whole image is always the same one: nothing is drawn but which images.
            _named(base, "no-eot", scales=(1.0, 1.0), flip=0.0, crop=whole),
            _named(base, "patch-eot", patch_eot=PatchEOT()),
        ],
        "step-size": [_named(base, f"step-x{f:g}", step_size=min(1.0, base.step_size * f)) for f in STEP_FACTORS],
        "steps": [_named(base, f"steps-x{f:g}", steps=max(1, round(base.steps * f))) for f in LENGTHS],
        "batch": [_named(base, f"batch-{size}", batch_size=size) for size in BATCHES],
        "place": [_named(base, f"place-{place}", place=place) for place in ("centre", "drawn")],
    }
    shapes = {f"patch-{side}": (side, side) for side in SIDES} | {"patch-{}x{}".format(*OBLONG): OBLONG}
    sizes = {
        name: [_named(base, name, patch_size=tuple(max(1, round(side / 1024 * whole[0])) for side in shape))]
        for name, shape in shapes.items()
    }
    return {**{name: {name: variants} for name, variants in one.items()}, "patch-size": sizes}


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
