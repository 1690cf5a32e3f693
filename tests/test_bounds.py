from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from segpatch.bounds import (
    MOST_SEED,
    MOST_SIDE,
    check_number,
    check_pair,
    check_precision,
    check_seeds,
    check_size,
    check_whole,
    check_whole_or_none,
)
from segpatch.errors import BadInput


def test_what_lies_within_bounds_is_let_through():
    for value in (0, 0.5, 1):
        check_number("x", value, 0, 1)
    check_number("x", 1e-300, 0, 1, above=True)
    check_number("x", 1 - 1e-9, 0, 1, below=True)
    check_whole("n", 0)
    check_whole_or_none("n", None)
    check_pair("p", (0, 0), 0, 1)
    check_size("size", (MOST_SIDE, 4096))
    check_seeds((0, MOST_SEED))
    check_precision("bf16")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *(
            (lambda value=value: check_number("x", value, 0, 1), f"x must be in [0, 1], got {value!r}")
            for value in (math.nan, math.inf, -math.inf, -1e-9, 1.5, 2, "1", None)
        ),
        (lambda: check_number("x", 0, 0, 1, above=True), "x must be in (0, 1], got 0"),
        (lambda: check_number("x", 1, 0, 1, below=True), "x must be in [0, 1), got 1"),
        (lambda: check_number("x", 10**99, 0, 1), f"x must be in [0, 1], got 1{'0' * 59}.. (100 letters)"),
        (lambda: check_whole("n", 2.0), "n must be a whole number from 0 to 1000000000, got 2.0"),  # type: ignore[arg-type]
        (lambda: check_whole("n", math.nan), "n must be a whole number from 0"),  # type: ignore[arg-type]
        (lambda: check_whole_or_none("n", 0), "n must be a whole number from 1 to 1000000000, got 0"),
        (lambda: check_pair("p", (1,), 0, 1), "p must be two numbers (low, high), got (1,)"),
        (lambda: check_pair("p", (1, 0), 0, 1), "p must be (low, high), the lower number first, got (1, 0)"),
        (lambda: check_pair("p", (0, math.nan), 0, 1), "p must be in [0, 1], got nan"),
        (lambda: check_size("size", (1, 2, 3)), "size must be (height, width) in pixels, got (1, 2, 3)"),  # type: ignore[arg-type]
        (lambda: check_size("size", (0, 1)), "each side of size must be a whole number from 1 to 16384, got 0"),
        (
            lambda: check_size("size", (9000, 9000)),
            "size may hold 64 million pixels, got 9000x9000; make it smaller",
        ),
        (lambda: check_seeds(()), "seeds must be one or more, and different; got ()"),
        (lambda: check_seeds((MOST_SEED + 1,)), "seed must be a whole number from 0 to 4294967295"),
        (lambda: check_precision("fp8"), "precision must be fp32 or bf16, got 'fp8'"),
    ],
)
def test_what_does_not_is_one_line(call: Callable[[], None], message: str):
    with pytest.raises(BadInput) as error:
        call()
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
