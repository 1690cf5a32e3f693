"""Small runs of every kind, on tiny networks, for tests that break them off or do them again elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from disk import Killer
from segpatch import machine, runs, writing
from segpatch.data import open_data
from segpatch.data.images import split_images
from segpatch.data.make import make_streets
from segpatch.models import download as downloading
from segpatch.models.catalogue import find_entry
from segpatch.models.networks import MODELS
from segpatch.studies.attack import run_attack
from segpatch.studies.fit import run_fit
from segpatch.studies.matrix import run_matrix
from segpatch.studies.paper import PaperPlan, run_paper
from segpatch.studies.planned import MatrixPlan
from segpatch.training import FitConfig
from tiny import TINY, TINY_SPEC, conv_victim

STEPS = {"steps": 4, "batch_size": 2, "patch_size": (4, 4), "crop": (10, 10), "scales": (0.8, 1.2)}
VICTIMS = (0, "a", "cnn"), (1, "b", "transformer")


def attack(data: str, out: Path) -> None:
    images = split_images(open_data(data), "train")
    config = replace(TINY, steps=6, stepper="adam", select="best", held_out=2, snapshots=2)
    run_attack([conv_victim()], images, config, out, resume=True)


def fit(data: str, out: Path) -> None:
    MODELS["tiny"] = TINY_SPEC
    dataset = open_data(data)
    config = FitConfig(steps=6, batch_size=2, crop=(8, 8), learning_rate=0.05, warmup=1, validate_every=2)
    run_fit("tiny", split_images(dataset, "train"), split_images(dataset, "val"), config, out, resume=True)


def victims() -> list[Any]:
    return [conv_victim(seed, name=name, family=family) for seed, name, family in VICTIMS]


def transfer(data: str, out: Path) -> None:
    plan = MatrixPlan(overrides=STEPS, pictures=2, photographs=True)
    run_matrix(victims(), open_data(data), plan, out, command="segpatch transfer", resume=True)


def study(data: str, out: Path) -> None:
    plan = PaperPlan(
        presets=("paper",),
        overrides=STEPS,
        draws=4,
        along=2,
        snapshots=2,
        batch_size=2,
        only=("matrix", "drives", "alignment"),
    )
    run_paper(victims(), open_data(data), plan, out, command="segpatch study paper", resume=True)


def streets(_: str, out: Path) -> None:
    make_streets(out, train=2, val=1, height=16, width=32, seed=1)


def checkpoint(address: str, out: Path) -> None:
    downloading.BLOCK = 1 << 14  # so that a small file comes in parts
    entry = replace(find_entry("pidnet-s"), file=address.rpartition("/")[2], address=address)
    downloading.download(entry, out, max_size=1 << 20)


JOBS: dict[str, Callable[[str, Path], None]] = {
    "attack": attack,
    "fit": fit,
    "transfer": transfer,
    "study": study,
    "data make": streets,
    "models download": checkpoint,
}


SETTINGS: dict[str, Any] = {
    "STATE_EVERY_STEPS": 2,
    "STATE_EVERY_SECONDS": 0.0,
}
"""What is set in `segpatch.runs` for a job."""


def no_revision() -> None:
    """Stands in for the revision, which changes where somebody works on the checkout meanwhile."""


def work(job: str, data: str, out: Path, kill: tuple[int, str] | None = None, threads: int = 1) -> None:
    """A job, gone on with where it was begun. kill: see `Killer`."""
    torch.set_num_threads(threads)
    for name, value in SETTINGS.items():
        setattr(runs, name, value)
    machine.git_revision = no_revision  # type: ignore[assignment]
    if kill:
        writing.os = Killer(*kill)  # type: ignore[assignment]
    JOBS[job](data, out)
    os._exit(0)  # threads that read ahead need no goodbye


CONTEXT = get_context("forkserver")  # forks of a process that has imported everything, and started no thread
CONTEXT.set_forkserver_preload(
    ["segpatch.studies.paper", "segpatch.studies.fit", "torch._dynamo", "pytest", "hypothesis"]
)


def begin(job: str, data: str, out: Path, **more: Any) -> Any:
    """The process of a job, started."""
    process = CONTEXT.Process(target=work, args=(job, data, out), kwargs=more)
    process.start()
    return process


def held(out: Path) -> dict[str, bytes]:
    """What a run directory holds: the bytes of every file but the locks, by path."""
    found = {str(path.relative_to(out)): path for path in sorted(out.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if path.name != runs.LOCK}
