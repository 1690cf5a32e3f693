"""Colours that can be read, numbers as text, and figures that come out the same twice."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import pytest

from segpatch.plots import Series, classes_svg, contrast, figure, heat_colour, text_on, training_svg


def test_contrast_by_hand():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#777777") == pytest.approx(1)
    assert contrast("#ffffff", "#767676") == pytest.approx(4.54, abs=0.01)  # the grey WCAG tutorials quote


@pytest.mark.parametrize("share", [-0.1, 0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0, 2.0])
def test_numbers_can_be_read_on_every_colour(share):
    background, ink = heat_colour(share * 0.3, 0.3)
    assert contrast(background, ink) >= 4.5


def test_more_is_always_darker():
    against_white = [contrast(heat_colour(k / 50, 1.0)[0], "#ffffff") for k in range(51)]
    assert all(a < b for a, b in pairwise(against_white))


def test_colours_clamp_and_missing_is_grey():
    assert heat_colour(-1.0, 0.5) == heat_colour(0.0, 0.5)
    assert heat_colour(9.0, 0.5) == heat_colour(0.5, 0.5)
    assert heat_colour(None, 0.5)[0] not in (heat_colour(k / 20, 0.5)[0] for k in range(11))
    assert text_on("#ffffff") == "#000000" and text_on("#000000") == "#ffffff"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.21449, "0.214"), (-0.0123, "−0.012"), (-0.0001, "0.000"), (None, "–")],
)
def test_figure(value, text):
    assert figure(value) == text


def test_classes_svg_is_whole_the_same_twice_and_takes_any_name():
    series = [
        Series("clean", "clean", [0.9, None, 0.5]),
        Series("own", "own: a$b^/paper/s0", [0.4, None, None]),
        Series("foreign", "_f & <g>", [0.8, None, 0.45]),
    ]
    one, other = (classes_svg(["road", "$x_{", "c<a>r"], series) for _ in range(2))
    assert one == other
    text = "".join(ElementTree.fromstring(one).itertext())
    assert "road" in text and "$x_{" in text and "c<a>r" in text and "a$b^" in text


def test_training_svg_takes_one_step_and_gaps():
    ElementTree.fromstring(training_svg([{"step": 1, "loss": 2.0, "correct": 0.5}]))
    rows = [{"step": k, "loss": None if k == 3 else 1.0, "correct": 0.5} for k in range(60)]
    ElementTree.fromstring(training_svg(rows))
