"""What the page says, derived from a result: rows in order, tables of classes, under-training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from segpatch.checks import still_falling
from segpatch.plots import Series
from segpatch.results import CellRecord, PatchRecord, TransferResult


class ClassTable(NamedTuple):
    """The classes of one network: IoU clean, under its strongest own and the strongest foreign patch.

    phantom: classes neither labelled nor predicted without a patch, but predicted with one: their IoU is 0.
    """

    victim: str
    series: list[Series]
    phantom: list[str]


def rows_in_order(result: TransferResult) -> list[tuple[str, list[PatchRecord]]]:
    """The patches under headings: controls first, then each preset in the order of the run; no clean row."""
    rows: dict[str, list[PatchRecord]] = {}
    controls = [patch for patch in result.patches if patch.kind not in ("none", "trained")]
    if controls:
        rows["controls"] = controls
    for patch in result.patches:
        if patch.kind == "trained":
            rows.setdefault(f"preset {patch.preset}" if patch.preset else "without a preset", []).append(patch)
    return list(rows.items())


def strongest(result: TransferResult, victim: str, *, own: bool) -> CellRecord | None:
    """The trained patch that costs a network most, among its own (trained on it too) or the foreign ones."""
    trained = {patch.name for patch in result.patches if patch.kind == "trained"}
    cells = [
        cell
        for cell in result.cells
        if cell.victim == victim and cell.patch in trained and cell.white_box == own and cell.miou_drop is not None
    ]
    return max(cells, key=_drop, default=None)


def class_table(result: TransferResult, victim: str) -> ClassTable:
    """IoU per class of a network: clean, under its strongest own patch, under the strongest foreign one."""
    own, foreign = (strongest(result, victim, own=which) for which in (True, False))
    base = own or foreign or result.cell("none", victim)
    series = [Series("clean", "clean", [base.iou_clean_outside[name] for name in result.classes])]
    if own:
        series.append(Series("own", f"own: {own.patch}", [own.iou[name] for name in result.classes]))
    if foreign:
        values = [foreign.iou[name] for name in result.classes]
        series.append(Series("foreign", f"foreign: {foreign.patch}", values))
    phantom = [
        name
        for name in result.classes
        if any(
            cell.iou_clean_outside[name] is None and cell.iou[name] is not None
            for cell in result.cells
            if cell.victim == victim
        )
    ]
    return ClassTable(victim, series, phantom)


def never_occurring(result: TransferResult) -> list[str]:
    """Classes that are neither labelled nor predicted anywhere without a patch: they have no IoU."""
    clean = [cell for cell in result.cells if cell.patch == "none"]
    return [name for name in result.classes if clean and all(cell.iou[name] is None for cell in clean)]


def scene_pairs(result: TransferResult) -> list[tuple[str, str]]:
    """(patch, victim) of a scene's rows: each network under its own patch, and the costliest foreign pair."""
    names = [victim.name for victim in result.victims]
    own = [strongest(result, victim, own=True) or strongest(result, victim, own=False) for victim in names]
    foreign = [cell for victim in names if (cell := strongest(result, victim, own=False))]
    cells = [cell for cell in own if cell]
    if foreign:
        cells.append(max(foreign, key=_drop))
    return list(dict.fromkeys((cell.patch, cell.victim) for cell in cells))


def under_trained(name: str, warnings: Sequence[str], steps: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the run's warnings call a patch under-trained, or its share of correct pixels still fell."""
    said = any(text.startswith(f"{name}:") and "under-trained" in text for text in warnings)
    return said or still_falling([row["correct"] for row in steps if row.get("correct") is not None])


def _drop(cell: CellRecord) -> float:
    return cell.miou_drop or 0.0
