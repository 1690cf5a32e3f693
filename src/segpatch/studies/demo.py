"""The main job on what comes with the package: streets drawn on the fly and the shipped networks."""

from __future__ import annotations

from pathlib import Path

from segpatch.data import Dataset, cached, open_data
from segpatch.errors import Missing
from segpatch.models.load import load_victim, shipped
from segpatch.models.victim import Victim
from segpatch.results import TransferResult
from segpatch.studies.estimate import Estimate, estimate_matrix
from segpatch.studies.matrix import run_matrix
from segpatch.studies.planned import MatrixPlan
from segpatch.studies.progress import OnProgress, silent

PLAN = MatrixPlan(
    presets=("released", "strong"),
    overrides={"steps": 48, "batch_size": 4},
    trained=96,
    measured=16,
    pictures=3,
    photographs=True,
)
"""A short version, so that it ends within minutes on two cores: the page says where a patch needs more."""


def estimate_demo() -> Estimate:
    """What the demo would cost on this machine."""
    victims, dataset = _parts()
    return estimate_matrix(victims, dataset, PLAN)


def run_demo(
    out: Path,
    *,
    command: str = "segpatch demo",
    resume: bool = False,
    overwrite: bool = False,
    on_progress: OnProgress = silent,
) -> TransferResult:
    """Trains a patch by `released` and `strong` on each shipped network, measures all on all, writes the page."""
    victims, dataset = _parts()
    return run_matrix(
        victims,
        dataset,
        PLAN,
        out,
        command=command,
        resume=resume,
        overwrite=overwrite,
        on_progress=on_progress,
    )


def _parts() -> tuple[list[Victim], Dataset]:
    """The shipped networks and the streets; Missing without networks."""
    names = shipped()
    if not names:
        raise Missing("no network is shipped with this installation; install segpatch from its repository")
    dataset = cached(open_data("streets"))
    return [load_victim(name).for_classes(dataset.classes) for name in names], dataset
