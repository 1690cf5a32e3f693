"""What the pixels of each class become under a patch, from the raw counts of a run.

A run counts where the pixels go that are right without the patch. Runs of earlier versions did not: their counts
say of each class how many of its pixels are taken for which class, without the patch and with it, so that what a
class turns into is net there: pixels that went the other way are subtracted.
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
    """Confusion matrices (N, K, K) per image over the pixels outside the patch: without it, with it, and with it
    over those alone that are right without it; None where that was not counted."""

    clean: Tensor
    patched: Tensor
    of_right: Tensor | None = None


class Into(NamedTuple):
    """A class that pixels of another become, and the share of them: see Fate."""

    name: str
    share: float


class Fate(NamedTuple):
    """A labelled class under a patch: its pixels, the share that is right before and after, what gains of them.

    into: the classes that they become, the largest share first. exact: the share is of the pixels that are right
    without the patch, and what these are taken for with it; else of all its pixels, and the net gain of a class.
    """

    name: str
    pixels: int
    before: float
    after: float
    into: list[Into]
    exact: bool


class Harm(NamedTuple):
    """What the costliest patch, own or foreign, does to a class of people on a network.

    training: the patch's name without its seed, seeds: how many were added up; fate: of all of them; lost: 95 %
    interval of the share that is no longer right; turned: of the share of the first class of `into`. Under the
    random controls of the same size and range, control: the share that is right, control_turned: that of the first
    class of `into`, beyond: 95 % interval of what the patches cost beyond them; None where a control is missing.
    """

    victim: str
    training: str
    own: bool
    seeds: int
    fate: Fate
    lost: tuple[float, float]
    turned: tuple[float, float]
    control: float | None
    control_turned: float | None
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
        clean, patched, of_right = (
            scores.get(f"{index}/{which}") for which in ("clean_outside", "patched", "of_right")
        )
        known = [row for row in (clean, patched, of_right) if row is not None]
        wrong = any(row.shape != shape or row.is_floating_point() for row in known)
        if clean is None or patched is None or wrong:
            raise BadInput(
                f"{run / 'scores.safetensors'} holds no counts {'x'.join(map(str, shape))} of {cell.patch} on "
                f"{cell.victim}; measure again"
            )
        out[cell.patch, cell.victim] = Counts(clean, patched, of_right)
    return out


def fates(counts: Counts, classes: Sequence[str], most: int = 3) -> list[Fate]:
    """The fate of every class that has labelled pixels, in order; `most` classes that it turns into."""
    clean, patched = (part.sum(0).double() for part in counts[:2])
    moved, of = (part.sum(0).double() for part in _moved(counts))
    out = []
    for index, name in enumerate(classes):
        pixels = float(clean[index].sum())
        if not pixels:
            continue
        shares = (moved[index] / of[index]).tolist()
        others = sorted((j for j in range(len(classes)) if j != index), key=lambda j: -shares[j])
        into = [Into(classes[j], shares[j]) for j in others[:most] if shares[j] > 0]
        before, after = (float(part[index, index]) / pixels for part in (clean, patched))
        out.append(Fate(name, round(pixels), before, after, into, counts.of_right is not None))
    return out


def _moved(counts: Counts) -> tuple[Tensor, Tensor]:
    """How many pixels of a class become another (N, K, K), and of how many (N, K): see Fate."""
    if counts.of_right is None:
        return counts.patched - counts.clean, counts.clean.sum(2)
    return counts.of_right, counts.of_right.sum(2)


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
                beside = [counts[name, victim.name] for name in random if name]
                control = _added(beside) if len(beside) == len(cells) else None
                known = {fate.name: fate for fate in fates(total, result.classes)}
                for fate in [known[result.classes[i]] for i in people if result.classes[i] in known]:
                    about = (victim.name, _training(cells[0]), own, len(cells))
                    out.append(_harm(about, fate, total, control, result.classes, drawn))
    return out


def random_control(result: TransferResult, patch: str) -> str | None:
    """The random control of a patch's size and pixel range, by name."""
    of = {one.name: (one.height, one.width, one.range) for one in result.patches}
    return next((one.name for one in result.patches if one.kind == "random" and of[one.name] == of[patch]), None)


def _harm(
    about: tuple[str, str, bool, int],
    fate: Fate,
    total: Counts,
    control: Counts | None,
    classes: Sequence[str],
    drawn: Tensor,
) -> Harm:
    """From what a Harm is about (victim, training, own, seeds), and resamples (R, N) of the images."""
    index = classes.index(fate.name)
    into = classes.index(fate.into[0].name) if fate.into else index

    def share(part: Tensor, whole: Tensor) -> tuple[float, float]:
        part, whole = drawn @ part.double(), drawn @ whole.double()
        there = whole > 0  # resamples that hold such a pixel at all
        return interval(part[there] / whole[there])

    clean, patched = total.clean[:, index], total.patched[:, index]
    pixels = clean.sum(1)
    moved, of = _moved(total)
    lost = share(clean[:, index] - patched[:, index], pixels)
    turned = share(moved[:, index, into], of[:, index])
    if control is None:
        return Harm(*about, fate, lost, turned, None, None, None)
    right = control.patched[:, index, index]
    theirs = _moved(control)[0][:, index, into]
    kept, gone = float(right.sum()) / float(pixels.sum()), float(theirs.sum()) / float(of[:, index].sum())
    return Harm(*about, fate, lost, turned, kept, gone, share(right - patched[:, index], pixels))


def _added(counts: Sequence[Counts]) -> Counts:
    def total(parts: Sequence[Tensor]) -> Tensor:
        return stack([part.long() for part in parts]).sum(0)

    of_right = [one.of_right for one in counts if one.of_right is not None]
    return Counts(
        total([one.clean for one in counts]),
        total([one.patched for one in counts]),
        total(of_right) if len(of_right) == len(counts) else None,
    )


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
