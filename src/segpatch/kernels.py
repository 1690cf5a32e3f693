"""Inner loops of a step on a CPU, compiled for the processor when they are first called (numba).

In those of `segpatch.tail` an array of pixels is (R, G, C): R rows of G runs of C neighbouring pixels, C being
`RUN`; of their classes (R, G, K, C). Loops over a run's pixels lie innermost and touch few arrays, so that they
compile to wide instructions, and a run with all its classes stays in a core's fastest cache from loop to loop.

All of it is in single precision and lets go of the interpreter's lock. Indices are not checked.
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
    # Of the polynomials that are 1 at 0, the one whose largest relative error for |f| <= 1/2 is least: 9.2e-8.
    value = np.float32(1.3264708213e-3)
    value = value * f + np.float32(9.6715135806e-3)
    value = value * f + np.float32(5.5507338357e-2)
    value = value * f + np.float32(2.4022242065e-1)
    value = np.float32(value * f + np.float32(6.9314697749e-1))
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
    highest: Any, rest: Any, right: Any, labelled: Any, below: Any, total: Any, squares: Any,
) -> None:  # fmt: skip
    """What a loss needs of the softmax of logits resized to R rows (see `predict_rows`), classes truth (R, G, C).

    Written, (R, G, C): highest, the highest logit; rest, the sum of e to each logit less the highest, without the
    true class; right, 1 where the true class is the first of the highest, else 0; labelled, 1 where it is a class,
    else 0; below, how far its logit is below the highest; total, the sum with the true class; squares, that of
    squares.
    """
    classes = wide.shape[2]
    with_none = np.empty((classes + 1, RUN), np.float32)  # what has no true class looks it up in one more
    logits = with_none[:classes]
    first = np.empty(RUN, np.int32)
    at = np.empty(RUN, np.int32)
    for r in range(len(truth)):
        for g in range(wide.shape[1]):
            best = highest[r, g]
            resize_run(wide[upper[r], g], wide[lower[r], g], share[r], logits, best, first)
            for j in range(RUN):
                at[j] = min(truth[r, g, j], classes)
            for j in range(RUN):
                right[r, g, j] = at[j] == first[j]
            for j in range(RUN):
                labelled[r, g, j] = at[j] < classes
            with_none[classes] = best
            for j in range(RUN):
                below[r, g, j] = best[j] - with_none[at[j], j]
                with_none[at[j], j] = -np.inf
            sum_run(logits, best, rest[r, g], squares[r, g])
            for j in range(RUN):
                of_truth = exp2(-below[r, g, j] * _LOG2_E) * labelled[r, g, j]
                total[r, g, j] = rest[r, g, j] + of_truth
                squares[r, g, j] += of_truth * of_truth


@compiled
def gradient_rows(
    wide: Any, upper: Any, lower: Any, share: Any, truth: Any, highest: Any, rest: Any, slope: Any, gradient: Any
) -> None:
    """Adds to the gradient of wide (h, G, K, C), from which R rows were resized, what their loss gives.

    The gradient of a resized logit is e to it less the highest, of the true class less `rest`, times slope
    (R, G, C). highest and rest: of `softmax_rows`.
    """
    classes = wide.shape[2]
    with_none = np.empty((classes + 1, RUN), np.float32)
    e = with_none[:classes]
    for r in range(len(truth)):
        for g in range(wide.shape[1]):
            above, beneath, best = wide[upper[r], g], wide[lower[r], g], highest[r, g]
            for k in range(classes):
                for j in range(RUN):
                    logit = above[k, j] + share[r] * (beneath[k, j] - above[k, j])
                    e[k, j] = exp2((logit - best[j]) * _LOG2_E)
            for j in range(RUN):
                with_none[min(truth[r, g, j], classes), j] = -rest[r, g, j]
            back_run(e, slope[r, g], share[r], gradient[upper[r], g], gradient[lower[r], g])


@compiled
def sum_run(values: Any, highest: Any, total: Any, squares: Any) -> None:
    """The sum over the classes (C,) of e to values (K, C) less the highest (C,), and of its squares."""
    total[:] = 0
    squares[:] = 0
    for k in range(values.shape[0]):
        for j in range(RUN):
            e = exp2((values[k, j] - highest[j]) * _LOG2_E)
            total[j] += e
            squares[j] += e * e


@compiled
def back_run(values: Any, slope: Any, share: Any, upper: Any, lower: Any) -> None:
    """Adds values (K, C) times slope (C,) to the two rows between which they lie."""
    to_upper = np.float32(1) - share
    for k in range(values.shape[0]):
        for j in range(RUN):
            value = values[k, j] * slope[j]
            upper[k, j] += to_upper * value
            lower[k, j] += share * value


@compiled
def resize_image(
    image: Any, top: Any, bottom: Any, down: Any, left: Any, right: Any, along: Any, out: Any
) -> None:
    """The pixels (h, w, 3) in [0, 1] of a resized image (H, W, 3) uint8: row r lies `down[r]` of the way from row
    `top[r]` to row `bottom[r]`, column c `along[c]` from `left[c]` to `right[c]`."""
    start = left.min()
    rows = np.empty(3 * (right.max() + 1 - start), np.float32)
    for r in range(out.shape[0]):
        above, below = image[top[r], start:].reshape(-1), image[bottom[r], start:].reshape(-1)
        for i in range(len(rows)):
            value = np.float32(above[i])
            rows[i] = (value + down[r] * (np.float32(below[i]) - value)) / np.float32(255)
        for c in range(out.shape[1]):
            low, high = 3 * (left[c] - start), 3 * (right[c] - start)
            for k in range(3):
                out[r, c, k] = rows[low + k] + along[c] * (rows[high + k] - rows[low + k])
