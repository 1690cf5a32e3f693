"""Our matrix beside Table I, on made-up cells with known answers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from segpatch.report.beside import beside_published, beside_text
from segpatch.report.record import Study

NETWORKS = {"s": "pidnet-s", "bise": "bisenetv2", "hr": "hrnet-w18-small"}


def study(preset: str = "released") -> Study:
    """A patch of PIDNet-S and one of two networks, with a random control of their range and one of another."""
    wide = SimpleNamespace(range=[(0.0, 1.0)] * 3, height=8, width=8)
    narrow = SimpleNamespace(range=[(0.4, 0.6)] * 3, height=8, width=8)

    def patch(name: str, kind: str, look: SimpleNamespace, *trained_on: str) -> SimpleNamespace:
        return SimpleNamespace(
            name=name, kind=kind, preset=preset if trained_on else None, trained_on=list(trained_on), **vars(look)
        )

    def cell(patch: str, victim: str, miou: float | None, drop: float | None = None) -> SimpleNamespace:
        over = None if drop is None else SimpleNamespace(drop=drop, ci95=(drop - 0.01, drop + 0.02))
        return SimpleNamespace(patch=patch, victim=victim, miou=miou, miou_clean=0.8, over_random=over)

    cells = [cell("random/narrow/s0", victim, 0.78) for victim in NETWORKS]
    cells += [cell("random/full/s0", "s", 0.5), cell("both", "s", 0.4, 0.38)]
    cells += [cell("p", "s", 0.6, 0.18), cell("p", "bise", 0.77, 0.01), cell("p", "hr", 0.77, 0.01)]
    result: Any = SimpleNamespace(
        victims=[SimpleNamespace(name=name, network=network) for name, network in NETWORKS.items()],
        patches=[
            patch("random/full/s0", "random", wide),
            patch("random/narrow/s0", "random", narrow),
            patch("p", "trained", narrow, "s"),
            patch("both", "trained", narrow, "s", "bise"),
        ],
        cells=cells,
    )
    return Study(Path(), {"cells": {}}, {"matrix": result})


def test_every_number_by_hand():
    random_s, random_bise, own, other = beside_published(study())
    assert [(row.patch, row.victim) for row in (random_s, random_bise, own, other)] == [
        ("random/narrow/s0", "s"),
        ("random/narrow/s0", "bise"),
        ("p", "s"),
        ("p", "bise"),
    ], "no HRNet, no other range, no patch of several networks"
    assert own.miou == pytest.approx((0.6, 0.7790577, 0.6 - 0.7790577), abs=1e-7)
    assert own.clean == pytest.approx((0.8, 0.8695765, 0.8 - 0.8695765), abs=1e-7)
    assert own.drop == pytest.approx((0.18, 0.8652439 - 0.7790577, 0.18 - 0.0861862), abs=1e-6)
    assert own.ci95 == pytest.approx((0.17, 0.2))
    assert other.drop == pytest.approx((0.01, 0.6844127 - 0.6847911, 0.01 + 0.0003784), abs=1e-6)
    assert random_s.miou == pytest.approx((0.78, 0.8652439, 0.78 - 0.8652439), abs=1e-7)
    assert random_s.drop == pytest.approx((0.02, 0.8695765 - 0.8652439, 0.02 - 0.0043326), abs=1e-6)
    assert random_s.ci95 == (None, None)


def test_as_columns_and_as_text():
    rows = beside_published(study())
    flat = rows[2].flat()
    assert (flat["patch"], flat["victim"]) == ("p", "s")
    assert flat["drop.ours"] == 0.18 and flat["drop.low"] == pytest.approx(0.17)
    assert set(rows[0].flat()) == set(flat) and len(flat) == 2 + 3 * 3 + 2
    line = "| p on s | 0.600 | 0.779 | -0.179 | 0.800 | 0.870 | 0.180 [0.170, 0.200] | 0.086 | 0.094 |"
    assert line in beside_text(rows).splitlines()
    assert (
        "| random/narrow/s0 on s | 0.780 | 0.865 | -0.085 | 0.800 | 0.870 | 0.020 | 0.004 | 0.016 |"
        in beside_text(rows)
    )


def test_nothing_beside_where_nothing_is_published():
    assert beside_published(study("paper")) == [], "made by another preset"
    assert beside_published(Study(Path(), {"cells": {}}, {})) == []
    assert beside_text([]) == ""
