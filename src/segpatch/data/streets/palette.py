"""Colours drawn from wide palettes shared by all classes, so that colour alone does not name a class."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

from segpatch.data.streets.canvas import Colour


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """RGB in 0 to 255 of a hue in turns, saturation and value in [0, 1]."""
    r, g, b = colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))
    return (r * 255, g * 255, b * 255)


def pick_colour(r: Sequence[float]) -> Colour:
    """Any colour from four uniform numbers: half greyish, a third earthy, the rest vivid; dark to light."""
    value = 0.12 + 0.85 * r[2]
    if r[0] < 0.45:
        return hsv(r[1], 0.15 * r[3], value)
    if r[0] < 0.78:
        return hsv(0.02 + 0.13 * r[1], 0.15 + 0.4 * r[3], value)
    return hsv(r[1], 0.3 + 0.5 * r[3], value)


def pick_ground(r: Sequence[float], saturation: float) -> Colour:
    """A ground colour from four uniform numbers: dark to light, any hue, mostly warm."""
    hue = 0.02 + 0.12 * r[1] if r[0] < 0.75 else 0.5 + 0.2 * r[1]
    return hsv(hue, saturation * r[3], 0.24 + 0.45 * r[2])


def pick_leaf(r: Sequence[float]) -> Colour:
    """A plant colour from four uniform numbers: green, yellow, brown, grey, now and then red."""
    hue = 0.18 + 0.18 * r[1] if r[0] < 0.72 else 0.03 + 0.16 * r[1]
    return hsv(hue if r[0] < 0.96 else r[1], 0.12 + 0.5 * r[3], 0.2 + 0.55 * r[2])


def pick_haze(r: Sequence[float]) -> Colour:
    """A sky or haze colour from four uniform numbers: blue, grey or orange; dusk to glare."""
    if r[0] < 0.5:
        return hsv(0.54 + 0.1 * r[1], 0.1 + 0.5 * r[3], 0.5 + 0.47 * r[2])
    if r[0] < 0.82:
        return hsv(0.6, 0.1 * r[3], 0.45 + 0.53 * r[2])
    return hsv(0.92 + 0.2 * r[1], 0.1 + 0.45 * r[3], 0.35 + 0.6 * r[2])


def scale(colour: Colour, k: float) -> Colour:
    """The colour, k times as bright."""
    return (colour[0] * k, colour[1] * k, colour[2] * k)
