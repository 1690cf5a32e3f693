"""Draw the numbers of a street: camera, light, cross-section, and what stands where. No pixels here."""

from __future__ import annotations

import math

import numpy as np

from segpatch.data.streets.canvas import Camera, Colour, Light
from segpatch.data.streets.layout import place_items
from segpatch.data.streets.palette import pick_ground, pick_haze, pick_leaf
from segpatch.data.streets.scene import Dice, Scene, Side


def draw_scene(generator: np.random.Generator) -> Scene:
    """All the numbers of one street; independent of the size it is painted at."""
    d = Dice(generator)
    lane = d.between(2.8, 3.6)
    count = 1 + int(d.between(0, 3.99))
    half = lane * count / 2
    sides = (_draw_side(d, half), _draw_side(d, half))
    lines = tuple(lane * (i + 1) - half for i in range(count - 1))
    own = lane * (int(d.between(0, count)) + 0.5) - half
    camera = Camera(
        focal=d.between(0.95, 1.5),
        horizon=d.between(0.36, 0.54),
        height=d.between(1.3, 2.4),
        yaw=d.between(-0.13, 0.13),
        lateral=own + d.between(-0.8, 0.8) if d.chance(0.85) else half + d.between(0, 2),
        bend=d.between(-0.004, 0.004) if d.chance(0.6) else 0.0,
    )
    crossing = None
    if d.chance(0.35):
        start = d.between(12, 40)
        crossing = (start, start + d.between(6, 12))
    rails = own + (lane if own < 0 else -lane) * d.between(0.9, 1.1) if d.chance(0.5) else None
    scene = Scene(
        camera=camera,
        light=_draw_light(d),
        sides=sides,
        crossing=crossing,
        lanes=lines,
        rails=rails,
        ground=(
            pick_ground(d.numbers(4), 0.15),
            _marking(d),
            pick_ground(d.numbers(4), 0.25),
            pick_leaf(d.numbers(4)) if d.chance(0.6) else pick_ground(d.numbers(4), 0.45),
        ),
        paving=1 + int(d.chance(0.35)),
        sky=(
            pick_haze(d.numbers(4)),
            pick_haze(d.numbers(4)),
            pick_haze(d.numbers(4)),
            d.between(-0.3, 0.75),
        ),
        tone=(
            d.between(0.75, 1.35),
            *(d.between(0.86, 1.15) for _ in range(3)),
            d.between(0.75, 1.35),
            d.between(1.0, 6.0),
            d.between(0.3, 0.7),
        ),
        offsets=tuple(int(d.between(0, 256)) for _ in range(6)),
        items=(),
    )
    return place_items(scene, d, lane, own)


def _draw_side(d: Dice, half: float) -> Side:
    road = half + (d.between(2.0, 2.5) if d.chance(0.45) else d.between(0.2, 0.7))
    verge = road + (d.between(0.8, 3.0) if d.chance(0.4) else 0.0)
    pavement = verge + (d.between(1.6, 4.5) if d.chance(0.9) else 0.0)
    front = pavement + (d.between(0.0, 0.5) if d.chance(0.5) else d.between(1.0, 7.0))
    return Side(
        road=road,
        verge=verge,
        verge_paved=d.chance(0.15),
        pavement=pavement,
        front=front,
        yard_paved=d.chance(0.3),
    )


def _marking(d: Dice) -> Colour:
    bright = d.between(170, 250)
    return (
        (bright, bright * 0.82, bright * 0.3) if d.chance(0.2) else (bright, bright, bright * d.between(0.85, 1))
    )


def _draw_light(d: Dice) -> Light:
    azimuth, elevation = d.between(-math.pi, math.pi), d.between(0.15, 1.2)
    flat = math.cos(elevation)
    sunny = d.chance(0.6)
    return Light(
        sun=(flat * math.sin(azimuth), math.sin(elevation), flat * math.cos(azimuth)),
        ambient=d.between(0.6, 0.8) if sunny else d.between(0.85, 1.0),
        direct=d.between(0.4, 0.75) if sunny else d.between(0.0, 0.15),
        haze=pick_haze(d.numbers(4)),
        visibility=d.between(60, 400) if d.chance(0.6) else 900.0,
    )
