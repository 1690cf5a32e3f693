"""Values with intervals, and when a claim about several of them holds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference import LAW
from segpatch.report.record import Bounds, bounds, held_above, held_within

HALVES = st.floats(0, 1)


def test_a_claim_holds_where_all_intervals_lie_above():
    assert held_above([Bounds(0.35, 0.3, 0.4), Bounds(0.2, 0.1, 0.3)], 0.05) == "holds"
    assert held_above([Bounds(0.35, 0.3, 0.4), Bounds(0.2, 0.04, 0.3)], 0.05) == "undecided"
    assert held_above([Bounds(0.35, 0.3, 0.4), Bounds(0.0, -0.01, 0.01)], 0.05) == "does not hold"
    assert held_above([], 0.05) == "undecided"


def test_one_of_many_intervals_that_just_lies_below_is_no_proof():
    strong, just_below = Bounds(0.35, 0.3, 0.4), Bounds(0.03, 0.01, 0.049)
    assert held_above([just_below], 0.05) == "does not hold"
    assert held_above([*[strong] * 14, just_below], 0.05) == "undecided"


def test_within_a_margin():
    assert held_within([Bounds(0.0, -0.05, 0.05)], 0.1) == "holds"
    assert held_within([Bounds(0.0, -0.05, 0.15)], 0.1) == "undecided"
    assert (
        held_within([Bounds(0.3, 0.2, 0.4)], 0.1)
        == held_within([Bounds(-0.3, -0.4, -0.2)], 0.1)
        == "does not hold"
    )
    assert held_within([], 0.1) == "undecided"


def test_widened_by_hand():
    assert Bounds(0.5, 0.4, 0.7).widened(1) == pytest.approx(Bounds(0.5, 0.4, 0.7))
    wide = Bounds(0.5, 0.4, 0.7).widened(10)  # 2.807 standard errors in place of 1.960
    assert wide == pytest.approx(Bounds(0.5, 0.5 - 0.1 * 2.807 / 1.96, 0.5 + 0.2 * 2.807 / 1.96), abs=1e-4)


def test_difference_by_hand():
    one, other = Bounds(0.5, 0.2, 0.9), Bounds(0.1, 0.0, 0.5)
    assert one.less(other) == pytest.approx(Bounds(0.4, 0.4 - math.hypot(0.3, 0.4), 0.4 + math.hypot(0.4, 0.1)))


@LAW
@given(st.floats(-1, 1), HALVES, HALVES, st.floats(-1, 1), HALVES, HALVES, st.integers(1, 50))
def test_laws_of_intervals(a: float, down: float, up: float, b: float, low: float, high: float, count: int):
    one, other = Bounds(a, a - down, a + up), Bounds(b, b - low, b + high)
    apart = one.less(other)
    assert apart == pytest.approx(other.less(one).negative())
    assert apart.high - apart.value >= up - 1e-9, "a difference is no surer than what it is made from"
    wide = one.widened(count)
    assert wide.low <= one.low + 1e-9 and wide.high >= one.high - 1e-9


def test_few_blocks_and_missing_values():
    assert bounds(0.1, (0.05, 0.2)) == Bounds(0.1, 0.05, 0.2)
    assert bounds(0.1, (None, 0.2)) is bounds(None, (0.0, 0.1)) is None
    few = bounds(0.1, (0.05, 0.2), 7)
    assert few is not None and held_above([few], 0.01) == held_within([few], 0.01) == "undecided"
    assert held_above([few.less(few)], 0.0) == "undecided"
