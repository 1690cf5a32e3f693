"""A finished study as it lies on the disk, and what a finding is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from segpatch.errors import BadInput, Missing
from segpatch.results import TransferResult, read_transfer
from segpatch.runs import read_json

_HOLDS = {"command": str, "plan": dict, "matrices": list, "cells": dict}
"""What of study.json is relied on everywhere."""
_LONGEST = 200  # of a matrix's name

Holds = Literal["holds", "does not hold", "undecided", "not run"]


class Finding(NamedTuple):
    """A claim, in the paper's words or nearly, what became of it here, and the figures that say so."""

    claim: str
    verdict: Holds
    figures: tuple[str, ...]


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


def held_above(bounds: Sequence[Sequence[float | None]], least: float) -> Holds:
    """Whether all intervals lie above a number, one lies below it, or neither."""
    known = [(low, high) for low, high in bounds if low is not None and high is not None]
    if any(high < least for _, high in known):
        return "does not hold"
    return "holds" if known and all(low > least for low, _ in known) else "undecided"


def held_apart(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Holds:
    """Whether the first interval of every pair lies above the second, one lies below it, or neither."""
    if any(upper[1] < lower[0] for upper, lower in pairs):
        return "does not hold"
    return "holds" if pairs and all(upper[0] > lower[1] for upper, lower in pairs) else "undecided"


def not_run(claim: str) -> Finding:
    return Finding(claim, "not run", ())


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}".replace("-0.000", "0.000")
