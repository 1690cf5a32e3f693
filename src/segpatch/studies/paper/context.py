"""What the parts of the study share: networks, images, the matrix and its patches; and how a cell is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from segpatch.attack_config import AttackConfig
from segpatch.clean import CleanPredictions
from segpatch.data import Dataset, batches
from segpatch.data.images import SplitImages, spaced
from segpatch.errors import BadInput
from segpatch.models.victim import Victim
from segpatch.patch import Patch, load_patch
from segpatch.results import TransferResult
from segpatch.runs import open_run, read_json, write_json
from segpatch.statistics import count_blocks, thinned
from segpatch.studies.attack import data_record, victim_facts
from segpatch.studies.paper.plan import PaperPlan
from segpatch.studies.progress import OnProgress, Progress
from segpatch.transfer import bootstrap_counts
from segpatch.types import Batch

RESULT = "result.json"


@dataclass(frozen=True)
class Context:
    """training: the images that patches are trained on; split, measured: what is measured, block: how many of
    these are resampled together; matrix: its run; clean: what the parts that measure images as they are have
    predicted without a patch."""

    victims: Sequence[Victim]
    dataset: Dataset
    plan: PaperPlan
    training: SplitImages
    split: str
    measured: Sequence[int]
    block: int
    matrix: Path
    result: TransferResult
    on_progress: OnProgress
    clean: CleanPredictions = field(default_factory=CleanPredictions)

    def victim(self, name: str) -> Victim:
        """The victim of a name."""
        return next(victim for victim in self.victims if victim.name == name)

    def patches(self) -> list[Patch]:
        """The trained patches that the parts look at."""
        first = min(self.plan.seeds)
        return [
            load_patch(self.folder(record.name))
            for record in self.result.patches
            if record.kind == "trained" and (record.seed == first or not self.plan.first_seed_only)
        ]

    def owned(self) -> list[tuple[Patch, Victim]]:
        """Each of these patches with each network that it was trained on."""
        return [(patch, self.victim(name)) for patch in self.patches() for name in patch.trained_on]

    def folder(self, patch: str) -> Path:
        """The attack run of a trained patch."""
        record = next(record for record in self.result.patches if record.name == patch)
        assert record.file
        return (self.matrix / record.file).parent

    def control(self, patch: Patch) -> Patch:
        """The random control of a patch's size and range."""
        for record in self.result.patches:
            if record.kind == "random" and record.file:
                control = load_patch(self.matrix / record.file)
                if control.size == patch.size and control.range == patch.range:
                    return control
        raise BadInput(f"the matrix in {self.matrix} holds no random control of {patch.name}; run it again")

    def images(self, count: int | None) -> list[int]:
        """`count` of the measured images, evenly spaced."""
        return [self.measured[at] for at in spaced(len(self.measured), count)]

    def resamples(self, indices: Sequence[int]) -> Tensor:
        """How often each of these images occurs in each resample (R, N), as in a matrix of them."""
        return bootstrap_counts(self.groups(indices), self.block_among(len(indices)), self.plan.seed)

    def blocks(self, indices: Sequence[int]) -> int:
        """How many blocks these resamples draw from."""
        return count_blocks(self.groups(indices), self.block_among(len(indices)))

    def block_among(self, kept: int) -> int:
        """How many of `kept` of the measured images, evenly spaced, are resampled together."""
        return thinned(self.block, len(self.measured), kept)

    def groups(self, indices: Sequence[int]) -> list[str]:
        """The drive or city of images of the measured split."""
        groups = self.dataset.groups(self.split)
        return [groups[index] for index in indices]

    def batches(self, indices: Sequence[int], split: str | None = None) -> Iterator[Batch]:
        """The images of the measured split (or another one) at these positions."""
        return batches(
            self.dataset, split or self.split, batch_size=self.plan.batch_size, indices=indices, workers=1
        )


@dataclass(frozen=True)
class Cell:
    """One named piece of the study. asked: what its result depends on beside data and networks."""

    name: str
    victims: Sequence[Victim]
    asked: dict[str, Any]
    work: Callable[[Callable[[int, int], None]], dict[str, Any]]


def run_cell(cell: Cell, context: Context, out: Path, patience: float = 0.0) -> dict[str, Any]:
    """The result of a cell, from its run directory where it is finished, else worked out and kept there.

    patience: seconds to wait for a directory that another process works in.
    """
    record = {
        "command": f"study paper, {cell.name}",
        "asked": cell.asked,
        "victims": [victim_facts(victim) for victim in cell.victims],
        "data": data_record(SplitImages(context.dataset, context.split, context.measured)),
        "training": data_record(context.training),
    }

    def show(done: int, total: int) -> None:
        context.on_progress(Progress(cell.name, done, total))

    with open_run(out, record, RESULT, resume=True, patience=patience) as run:
        if not run.finished:
            write_json(out / RESULT, cell.work(show))
            run.finish()
    result: dict[str, Any] = read_json(out / RESULT)
    return result


def config_of(patch: Patch) -> AttackConfig:
    """The resolved config that a patch was trained with."""
    from pydantic import TypeAdapter

    return TypeAdapter(AttackConfig).validate_python(patch.origin["config"])
