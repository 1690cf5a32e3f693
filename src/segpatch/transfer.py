"""The transfer matrix: every patch on every network, beside its controls, with intervals and verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from segpatch.eot import generator_at
from segpatch.errors import BadInput
from segpatch.evaluation import Picture, Place, Scores, evaluate_all
from segpatch.loaders import Loaded
from segpatch.models.victim import Victim
from segpatch.notebook import html_table, three
from segpatch.patch import Patch
from segpatch.statistics import (
    REPLICATES,
    Verdict,
    block_ids,
    count_blocks,
    holm,
    interval,
    over_seeds,
    p_value,
    resample_counts,
    resampled_miou,
    verdict,
)

_BOOTSTRAP = 0x626F6F74  # "boot": an address that no training step reaches


@dataclass(frozen=True)
class OverRandom:
    """How much more a patch costs than the random control of its size and range: drop, interval, verdict."""

    drop: float
    ci95: tuple[float, float]
    p_holm: float
    verdict: Verdict


@dataclass(frozen=True)
class Cell:
    """One patch on one network. patch is "none" for the clean row; over_random is None for controls."""

    patch: str
    victim: str
    white_box: bool
    scores: Scores
    ci95: tuple[float, float]
    over_random: OverRandom | None = None


@dataclass(frozen=True)
class Group:
    """A patch trained with several seeds, on one network: mean drop, interval over seeds and images."""

    patch_group: str
    victim: str
    seeds: tuple[int, ...]
    miou_drop: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class TransferMatrix:
    """Everything measured: cells in row order (patch by patch), groups of seeds, and how they were judged: by
    blocks of `block` images that were resampled together, and by the margin."""

    victims: tuple[str, ...]
    classes: tuple[str, ...]
    patches: tuple[Patch, ...]
    cells: tuple[Cell, ...]
    groups: tuple[Group, ...]
    place: str
    block: int
    blocks: int
    margin: float

    def cell(self, patch: str, victim: str) -> Cell:
        """The cell of a patch and a victim, by name."""
        for cell in self.cells:
            if (cell.patch, cell.victim) == (patch, victim):
                return cell
        raise BadInput(f"no cell {patch!r} on {victim!r} in this matrix")

    def _repr_html_(self) -> str:
        """What a notebook shows: drops with their intervals and verdicts."""
        rows = []
        for name in ("none", *(patch.name for patch in self.patches)):
            cells = [self.cell(name, victim) for victim in self.victims]
            if name == "none":
                rows.append(["clean mIoU", *(three(cell.scores.miou_clean) for cell in cells)])
            else:
                rows.append([name, *map(_shown, cells)])
        images = len(self.cells[0].scores.names)
        return html_table(f"mIoU drop [95 % interval] on {images} images", ["patch", *self.victims], rows)


def transfer_matrix(
    victims: Sequence[Victim],
    batches: Iterable[Loaded],
    patches: Sequence[Patch],
    *,
    groups: Sequence[str] | None = None,
    block: int = 1,
    margin: float = 0.01,
    place: Place = "centre",
    seed: int = 0,
    precision: str = "fp32",
    on_image: Callable[[int], None] | None = None,
    on_picture: Callable[[Picture], None] | None = None,
    pictures: frozenset[str] = frozenset(),
) -> TransferMatrix:
    """The matrix of all patches (trained ones and controls) on all victims, a clean row first.

    groups: per image its drive or city, block: images that are resampled together (consecutive video frames);
    margin: of the verdicts, in mIoU. Names of patches and of victims must differ. For the rest see `evaluate_all`.
    """
    must_differ("victims", [victim.name for victim in victims])
    must_differ("patches", ["none", *(patch.name for patch in patches)])
    return judged(
        evaluate_all(
            victims,
            batches,
            [None, *patches],
            place=place,
            seed=seed,
            precision=precision,
            on_image=on_image,
            on_picture=on_picture,
            pictures=pictures,
        ),
        [victim.name for victim in victims],
        victims[0].label_classes.names,
        patches,
        groups=groups,
        block=block,
        margin=margin,
        place=place if isinstance(place, str) else "given",
        seed=seed,
    )


def judged(
    grid: Sequence[Sequence[Scores]],
    victims: Sequence[str],
    classes: Sequence[str],
    patches: Sequence[Patch],
    *,
    groups: Sequence[str] | None = None,
    block: int = 1,
    margin: float = 0.01,
    place: str = "centre",
    seed: int = 0,
) -> TransferMatrix:
    """The matrix of scores that were measured, a row without a patch first, then one per patch.

    The rest as in `transfer_matrix`.
    """
    of_images = groups if groups is not None else [""] * len(grid[0][0].names)
    counts, blocks = bootstrap_counts(of_images, block, seed), count_blocks(of_images, block)
    cells, drops = [], {}
    for row, patch in zip(grid, [None, *patches], strict=True):
        for victim, scores in zip(victims, row, strict=True):
            name = patch.name if patch else "none"
            drop = _resampled_drop(scores, counts)
            drops[name, victim] = drop
            white_box = patch is not None and victim in patch.trained_on
            cells.append(Cell(name, victim, white_box, scores, interval(drop)))
    return TransferMatrix(
        victims=tuple(victims),
        classes=tuple(classes),
        patches=tuple(patches),
        cells=_judged(cells, drops, patches, margin, blocks),
        groups=_grouped(cells, drops, patches, seed),
        place=place,
        block=block,
        blocks=blocks,
        margin=margin,
    )


def bootstrap_counts(groups: Sequence[str], block: int, seed: int) -> Tensor:
    """How often each image occurs in each resample (R, N) of a matrix, from its images' drives or cities."""
    return resample_counts(block_ids(groups, block), REPLICATES, generator_at(seed, _BOOTSTRAP))


def _resampled_drop(scores: Scores, counts: Tensor) -> Tensor:
    return resampled_miou(scores.clean_outside, counts) - resampled_miou(scores.patched, counts)


def _judged(
    cells: list[Cell], drops: dict[tuple[str, str], Tensor], patches: Sequence[Patch], margin: float, blocks: int
) -> tuple[Cell, ...]:
    """The cells with every patch that has a random control held against it.

    Holm's correction runs over the trained patches' transfers: the cells off the diagonal.
    """
    by_name = {patch.name: patch for patch in patches}
    scored = {(cell.patch, cell.victim): cell.scores for cell in cells}
    found: dict[tuple[str, str], OverRandom] = {}
    for cell in cells:
        control = _random_control(by_name.get(cell.patch), patches)
        if control is None:
            continue
        excess = drops[cell.patch, cell.victim] - drops[control.name, cell.victim]
        drop = cell.scores.miou_drop - scored[control.name, cell.victim].miou_drop
        low, high = interval(excess)
        said = verdict(low, high, margin, blocks)
        found[cell.patch, cell.victim] = OverRandom(drop, (low, high), p_value(drop, excess, blocks), said)
    transfers = [
        (cell.patch, cell.victim)
        for cell in cells
        if (cell.patch, cell.victim) in found and by_name[cell.patch].kind == "trained" and not cell.white_box
    ]
    for key, adjusted in zip(transfers, holm([found[key].p_holm for key in transfers]), strict=True):
        found[key] = replace(found[key], p_holm=adjusted)
    return tuple(replace(cell, over_random=found.get((cell.patch, cell.victim))) for cell in cells)


def _random_control(patch: Patch | None, patches: Sequence[Patch]) -> Patch | None:
    if patch is None or patch.kind == "random":
        return None
    same = (p for p in patches if p.kind == "random" and p.size == patch.size and p.range == patch.range)
    return next(same, None)


def _grouped(
    cells: list[Cell], drops: dict[tuple[str, str], Tensor], patches: Sequence[Patch], seed: int
) -> tuple[Group, ...]:
    """Means over the seeds of one training; the seeds are resampled as a second level."""
    trained: dict[str, list[Patch]] = {}
    for patch in patches:
        if patch.kind == "trained" and patch.seed is not None:
            trained.setdefault(patch.name.rpartition("/s")[0] or patch.name, []).append(patch)
    measured = {(cell.patch, cell.victim): cell.scores.miou_drop for cell in cells}
    out = []
    for number, (group, members) in enumerate(trained.items(), 1):
        for victim in dict.fromkeys(cell.victim for cell in cells):
            values = torch.stack([drops[patch.name, victim] for patch in members], dim=1)
            mean = sum(measured[patch.name, victim] for patch in members) / len(members)
            seeds = tuple(patch.seed for patch in members if patch.seed is not None)
            out.append(
                Group(
                    group,
                    victim,
                    seeds,
                    mean,
                    interval(over_seeds(values, generator_at(seed, _BOOTSTRAP, number))),
                )
            )
    return tuple(out)


def _shown(cell: Cell) -> str:
    said = "own network" if cell.white_box else cell.over_random.verdict if cell.over_random else ""
    return f"{three(cell.scores.miou_drop)} [{three(cell.ci95[0])}, {three(cell.ci95[1])}] {said}".rstrip()


def must_differ(what: str, names: Sequence[str]) -> None:
    """BadInput where a name occurs twice; what: whose names they are."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(f"{what} must have different names; {', '.join(twice)} occurs more than once")
