"""Claims about the matrix, on made-up cells with known answers."""

from __future__ import annotations

import pytest

from segpatch.report import record
from segpatch.report.crossed import (
    ensembles,
    experiments,
    other_networks,
    own_networks,
    twins,
)
from segpatch.report.excess import Excess

Bounds = tuple[float, float]
NETWORKS = {"s": "pidnet-s", "s2": "pidnet-s", "l": "pidnet-l", "bise": "bisenetv2", "hr": "hrnet-w18-small"}


def excess(
    patch: str, victim: str, bounds: Bounds, strongest: Bounds | None = None, on: tuple[str, ...] | None = None
) -> Excess:
    """What `patch` ("SOURCE/PRESET") costs a network, beyond random and beyond the strongest control."""
    source, preset = patch.split("/")
    on = on or (source,)
    return Excess(patch, preset, on, tuple(NETWORKS[name] for name in on), victim, NETWORKS[victim],
                  bounded(*bounds), bounded(*(strongest or bounds)))  # fmt: skip


def bounded(low: float, high: float) -> record.Bounds:
    return record.Bounds((low + high) / 2, low, high)


OWN = excess("s/paper", "s", (0.1, 0.2))


@pytest.mark.parametrize(
    ("bounds", "wanted"),
    [((0.02, 0.05), "holds"), ((0.0, 0.005), "does not hold"), ((0.005, 0.05), "undecided")],
)
def test_a_patch_breaks_its_own_network(bounds: Bounds, wanted: str):
    foreign = excess("s/paper", "bise", (0.5, 0.6))
    shared = excess("s+bise/paper", "s", (0.5, 0.6), on=("s", "bise"))
    (found,) = own_networks([OWN, excess("l/paper", "l", bounds), foreign, shared])
    assert found.verdict == wanted and "`paper`" in found.claim
    assert found.figures[0] == f"surely more than 0.01 in {1 + (wanted == 'holds')} of 2 cases"
    assert own_networks([])[0].verdict == "not run"


@pytest.mark.parametrize(
    ("bounds", "strongest", "wanted"),
    [
        ((-0.005, 0.005), (-0.02, 0.0), "holds"),
        ((0.02, 0.05), (0.02, 0.04), "does not hold"),
        ((0.02, 0.05), (-0.01, 0.02), "undecided"),  # no more than a grey square does
        ((0.005, 0.02), (0.005, 0.02), "undecided"),
    ],
)
def test_a_patch_costs_other_architectures_little(bounds: Bounds, strongest: Bounds, wanted: str):
    twin = excess("s/paper", "s2", (0.5, 0.6))
    (found,) = other_networks([OWN, twin, excess("s/paper", "bise", bounds, strongest)], None)
    assert found.verdict == wanted
    assert any(line.startswith("of 1 at margin 0.01, beyond any control:") for line in found.figures)
    assert "1 are of patches that break their own network" in found.figures


@pytest.mark.parametrize(
    ("bounds", "wanted"),
    [((0.02, 0.05), "holds"), ((-0.004, 0.004), "does not hold"), ((0.005, 0.05), "undecided")],
)
def test_twins_share_a_patch(bounds: Bounds, wanted: str):
    (found,) = twins([OWN, excess("s/paper", "s2", bounds), excess("s/paper", "bise", (0.0, 0.001))])
    assert found.verdict == wanted


def test_a_patch_that_does_nothing_says_nothing_of_twins():
    weak = [excess("s/paper", "s", (-0.01, 0.01)), excess("s/paper", "s2", (-0.001, 0.001))]
    (found,) = twins(weak)
    assert found.verdict == "undecided" and "left out" in found.figures[0]


def test_a_patch_of_several_networks():
    both = [
        excess("s+bise/paper", name, (low, 0.2), on=("s", "bise")) for name, low in (("s", 0.1), ("bise", -0.01))
    ]
    assert ensembles(both)[0].verdict == "undecided"
    assert ensembles(both[:1])[0].verdict == "holds"
    assert twins([*both, excess("s+bise/paper", "s2", (0, 0), on=("s", "bise"))])[0].verdict == "not run"


def test_the_first_two_experiments_and_the_next_check():
    cells = {"l": (0.05, 0.1), "bise": (-0.002, 0.003), "hr": (0.02, 0.03), "s": (0.5, 0.6)}
    first, second, check = experiments([excess("l/paper", name, bounds) for name, bounds in cells.items()])
    assert (first.verdict, second.verdict, check.verdict) == ("holds", "holds", "does not hold")
    assert "published 0.108" in first.claim
    assert {found.verdict for found in experiments([OWN])} == {"not run"}
