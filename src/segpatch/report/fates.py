"""What the pixels of each class become under a patch, from the raw counts of a run.

The counts say of each class how many of its pixels are taken for which class, without the patch and with it, not
which pixel went where. So what a class turns into is net: pixels that went the other way are subtracted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, stack

from segpatch.errors import BadInput
from segpatch.results import CellRecord, TransferResult, read_scores
from segpatch.statistics import interval
from segpatch.transfer import bootstrap_counts

PEOPLE = frozenset({"person", "pedestrian", "people", "human", "rider", "bicyclist", "cyclist", "motorcyclist"})
"""Names of classes that are people, in lower case."""


class Counts(NamedTuple):
    """Confusion matrices (N, K, K) per image over the pixels outside the patch: without it, with it."""

    clean: Tensor
    patched: Tensor


class Into(NamedTuple):
    """A class that pixels of another are taken for: shares of that other's labelled pixels."""

    name: str
    before: float
    after: float


class Fate(NamedTuple):
    """A labelled class under a patch: its pixels, the share that is right before and after, what gains of them.

    into: the classes that are taken for more of them than before, the largest gain first.
    """

    name: str
    pixels: int
    before: float
    after: float
    into: list[Into]


class Harm(NamedTuple):
    """What the costliest patch, own or foreign, does to a class of people on a network.

    training: the patch's name without its seed, seeds: how many were added up; fate: of all of them; lost: 95 %
    interval of the share that is no longer right; turned: of the share that the first class of `into` gains.
    control: the share that is right under the random controls of the same size and range, beyond: 95 % interval of
    what the patches cost beyond them; None where a control is missing.
    """

    victim: str
    training: str
    own: bool
    seeds: int
    fate: Fate
    lost: tuple[float, float]
    turned: tuple[float, float]
    control: float | None
    beyond: tuple[float, float] | None

    @property
    def sure(self) -> bool:
        """Whether pixels are surely lost, beyond what the random control takes."""
        return self.lost[0] > 0 and (self.beyond is None or self.beyond[0] > 0)


def read_counts(run: Path, result: TransferResult) -> dict[tuple[str, str], Counts]:
    """The counts of each cell, by (patch, network); empty where the run kept none."""
    if not (run / "scores.safetensors").is_file():
        return {}
    scores = read_scores(run)
    shape = (result.dataset.images, len(result.classes), len(result.classes))
    out = {}
    for index, cell in enumerate(result.cells):
        rows = [scores.get(f"{index}/{which}") for which in ("clean_outside", "patched")]
        if any(row is None or row.shape != shape or row.is_floating_point() for row in rows):
            raise BadInput(
                f"{run / 'scores.safetensors'} holds no counts {'x'.join(map(str, shape))} of {cell.patch} on "
                f"{cell.victim}; measure again"
            )
        out[cell.patch, cell.victim] = Counts(*(row for row in rows if row is not None))
    return out


def fates(counts: Counts, classes: Sequence[str], most: int = 3) -> list[Fate]:
    """The fate of every class that has labelled pixels, in order; `most` classes that it turns into."""
    clean, patched = (part.sum(0).double() for part in counts)
    out = []
    for index, name in enumerate(classes):
        pixels = float(clean[index].sum())
        if not pixels:
            continue
        before, after = clean[index] / pixels, patched[index] / pixels
        gains = sorted((float(b - a), j) for j, (a, b) in enumerate(zip(before, after, strict=True)) if j != index)
        into = [Into(classes[j], float(before[j]), float(after[j])) for gain, j in gains[::-1][:most] if gain > 0]
        out.append(Fate(name, round(pixels), float(before[index]), float(after[index]), into))
    return out


def harms(result: TransferResult, counts: Mapping[tuple[str, str], Counts]) -> list[Harm]:
    """Of each network, the classes of people under the costliest training of its own, and under that of others."""
    people = [index for index, name in enumerate(result.classes) if name.lower() in PEOPLE]
    if not people or not counts:
        return []
    drawn = bootstrap_counts(result.dataset.groups, result.dataset.block, 0)
    out = []
    for victim in result.victims:
        for own in (True, False):
            if cells := _costliest(result, victim.name, own):
                total = _added([counts[cell.patch, cell.victim] for cell in cells])
                random = [random_control(result, cell.patch) for cell in cells]
                held = [counts[name, victim.name] for name in random if name]
                control = _added(held) if len(held) == len(cells) else None
                known = {fate.name: fate for fate in fates(total, result.classes)}
                for fate in [known[result.classes[i]] for i in people if result.classes[i] in known]:
                    about = (victim.name, _training(cells[0]), own, len(cells))
                    out.append(Harm(*about, fate, *_intervals(fate, total, control, result.classes, drawn)))
    return out


def random_control(result: TransferResult, patch: str) -> str | None:
    """The random control of a patch's size and pixel range, by name."""
    of = {one.name: (one.height, one.width, one.range) for one in result.patches}
    return next((one.name for one in result.patches if one.kind == "random" and of[one.name] == of[patch]), None)


def _intervals(
    fate: Fate, total: Counts, control: Counts | None, classes: Sequence[str], drawn: Tensor
) -> tuple[tuple[float, float], tuple[float, float], float | None, tuple[float, float] | None]:
    """lost, turned, control and beyond of a Harm, from resamples (R, N) of the images."""
    index = classes.index(fate.name)
    into = classes.index(fate.into[0].name) if fate.into else index
    clean, patched = (part[:, index].double() for part in total)
    pixels = drawn @ clean.sum(1)
    there = pixels > 0  # resamples that hold such a pixel at all

    def share(by: Tensor) -> tuple[float, float]:
        return interval((drawn @ by)[there] / pixels[there])

    moved = patched - clean
    lost, turned = share(-moved[:, index]), share(moved[:, into])
    if control is None:
        return lost, turned, None, None
    right = control.patched[:, index, index].double()
    return lost, turned, float(right.sum() / clean.sum()), share(right - patched[:, index])


def _added(counts: Sequence[Counts]) -> Counts:
    clean, patched = zip(*counts, strict=True)
    return Counts(*(stack([one.long() for one in part]).sum(0) for part in (clean, patched)))


def _costliest(result: TransferResult, victim: str, own: bool) -> list[CellRecord]:
    """The cells of all seeds of the training that costs a network most on average."""
    trained = {patch.name for patch in result.patches if patch.kind == "trained"}
    found: dict[str, list[CellRecord]] = {}
    for cell in result.cells:
        if cell.victim == victim and cell.patch in trained and cell.white_box == own:
            found.setdefault(_training(cell), []).append(cell)
    return max(found.values(), key=lambda cells: sum(c.miou_drop or 0.0 for c in cells) / len(cells), default=[])


def _training(cell: CellRecord) -> str:
    """A patch's name without its seed."""
    return cell.patch.rpartition("/s")[0] or cell.patch
