"""What the study of the paper asks: its parts, and how far each goes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from segpatch.attack_config import MOST_SNAPSHOTS, PRESETS, attack_preset, overridden
from segpatch.bounds import check_number, check_seeds, check_whole, check_whole_or_none
from segpatch.errors import BadInput, unknown_name
from segpatch.losses import LOSSES
from segpatch.studies.planned import check_measurement

PARTS = {
    "matrix": "a patch per network, preset and seed, all against all (Table I)",
    "drives": "the matrix of each drive or city apart",
    "alignment": "cosines of patch gradients between networks (mechanism 3)",
    "curves": "mIoU and IoU per class on the way, on training crops and on images held out (Fig. 2)",
    "sizes": "the same patch on training and unseen images of several sizes",
    "locality": "damage by distance from the patch, by class, and what classes turn into (Fig. 3)",
    "places": "damage by where the patch lies",
    "losses": "the losses of the field for equal steps",
    "ablations": "scenes, step size, steps, batch, place and patch size, one at a time",
    "accuracy": "checkpoints of one network, from little to full accuracy",
}
"""The parts by name, in the order in which they run. The last three train patches of their own, the others but the
first take those of the matrix."""
ABLATIONS = ("scenes", "step-size", "steps", "batch", "place", "patch-size")
OWN_PATCHES = frozenset({"losses", "ablations", "accuracy"})


@dataclass(frozen=True, kw_only=True)
class PaperPlan:
    """The study, resolved; each field stands in the record.

    only: which of PARTS, all if empty (the matrix runs wherever another takes its patches). presets, seeds,
    ensembles: patches, as in MatrixPlan; overrides: fields of AttackConfig. images: how many are measured, evenly
    spaced, None for all; groups: only those of these drives or cities. first_seed_only: whether the other parts
    take the patches of the first seed alone. draws: batches of scenes that gradients are compared over; along:
    patches on the way whose gradients are compared, the last one included, at most one a snapshot. snapshots:
    points of a curve.
    curve_images, size_images, place_images: measured by these parts. scales: of the measured images. grid: rows
    and columns of places. ablation_victims (the first network if empty), ablation_preset, ablation_images: of
    losses and ablations; losses: names of LOSSES, ablations: of ABLATIONS, all if empty. checkpoints: victims that
    are for the part "accuracy" alone, from little to full accuracy. as_released: the published run, where the
    function of that name has made it so; `run_paper` refuses a plan that only says it.
    """

    only: tuple[str, ...] = ()
    presets: tuple[str, ...] = ("released", "strong")
    seeds: tuple[int, ...] = (0, 1, 2)
    ensembles: tuple[tuple[str, ...], ...] = ()
    overrides: dict[str, Any] = field(default_factory=dict)
    images: int | None = None
    groups: tuple[str, ...] = ()
    train_images: int | None = None
    split: str | None = None
    first_seed_only: bool = True
    draws: int = 16
    along: int = 4
    snapshots: int = 10
    curve_images: int | None = 32
    size_images: int | None = 32
    place_images: int | None = 16
    scales: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 3.0)
    grid: tuple[int, int] = (5, 9)
    ablation_victims: tuple[str, ...] = ()
    ablation_preset: str = "paper"
    ablation_images: int | None = None
    losses: tuple[str, ...] = ()
    ablations: tuple[str, ...] = ()
    checkpoints: tuple[str, ...] = ()
    margin: float = 0.01
    precision: str = "fp32"
    batch_size: int = 4
    seed: int = 0
    as_released: bool = False

    def __post_init__(self) -> None:
        for part in self.only:
            if part not in PARTS:
                raise unknown_name("part", part, PARTS)
        for loss in self.losses:
            if loss not in LOSSES:
                raise unknown_name("loss", loss, LOSSES)
        for ablation in self.ablations:
            if ablation not in ABLATIONS:
                raise unknown_name("ablation", ablation, ABLATIONS)
        if not self.presets:
            raise BadInput(f"presets must name one or more of {', '.join(PRESETS)}, got none")
        for preset in (*self.presets, self.ablation_preset):
            overridden(attack_preset(preset), self.overrides)
        check_seeds(self.seeds)
        check_whole("draws", self.draws, 4, 10_000)
        check_whole("snapshots", self.snapshots, 1, MOST_SNAPSHOTS)
        check_whole("along", self.along, 1, MOST_SNAPSHOTS)
        for name in ("images", "train_images", "curve_images", "size_images", "place_images", "ablation_images"):
            check_whole_or_none(name, getattr(self, name))
        for scale in self.scales:
            check_number("each of scales", scale, 0, 8, above=True)
        for places in self.grid:
            check_whole("each number in grid", places, 1, 100)
        check_measurement(self.batch_size, self.margin, self.precision, self.seed)
        if "accuracy" in self.only and len(self.checkpoints) < 2:
            raise BadInput("accuracy needs two checkpoints or more; name victims with --checkpoint")

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that run, in order."""
        wanted = set(self.only) or {part for part in PARTS if part != "accuracy" or self.checkpoints}
        if not wanted <= OWN_PATCHES:
            wanted.add("matrix")
        return tuple(part for part in PARTS if part in wanted)
