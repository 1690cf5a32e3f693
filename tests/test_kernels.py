"""The compiled loops against NumPy written out, and against themselves as plain Python."""

from __future__ import annotations

import numpy as np
import pytest

from segpatch import kernels
from segpatch.resizing import RUN
from segpatch.types import IGNORE

CLASSES, SOURCE = 4, 3
UPPER, LOWER = np.array([0, 0, 1, 2]), np.array([1, 0, 2, 2])
SHARE = np.array([0.25, 0, 0.75, 0], np.float32)
AS = pytest.mark.parametrize("how", ["compiled", "interpreted"])


def function(name: str, how: str, monkeypatch: pytest.MonkeyPatch):
    """One of the loops; interpreted with all that it calls."""
    if how == "compiled":
        return getattr(kernels, name)
    runs = ("exp2", "resize_run", "sum_run", "back_run")
    for other in (*runs, "predict_rows", "softmax_rows", "gradient_rows", "resize_image"):
        loop = getattr(kernels, other)
        monkeypatch.setattr(kernels, other, getattr(loop, "py_func", loop))
    return getattr(kernels, name)


@pytest.fixture
def wide() -> np.ndarray:
    logits = np.random.default_rng(0).normal(size=(SOURCE, 2, CLASSES, RUN)).astype(np.float32) * 3
    logits[0, 0, 2] = logits[0, 0, 1]  # two classes alike
    return logits


@pytest.fixture
def truth() -> np.ndarray:
    labels = np.random.default_rng(1).integers(0, CLASSES, (4, 2, RUN)).astype(np.uint8)
    labels[0, 0, :9] = IGNORE
    return labels


def resized(wide: np.ndarray) -> np.ndarray:
    share = SHARE.reshape(-1, 1, 1, 1).astype(np.float64)
    return (1 - share) * wide[UPPER].astype(np.float64) + share * wide[LOWER]


@AS
def test_exp2(how, monkeypatch):
    exp2 = function("exp2", how, monkeypatch)
    powers = [0, -1, -0.5, -1e-9, -3.14159, -17.3, -114.99, *np.linspace(-115, 0, 997)]
    for power in powers:
        assert exp2(np.float32(power)) == pytest.approx(2.0 ** float(np.float32(power)), rel=2.5e-7)
    assert exp2(np.float32(-115.5)) == exp2(np.float32(-np.inf)) == 2.0**-115, "no smaller number"
    assert np.isnan(exp2(np.float32(np.nan)))


@AS
def test_predictions_are_the_first_of_the_highest(wide, how, monkeypatch):
    out = np.full((4, 2, RUN), 99, np.uint8)
    function("predict_rows", how, monkeypatch)(wide, UPPER, LOWER, SHARE, out)
    wanted = resized(wide)
    assert (out == wanted.argmax(2)).all()
    tied = wanted[1, 0].max(0) == wanted[1, 0, 1]
    assert tied.any() and (out[1, 0][tied] == 1).all()


def softmax(wide: np.ndarray, truth: np.ndarray, run=kernels.softmax_rows):
    """What is written, by pixel."""
    written = np.full((7, *truth.shape), 99, np.float32)
    run(wide, UPPER, LOWER, SHARE, truth, *written)
    return written


@AS
def test_softmax_and_its_gradient(wide, truth, how, monkeypatch):
    written = softmax(wide, truth, function("softmax_rows", how, monkeypatch))
    highest, rest, right, labelled, below, total, squares = written

    logits = resized(wide)
    e = np.exp(logits - logits.max(2, keepdims=True))
    one_hot = truth[:, :, None] == np.arange(CLASSES).reshape(-1, 1)
    close = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(highest, logits.max(2), **close)
    np.testing.assert_allclose(total, e.sum(2), **close)
    np.testing.assert_allclose(rest, np.where(one_hot, 0, e).sum(2), rtol=1e-5, atol=0)
    np.testing.assert_allclose(squares, (e**2).sum(2), **close)
    assert (right == (logits.argmax(2) == truth)).all()
    assert (labelled == (truth != IGNORE)).all()
    of_truth = np.where(one_hot, logits, 0).sum(2)
    np.testing.assert_allclose(below, np.where(labelled == 1, logits.max(2) - of_truth, 0), **close)

    slope = np.random.default_rng(2).normal(size=truth.shape).astype(np.float32) * labelled
    gradient = np.ones_like(wide)
    back = function("gradient_rows", how, monkeypatch)
    back(wide, UPPER, LOWER, SHARE, truth, highest, rest, slope / total, gradient)
    of_logits = (e / e.sum(2, keepdims=True) - one_hot) * slope[:, :, None]
    wanted = np.ones(wide.shape)
    for r in range(4):  # a slow loop: each row gives to the two that it lies between
        wanted[UPPER[r]] += (1 - SHARE[r]) * of_logits[r]
        wanted[LOWER[r]] += SHARE[r] * of_logits[r]
    np.testing.assert_allclose(gradient, wanted, rtol=1e-4, atol=1e-5)


def test_what_is_no_number_stays_none(wide, truth):
    wide[0, 1, 3, 5] = np.nan
    total = softmax(wide, truth)[5]
    assert np.isnan(total[0, 1, 5]) and np.isfinite(total[2:]).all() and np.isfinite(total[0, 0]).all()


def test_a_folder_that_may_not_be_written_to_only_costs_the_time_to_compile(monkeypatch):
    def njit(*, cache: bool = False, **options: object):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: ("compiled", function)

    monkeypatch.setattr(kernels, "njit", njit)
    assert kernels.compiled(len) == ("compiled", len)


@AS
def test_a_resized_image_is_the_slow_loop(how, monkeypatch):
    draw = np.random.default_rng(3)
    image = draw.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    top, bottom, down = np.array([0, 1, 4, 4]), np.array([1, 1, 4, 4]), np.array([0.5, 0, 0, 0.25], np.float32)
    left, right, along = np.array([6, 3, 2]), np.array([6, 4, 2]), np.array([0, 0.125, 0], np.float32)  # mirrored
    out = np.empty((4, 3, 3), np.float32)
    function("resize_image", how, monkeypatch)(image, top, bottom, down, left, right, along, out)
    for r in range(4):
        for c in range(3):
            above = image[top[r], left[c]] * (1 - along[c]) + image[top[r], right[c]] * along[c]
            below = image[bottom[r], left[c]] * (1 - along[c]) + image[bottom[r], right[c]] * along[c]
            wanted = (above * (1 - down[r]) + below * down[r]) / 255
            np.testing.assert_allclose(out[r, c], wanted, rtol=0, atol=1e-6)
    assert (out[1, 0] == image[1, 6] / np.float32(255)).all(), "bit for bit where nothing is to be mixed"
