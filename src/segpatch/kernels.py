"""The inner loops of `segpatch.tail`, compiled for the processor when they are first called (numba).

Every array of pixels is (R, G, C): R rows of G runs of C neighbouring pixels, C being `RUN`; of their classes
(R, G, K, C). Loops over a run's pixels lie innermost and touch few arrays, so that they compile to wide
instructions, and a run with all its classes stays in a core's fastest cache from one loop to the next. All of it
is in single precision and lets go of the interpreter's lock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit

from segpatch.resizing import RUN

LEAST = np.float32(-115)
"""Powers of two further below the highest are taken for this one: their share of any sum is 0, and numbers below
single precision's smallest normal one slow a CPU down several times."""

_LOG2_E = np.float32(1.4426950408889634)
_SHIFT = np.float32(1.5 * 2**23)
"""Added to a number, it leaves the nearest whole one in the lowest bits."""

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """A function that numba compiles; what it made is kept beside the module, or where the user's caches lie."""
    options: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # no folder that may be written to
        return njit(**options)(function)  # type: ignore[no-any-return]


@compiled
def exp2(power: Any) -> Any:
    """Two to a power of at most 0, in single precision, to 2e-7 of it; NaN of NaN.

    A polynomial for what the power is beyond the nearest whole number, which is added to the exponent.
    """
    x = LEAST if power < LEAST else power
    shifted = np.float32(x + _SHIFT)
    f = x - (shifted - _SHIFT)
    # The Taylor series of 2^f, |f| <= 1/2, its last coefficient raised for what follows it.
    value = np.float32(1.5403530e-4)
    value = value * f + np.float32(1.3333558e-3)
    value = value * f + np.float32(9.6181291e-3)
    value = value * f + np.float32(5.5504109e-2)
    value = value * f + np.float32(2.4022651e-1)
    value = np.float32(value * f + np.float32(6.9314718e-1))
    value = np.float32(value * f + np.float32(1))
    whole = np.int32(np.int32(shifted.view(np.int32)) << np.int32(23))
    return np.int32(value.view(np.int32) + whole).view(np.float32)


@compiled
def resize_run(upper: Any, lower: Any, share: Any, out: Any, best: Any, first: Any) -> None:
    """Logits (K, C) between those of two rows, `share` of the way down; the highest of each pixel (C,), and the
    first class (C,) that has it."""
    best[:] = -np.inf
    first[:] = 0
    for k in range(out.shape[0]):
        of = np.int32(k)
        for j in range(RUN):
            out[k, j] = upper[k, j] + share * (lower[k, j] - upper[k, j])
        for j in range(RUN):
            value = out[k, j]
            first[j] = of if value > best[j] else first[j]
            best[j] = value if value > best[j] else best[j]


@compiled
def predict_rows(wide: Any, upper: Any, lower: Any, share: Any, out: Any) -> None:
    """Class indices (R, G, C) of logits (h, G, K, C) resized to R rows: row r lies `share[r]` of the way from
    row `upper[r]` to row `lower[r]`. Of equal classes the first."""
    logits = np.empty(wide.shape[2:], np.float32)
    best = np.empty(RUN, np.float32)
    first = np.empty(RUN, np.int32)
    for r in range(len(out)):
        for g in range(wide.shape[1]):
            resize_run(wide[upper[r], g], wide[lower[r], g], share[r], logits, best, first)
            for j in range(RUN):
                out[r, g, j] = first[j]


@compiled
def softmax_rows(
    wide: Any, upper: Any, lower: Any, share: Any, truth: Any,
    others: Any, right: Any, below: Any, rest: Any, total: Any, squares: Any,
) -> None:  # fmt: skip
    """The softmax of logits resized to R rows (see `predict_rows`), in parts; `truth` (R, G, C) are the classes.

    Written to others (R, G, K, C): e to each logit less the highest of its pixel, 0 for the true class. To the
    rest, (R, G, C): right, whether the true class is the first of the highest; below, how far its logit is below
    the highest; rest, the sum of others; total, the true class included; squares, the sum of squares of all.
    """
    classes = wide.shape[2]
    best = np.empty(RUN, np.float32)
    first = np.empty(RUN, np.int32)
    for r in range(len(truth)):
        for g in range(wide.shape[1]):
            e = others[r, g]
            resize_run(wide[upper[r], g], wide[lower[r], g], share[r], e, best, first)
            for j in range(RUN):
                of = truth[r, g, j]
                right[r, g, j] = of == first[j]
                below[r, g, j] = best[j] - e[of, j] if of < classes else 0
            for k in range(classes):
                for j in range(RUN):
                    e[k, j] = exp2((e[k, j] - best[j]) * _LOG2_E)
            for j in range(RUN):
                of = truth[r, g, j]
                best[j] = 0
                if of < classes:
                    best[j] = e[of, j]
                    e[of, j] = 0
            sum_run(e, rest[r, g], squares[r, g])
            for j in range(RUN):
                total[r, g, j] = rest[r, g, j] + best[j]
                squares[r, g, j] += best[j] * best[j]


@compiled
def sum_run(values: Any, total: Any, squares: Any) -> None:
    """The sum over the classes (C,) of values (K, C), and of their squares."""
    total[:] = 0
    squares[:] = 0
    for k in range(values.shape[0]):
        for j in range(RUN):
            total[j] += values[k, j]
            squares[j] += values[k, j] * values[k, j]


@compiled
def back_run(values: Any, slope: Any, share: Any, upper: Any, lower: Any) -> None:
    """Adds values (K, C) times slope (C,) to the two rows between which they lie; they are used up."""
    for k in range(values.shape[0]):
        for j in range(RUN):
            value = values[k, j] * slope[j]
            part = share * value
            lower[k, j] += part
            values[k, j] = value - part
        for j in range(RUN):
            upper[k, j] += values[k, j]


@compiled
def gradient_rows(
    others: Any, truth: Any, rest: Any, slope: Any, upper: Any, lower: Any, share: Any, gradient: Any
) -> None:
    """Adds to the gradient (h, G, K, C) of the logits that R rows were resized from (see `softmax_rows`).

    The gradient of a resized logit is `others`, of the true class less `rest`, times slope (R, G, C). others is
    used up.
    """
    classes = others.shape[2]
    for r in range(len(others)):
        for g in range(others.shape[1]):
            values = others[r, g]
            for j in range(RUN):
                of = truth[r, g, j]
                if of < classes:
                    values[of, j] = -rest[r, g, j]
            back_run(values, slope[r, g], share[r], gradient[upper[r], g], gradient[lower[r], g])
