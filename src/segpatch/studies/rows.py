"""The rows of a matrix, measured a piece of the images at a time: each piece is kept once it is done.

A run that is stopped goes on with the next piece, processes of torchrun take pieces in turn, and on Ray as many
are measured at a time as it has room for. The pieces are the same however they are shared, and so are the rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from segpatch.data import Dataset, batches
from segpatch.errors import BadInput
from segpatch.evaluation import ROWS, Picture, Scores, evaluate_all, in_order
from segpatch.models.folding import folded
from segpatch.models.victim import Victim
from segpatch.patch import Patch
from segpatch.processes import ALONE, Processes
from segpatch.results import write_picture
from segpatch.studies.cells import from_driver, run_cells, to_workers
from segpatch.studies.progress import OnProgress, Progress, silent
from segpatch.writing import make_folder, write_whole

FOLDER = "rows"
"""Of a run, where pieces are kept until its result is written."""
_BATCHES, _PIECES = 4, 16
"""Batches of a piece: few enough that little is lost with one, enough that a file of its own is worth it; fewer
where there would be less than so many pieces to share."""


@dataclass(frozen=True)
class Measurement:
    """Patches (None: none) on victims, over the images of a split at these indices, `batch_size` at a time; place,
    seed and precision as in `evaluate_all`. shown: names of the images whose index maps are kept in the run."""

    victims: Sequence[Victim]
    patches: Sequence[Patch | None]
    dataset: Dataset
    split: str
    indices: Sequence[int]
    batch_size: int
    place: str
    seed: int
    precision: str
    shown: frozenset[str]
    run: Path

    def pieces(self) -> list[range]:
        """The positions among all images that are measured together."""
        step = max(1, min(_BATCHES, len(self.indices) // self.batch_size // _PIECES)) * self.batch_size
        starts = range(0, len(self.indices), step) or range(1)  # to measure no image is refused there
        return [range(at, min(at + step, len(self.indices))) for at in starts]

    def file(self, piece: range) -> Path:
        """Where the rows of a piece are kept."""
        return self.run / FOLDER / f"{piece.start:07d}.safetensors"

    def measure(self, piece: range) -> None:
        """Keeps the rows of a piece, and its pictures; nothing to do where that is done."""
        if self.file(piece).exists():
            return
        at_once = [self.batch_size]
        indices = [self.indices[at] for at in piece]
        grid = evaluate_all(
            self.victims,
            batches(self.dataset, self.split, batch_size=self.batch_size, indices=indices, workers=1),
            self.patches,
            place=self.place,
            seed=self.seed,
            precision=self.precision,
            positions=piece,
            on_picture=self._keep,
            on_smaller=at_once.append,
            pictures=self.shown,
        )
        cells = [scores for row in grid for scores in row]
        tensors = {
            f"{number}/{which}": getattr(scores, which).contiguous()
            for number, scores in enumerate(cells)
            for which in ROWS
        }
        about = {"names": json.dumps(cells[0].names), "at_once": str(min(at_once))}
        make_folder(self.run / FOLDER)
        write_whole(self.file(piece), save(tensors, metadata=about))

    def read(self) -> tuple[list[list[Scores]], int]:
        """The scores of all images, patch by patch, and the fewest images that were predicted at once."""
        shares, at_once = [], self.batch_size
        known = self.dataset.names(self.split)
        for piece in self.pieces():
            path = self.file(piece)
            names = tuple(known[self.indices[at]] for at in piece)
            try:
                with safe_open(path, "pt") as file:
                    about = file.metadata()
                    if json.loads(about["names"]) != list(names):
                        raise ValueError("it is of other images")
                    at_once = min(at_once, int(about["at_once"]))
                    cells = [
                        Scores(names, *(file.get_tensor(f"{number}/{which}") for which in ROWS))
                        for number in range(len(self.patches) * len(self.victims))
                    ]
            except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
                raise BadInput(f"{path} is damaged ({error}); remove it, and go on with --resume") from error
            width = len(self.victims)
            shares.append((piece, [cells[at : at + width] for at in range(0, len(cells), width)]))
        return in_order(shares), at_once

    def _keep(self, picture: Picture) -> None:
        write_picture(self.run, picture)


def measure_rows(
    asked: Measurement,
    *,
    ray: str | None = None,
    on_progress: OnProgress = silent,
    processes: Processes = ALONE,
) -> tuple[list[list[Scores]], int]:
    """What `asked.read` says, once every piece is measured: here, or where Ray has room, see `run_cells`."""
    pieces = asked.pieces()
    note = f"{len(asked.patches) - 1} patches on {len(asked.victims)} networks"

    def show(done: int) -> None:
        images = len(asked.indices)
        on_progress(Progress("measure", min(done * len(pieces[0]), images), images, note))

    fast = replace(asked, victims=[folded(victim) for victim in asked.victims])  # once, not for each piece
    if ray is not None:
        victims, device = to_workers(fast.victims)
        sent = replace(asked, victims=victims, run=asked.run.resolve())
        run_cells(_measure_piece, (sent, device), pieces, ray=ray, gpus=float(device == "cuda"), on_done=show)
        return asked.read()

    def measured(number: int) -> int:
        fast.measure(pieces[number])
        return number

    mine = map(measured, processes.share(range(len(pieces))))
    for done, _ in enumerate(processes.in_step(mine, -(-len(pieces) // processes.world)), 1):
        show(done * processes.world)
    return processes.together(fast.read)


def _measure_piece(shared: tuple[Measurement, str], piece: range) -> None:
    asked, device = shared
    replace(asked, victims=from_driver(asked.victims, device)).measure(piece)
