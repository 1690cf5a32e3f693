"""Two transfer runs side by side: before and after a defence, two checkpoints, two releases; a gate on drops."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from segpatch.bounds import check_number
from segpatch.checks import comparable
from segpatch.eot import generator_at
from segpatch.errors import BadInput, Missing, SegpatchError
from segpatch.names import printable
from segpatch.report import sound
from segpatch.report.fates import read_counts
from segpatch.report.record import number
from segpatch.report.templates import template
from segpatch.results import CellRecord, TransferResult, read_transfer
from segpatch.statistics import REPLICATES, block_ids, interval, resample_counts, resampled_miou
from segpatch.transfer import bootstrap_counts
from segpatch.writing import make_folder, refuse_links_out, write_whole

_SECOND = 0x7365636F  # "seco": the second run's own resamples, where images are not the same
_MANY = 5  # cells that a gate's line names


class Both(NamedTuple):
    """A patch on a network in both runs. difference: drop in the second less drop in the first, ci95 its interval
    (paired where both runs measured the same images); clean: clean mIoU in each."""

    patch: str
    victim: str
    white_box: bool
    trained: bool
    first: CellRecord
    second: CellRecord
    difference: float
    ci95: tuple[float, float]


class SamePatch(NamedTuple):
    """A patch that both runs have by name: the SHA-256 of its pixels in each, None where a run holds none."""

    name: str
    trained: bool
    first: str | None
    second: str | None

    @property
    def verdict(self) -> str:
        if self.first is None or self.second is None:
            return "not known"
        return "the same" if self.first == self.second else "another"


class Comparison(NamedTuple):
    """Two runs, what both have, and what only one has. notes: what else differs between them."""

    first: TransferResult
    second: TransferResult
    paired: bool
    cells: list[Both]
    only_first: list[CellRecord]
    only_second: list[CellRecord]
    patches: list[SamePatch]
    notes: list[str]


def matrix_run(run: Path) -> Path:
    """The transfer run of a directory: itself, or the matrix of a study."""
    return run / "matrix" if (run / "study.json").is_file() else run


def compare(first: Path, second: Path) -> Comparison:
    """Two finished transfer runs, cell by cell, matched by the names of patch and network.

    Raises Missing where one is not finished, BadInput where they have no cell in common.
    """
    a, b = read_transfer(first), read_transfer(second)
    paired = _same_images(a, b)
    before, after = _drops(first, a, _counts(a, 0)), _drops(second, b, _counts(b, 0 if paired else _SECOND))
    trained = {patch.name for patch in a.patches if patch.kind == "trained"}
    theirs = {(cell.patch, cell.victim): cell for cell in b.cells}
    cells = []
    for cell in a.cells:
        key = (cell.patch, cell.victim)
        other = theirs.get(key)
        if other is None or cell.patch == "none" or cell.miou_drop is None or other.miou_drop is None:
            continue
        low, high = interval(after[key] - before[key])
        difference = other.miou_drop - cell.miou_drop
        cells.append(Both(*key, cell.white_box, cell.patch in trained, cell, other, difference, (low, high)))
    if not cells:
        raise BadInput(f"{first} and {second} have no patch on a network in common; give runs with the same names")
    ours = {(cell.patch, cell.victim) for cell in a.cells}
    hashes = {patch.name: patch.sha256 for patch in b.patches}
    return Comparison(
        first=a,
        second=b,
        paired=paired,
        cells=cells,
        only_first=[c for c in a.cells if c.patch != "none" and (c.patch, c.victim) not in theirs],
        only_second=[c for c in b.cells if c.patch != "none" and (c.patch, c.victim) not in ours],
        patches=[
            SamePatch(patch.name, patch.kind == "trained", patch.sha256, hashes[patch.name])
            for patch in a.patches
            if patch.kind != "none" and patch.name in hashes
        ],
        notes=comparable(a, b),
    )


def write_comparison(first: Path, second: Path, out: Path) -> Path:
    """Writes out/index.html and out/comparison.csv for two finished transfer runs, or the matrices of two studies;
    returns the page's path."""
    refuse_links_out(first)
    refuse_links_out(second)
    runs = matrix_run(first), matrix_run(second)
    with sound(first, second):
        found = compare(*runs)
        make_folder(out)
        write_whole(out / "comparison.csv", _csv(found).encode())
        page = template("compare.html.j2").render(
            first=str(first),
            second=str(second),
            found=found,
            sentences=sentences(found),
            clean=_clean(found),
        )
        write_whole(out / "index.html", page.encode())
        return out / "index.html"


def sentences(found: Comparison) -> list[str]:
    """What changed, in plain words: a sentence for each network under its own patches, and one for transfers."""
    out = []
    own = [cell for cell in found.cells if cell.trained and cell.white_box]
    for victim in dict.fromkeys(cell.victim for cell in own):
        cells = [cell for cell in own if cell.victim == victim]
        out.append(f"{victim} under its own patches: {_counted(cells)}.")
    others = [cell for cell in found.cells if cell.trained and not cell.white_box]
    if others:
        out.append(f"Networks under patches of others: {_counted(others)}.")
    trained = [patch for patch in found.patches if patch.trained]
    if other := [patch.name for patch in trained if patch.verdict == "another"]:
        out.append(
            f"{len(other)} of {len(trained)} trained patches are others in the second run, under the same names: "
            "what changed may be the patch."
        )
    return out


def check_limit(limit: float) -> None:
    """BadInput unless the limit of a gate is a drop that can be."""
    check_number("the limit of a gate (--fail-on-drop)", limit, -1, 1)


def gate(limit: float, first: Path, second: Path | None = None) -> None:
    """Raises SegpatchError where a trained patch surely costs more mIoU than a limit.

    Of one run: where the lower end of a drop's interval lies above it. Of two: where the drop of the second run
    surely exceeds that of the first by more, the lower end of the difference's interval lying above it; a cell
    that the first run lacks is held with its whole drop, so that a new name is no way through. Raises BadInput
    where the limit cannot be, or a drop has no interval: what is not known passes no gate.
    """
    check_limit(limit)
    cells: list[tuple[str, str, float | None, tuple[float | None, float | None]]]
    if second is None:
        result = read_transfer(first)
        trained = {patch.name for patch in result.patches if patch.kind == "trained"}
        cells = [(c.patch, c.victim, c.miou_drop, c.ci95) for c in result.cells if c.patch in trained]
        what = "surely lose more than"
    else:
        found = compare(first, second)
        trained = {patch.name for patch in found.second.patches if patch.kind == "trained"}
        cells = [(c.patch, c.victim, c.difference, c.ci95) for c in found.cells if c.trained]
        new = [c for c in found.only_second if c.patch in trained]
        cells += [(f"{c.patch} (only in the second run)", c.victim, c.miou_drop, c.ci95) for c in new]
        what = "surely lose more in the second run, by more than"
    if not cells:
        raise BadInput("there is no trained patch to fail on; give runs that have one")
    lows = [math.nan if cell[3][0] is None else cell[3][0] for cell in cells]
    if unknown := [f"{cell[0]} on {cell[1]}" for cell, low in zip(cells, lows, strict=True) if math.isnan(low)]:
        raise BadInput(
            f"{len(unknown)} of {len(cells)} cells have no interval to hold against {limit:g}, {unknown[0]} among "
            "them; measure on more images"
        )
    over = [cell for cell, low in zip(cells, lows, strict=True) if low > limit]
    if over:
        over.sort(key=lambda cell: -(cell[2] or 0.0))
        named = "; ".join(
            f"{patch} on {victim} {number(value)} [{number(ci[0])}, {number(ci[1])}]"
            for patch, victim, value, ci in over[:_MANY]
        )
        more = f"; and {len(over) - _MANY} more" if len(over) > _MANY else ""
        raise SegpatchError(f"{len(over)} of {len(cells)} cells {what} {limit:g} mIoU: {named}{more}")


def _counted(cells: Sequence[Both]) -> str:
    """How many lose more, less, or as much, and the mean."""
    more = sum(cell.ci95[0] > 0 for cell in cells)
    less = sum(cell.ci95[1] < 0 for cell in cells)
    before = sum(cell.first.miou_drop or 0.0 for cell in cells) / len(cells)
    after = sum(cell.second.miou_drop or 0.0 for cell in cells) / len(cells)
    return (
        f"a mean drop of {after:.3f} in the second run, {before:.3f} in the first; of {len(cells)}, {less} surely "
        f"cost less, {more} surely more, {len(cells) - less - more} cannot be told apart"
    )


def _same_images(a: TransferResult, b: TransferResult) -> bool:
    """Whether both runs measured the same images, so that they can be drawn again together."""
    what = ("fingerprint", "names", "groups", "block")
    return all(getattr(a.dataset, name) == getattr(b.dataset, name) for name in what)


def _counts(result: TransferResult, address: int) -> Tensor:
    about = result.dataset
    if address == 0:
        return bootstrap_counts(about.groups, about.block, 0)
    return resample_counts(block_ids(about.groups, about.block), REPLICATES, generator_at(0, address))


def _drops(run: Path, result: TransferResult, counts: Tensor) -> dict[tuple[str, str], Tensor]:
    """The drop in each resample (R,), by patch and network."""
    held = read_counts(run, result)
    if not held:
        raise Missing(f"no scores.safetensors in {run}; give a finished `segpatch transfer` run")
    return {
        key: resampled_miou(cell.clean, counts) - resampled_miou(cell.patched, counts)
        for key, cell in held.items()
    }


def _clean(found: Comparison) -> list[tuple[str, float | None, float | None]]:
    """Clean mIoU of each network in both runs: what a defence costs where there is no patch."""
    return [
        (victim, cells[0].first.miou_clean, cells[0].second.miou_clean)
        for victim in dict.fromkeys(cell.victim for cell in found.cells)
        if (cells := [cell for cell in found.cells if cell.victim == victim])
    ]


def _csv(found: Comparison) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ["patch", "victim", "white_box", "miou_clean_first", "miou_clean_second", "drop_first", "drop_second"]
    writer.writerow([*head, "difference", "ci95_low", "ci95_high", "paired"])
    for cell in found.cells:
        clean = [cell.first.miou_clean, cell.second.miou_clean]
        drops = [cell.first.miou_drop, cell.second.miou_drop]
        change = [cell.difference, *cell.ci95, found.paired]
        writer.writerow([printable(cell.patch), printable(cell.victim), cell.white_box, *clean, *drops, *change])
    return out.getvalue()
