"""A finished study as it lies on the disk, and what a finding is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

from segpatch.errors import BadInput, Missing
from segpatch.results import TransferResult, read_transfer
from segpatch.runs import read_json
from segpatch.statistics import LEAST_BLOCKS

_HOLDS = {"command": str, "plan": dict, "matrices": list, "cells": dict}
"""What of study.json is relied on everywhere."""
_LONGEST = 200  # of a matrix's name

Holds = Literal["holds", "does not hold", "undecided", "not run"]


class Finding(NamedTuple):
    """A claim, in the paper's words or nearly, what became of it here, and the figures that say so."""

    claim: str
    verdict: Holds
    figures: tuple[str, ...]


class Bounds(NamedTuple):
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{number(self.value)} [{number(self.low)}, {number(self.high)}]"

    def percent(self) -> str:
        """As shares."""
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}]"

    def widened(self, count: int) -> Bounds:
        """The interval that is right with 95 % for all of so many at once. Source: Bonferroni, on the normal
        scale."""
        normal = NormalDist()
        factor = normal.inv_cdf(1 - 0.025 / count) / normal.inv_cdf(0.975)
        return Bounds(
            self.value,
            self.value + factor * (self.low - self.value),
            self.value + factor * (self.high - self.value),
        )

    def negative(self) -> Bounds:
        """The other way round."""
        return Bounds(-self.value, -self.high, -self.low)

    def less(self, other: Bounds) -> Bounds:
        """The difference, as of independent values: too wide where both are of the same images and move
        together."""
        down = math.hypot(self.value - self.low, other.high - other.value)
        up = math.hypot(self.high - self.value, other.value - other.low)
        value = self.value - other.value
        return Bounds(value, value - down, value + up)


class Study(NamedTuple):
    """A finished study as it lies on the disk: its record, and its matrices by name."""

    directory: Path
    record: dict[str, Any]
    matrices: dict[str, TransferResult]

    def cells(self, part: str) -> list[dict[str, Any]]:
        """The results of a part, in order."""
        return [cell for name, cell in self.record["cells"].items() if name.startswith(f"{part}/")]

    @property
    def warnings(self) -> list[str]:
        """What would make its numbers mislead: its own warnings and those of its matrices, each once."""
        own: list[str] = self.record.get("warnings", [])
        return list(dict.fromkeys([*own, *(text for each in self.matrices.values() for text in each.warnings)]))


def read_study(directory: Path) -> Study:
    """A finished study; Missing where there is none."""
    path = directory / "study.json"
    if not path.is_file():
        raise Missing(f"no study.json in {directory}; give a finished `segpatch study paper` run")
    record = read_json(path)
    if not isinstance(record, dict) or not all(isinstance(record.get(key), kind) for key, kind in _HOLDS.items()):
        raise BadInput(f"{path} is damaged (no {', '.join(_HOLDS)} of their kinds); run the study again")
    if not all(isinstance(cell, dict) for cell in record["cells"].values()):
        raise BadInput(f"{path} is damaged (a cell is no table); run the study again")
    for name in record["matrices"]:
        plain = isinstance(name, str) and name.isprintable() and len(name) < _LONGEST
        if not plain or not (directory / name).resolve().is_relative_to(directory.resolve()):
            raise BadInput(f"{path} is damaged (its matrix {name!r} lies outside the run); run the study again")
    return Study(directory, record, {name: read_transfer(directory / name) for name in record["matrices"]})


def cells_around(run: Path, part: str, result: TransferResult) -> list[dict[str, Any]]:
    """What a finished study, whose matrix a run is, measured of the run's patches in a part; else nothing."""
    path = run.resolve().parent / "study.json"
    record = read_json(path) if path.is_file() else {"matrices": []}
    if run.resolve().name not in record["matrices"]:
        return []
    patches = {patch.name for patch in result.patches}
    found = Study(path.parent, record, {}).cells(part)
    return [cell for cell in found if cell["patch"] in patches]


def bounds(value: float | None, ci95: Sequence[float | None], blocks: int = LEAST_BLOCKS) -> Bounds | None:
    """A value with its interval, None where there is none; from fewer than LEAST_BLOCKS blocks of images it
    says nothing."""
    low, high = ci95
    if value is None or low is None or high is None:
        return None
    return Bounds(value, low, high) if blocks >= LEAST_BLOCKS else Bounds(value, -math.inf, math.inf)


def held_above(found: Sequence[Bounds], least: float) -> Holds:
    """Whether all intervals lie above a number, one surely lies below it, or neither.

    Surely: with the interval as wide as their number asks for (`Bounds.widened`). That all lie above needs no
    such care, as each would have to be wrong at once.
    """
    if any(one.widened(len(found)).high < least for one in found):
        return "does not hold"
    return "holds" if found and all(one.low > least for one in found) else "undecided"


def held_within(found: Sequence[Bounds], margin: float) -> Holds:
    """Whether all intervals lie within a margin on both sides of 0, one surely lies beyond it, or neither."""
    wide = [one.widened(len(found)) for one in found]
    if any(one.low > margin or one.high < -margin for one in wide):
        return "does not hold"
    return "holds" if found and all(-margin <= one.low and one.high <= margin for one in found) else "undecided"


def not_run(claim: str) -> Finding:
    return Finding(claim, "not run", ())


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}".replace("-0.000", "0.000")
