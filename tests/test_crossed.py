"""Claims about the matrix, on made-up cells with known answers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from segpatch.report.crossed import crossed
from segpatch.report.record import Study, held_apart

Bounds = tuple[float, float]
NETWORKS = {"s": "pidnet-s", "s2": "pidnet-s", "l": "pidnet-l", "bise": "bisenetv2", "hr": "hrnet-w18-small"}


def study(patches: dict[str, list[str]], bounds: dict[tuple[str, str], Bounds], preset: str = "paper") -> Study:
    """A matrix of these patches (name: trained on) and these intervals beyond random."""
    cells = [
        SimpleNamespace(
            patch=patch,
            victim=victim,
            white_box=victim in patches[patch],
            miou=0.3,
            miou_drop=high,
            over_random=SimpleNamespace(drop=(low + high) / 2, ci95=(low, high), p_holm=0.01),
        )
        for (patch, victim), (low, high) in bounds.items()
    ]
    result: Any = SimpleNamespace(
        victims=[SimpleNamespace(name=name, network=network) for name, network in NETWORKS.items()],
        patches=[
            SimpleNamespace(name=name, kind="trained", preset=preset, trained_on=on, seed=0)
            for name, on in patches.items()
        ],
        cells=cells,
    )
    return Study(Path(), {"cells": {}}, {"matrix": result})


def verdict(found: Study, words: str) -> str:
    (one,) = [finding for finding in crossed(found) if words in finding.claim]
    return one.verdict


@pytest.mark.parametrize(
    ("bounds", "wanted"),
    [((0.02, 0.05), "holds"), ((-0.004, 0.004), "does not hold"), ((0.005, 0.05), "undecided")],
)
def test_twins_share_a_patch(bounds: Bounds, wanted: str):
    found = study({"p": ["s"]}, {("p", "s"): (0.1, 0.2), ("p", "s2"): bounds, ("p", "bise"): (0.0, 0.001)})
    assert verdict(found, "other weights of its architecture") == wanted


def test_a_patch_of_several_networks():
    found = study({"p": ["s", "bise"]}, {("p", "s"): (0.1, 0.2), ("p", "bise"): (-0.01, 0.2), ("p", "s2"): (0, 0)})
    assert verdict(found, "one patch trained on several networks") == "undecided"
    assert verdict(found, "other weights of its architecture") == "not run", "whose patch it is, is not known"


def test_the_first_two_experiments_and_the_next_check():
    cells = {
        ("p", "l"): (0.05, 0.1),
        ("p", "bise"): (-0.002, 0.003),
        ("p", "hr"): (0.02, 0.03),
        ("p", "s"): (0.5, 0.6),
    }
    found = study({"p": ["l"]}, cells)
    assert verdict(found, "first experiment") == "holds"
    assert verdict(found, "second experiment") == "holds"
    assert verdict(found, "next check 1") == "does not hold"
    assert verdict(study({"p": ["s"]}, {("p", "s"): (0.1, 0.2)}), "first experiment") == "not run"


def test_intervals_apart():
    assert held_apart([((0.3, 0.4), (0.1, 0.2)), ((0.5, 0.6), (0.1, 0.2))]) == "holds"
    assert held_apart([((0.3, 0.4), (0.1, 0.2)), ((0.5, 0.6), (0.5, 0.7))]) == "undecided"
    assert held_apart([((0.3, 0.4), (0.1, 0.2)), ((0.1, 0.2), (0.5, 0.7))]) == "does not hold"
    assert held_apart([]) == "undecided"
