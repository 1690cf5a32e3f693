"""Cars: a side outline pulled out to a width, with windows, wheels and lamps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from segpatch.data.streets.boxes import paint_wheels, underside
from segpatch.data.streets.canvas import Canvas, Colour, Frame, Point
from segpatch.data.streets.palette import hsv, pick_colour, scale
from segpatch.data.streets.scene import Item

CAR = 13
Outline = Sequence[tuple[float, float]]  # (along, up), clockwise from the lower rear corner
# Unit length and height: the body, then the band of side windows.
CARS: tuple[tuple[Outline, Outline], ...] = (
    (  # hatchback
        (
            (-0.5, 0.15),
            (-0.5, 0.58),
            (-0.46, 0.66),
            (-0.36, 0.97),
            (0.08, 1.0),
            (0.24, 0.64),
            (0.46, 0.55),
            (0.5, 0.4),
            (0.5, 0.15),
        ),
        ((-0.40, 0.66), (-0.33, 0.91), (0.06, 0.93), (0.18, 0.66)),
    ),
    (  # saloon
        (
            (-0.5, 0.15),
            (-0.5, 0.6),
            (-0.34, 0.66),
            (-0.2, 0.98),
            (0.08, 1.0),
            (0.24, 0.66),
            (0.47, 0.57),
            (0.5, 0.4),
            (0.5, 0.15),
        ),
        ((-0.27, 0.68), (-0.18, 0.92), (0.06, 0.93), (0.18, 0.68)),
    ),
    (  # estate
        ((-0.5, 0.2), (-0.5, 0.6), (-0.47, 0.98), (0.1, 1.0), (0.23, 0.66), (0.47, 0.6), (0.5, 0.45), (0.5, 0.2)),
        ((-0.44, 0.64), (-0.42, 0.91), (0.08, 0.92), (0.17, 0.66)),
    ),
    (  # van
        ((-0.5, 0.14), (-0.5, 0.55), (-0.48, 0.98), (0.2, 1.0), (0.36, 0.62), (0.48, 0.5), (0.5, 0.14)),
        ((-0.1, 0.58), (-0.1, 0.88), (0.17, 0.89), (0.29, 0.6)),
    ),
)


def paint_car(canvas: Canvas, item: Item) -> None:
    """A car; its shape, size and colours come from the item's numbers."""
    r = item.r
    which = int(r[0] * 4)
    length, width = 3.7 + 1.1 * r[1], 1.7 + 0.2 * r[2]
    height = (1.42, 1.4, 1.6, 1.95)[which] + 0.15 * r[3]
    frame = canvas.frame(item.s, item.lateral, item.heading)
    paint = pick_colour(r[4:8])
    glass = hsv(r[8], 0.3 * r[9], 0.12 + 0.3 * r[10])
    body, windows = ([(a * length, u * height) for a, u in shape] for shape in CARS[which])
    underside(canvas, frame, length, width, CAR)
    wheels = (-0.31 * length, 0.31 * length)
    paint_wheels(canvas, frame, wheels, width / 2 - 0.05, 0.33, CAR, far=True)
    for (a, u), (b, v) in pairwise(body):
        panel = glass if min(u, v) > 0.54 * height and abs(u - v) > 0.22 * height and which != 3 else paint
        if which == 3 and a > 0 and abs(u - v) > 0.3 * height and u > 0.6 * height:
            panel = glass
        inset = 0.1 if panel is glass else 0.0
        if (
            canvas.face(
                frame,
                [(a, -width / 2, u), (a, width / 2, u), (b, width / 2, v), (b, -width / 2, v)],
                paint,
                CAR,
                _normal(a, u, b, v),
            )
            and inset
        ):
            _inset(canvas, frame, (a, u), (b, v), width, glass)
    for sign in (-1.0, 1.0):
        side = sign * width / 2
        if canvas.face(frame, [(a, side, u) for a, u in body], scale(paint, 0.95), CAR, (0.0, sign, 0.0)):
            canvas.face(frame, [(a, side, u) for a, u in windows], glass, None, (0.0, sign, 0.2))
            middle = windows[1][0] * 0.3 + windows[2][0] * 0.7 - 0.5
            canvas.face(
                frame,
                [
                    (middle, side, 0.62 * height),
                    (middle, side, 0.93 * height),
                    (middle + 0.09, side, 0.93 * height),
                    (middle + 0.09, side, 0.62 * height),
                ],
                paint,
                None,
                (0.0, sign, 0.0),
            )
            canvas.face(
                frame,
                [
                    (-length / 2, side, 0.15 * height),
                    (-length / 2, side, 0.25 * height),
                    (length / 2, side, 0.25 * height),
                    (length / 2, side, 0.15 * height),
                ],
                scale(paint, 0.5),
                None,
                (0.0, sign, 0.0),
            )
    paint_wheels(canvas, frame, wheels, width / 2 + 0.01, 0.33, CAR)
    _lamps(canvas, frame, length, width, height * 0.46, r[11])


def _inset(
    canvas: Canvas,
    frame: Frame,
    low: tuple[float, float],
    high: tuple[float, float],
    width: float,
    glass: Colour,
) -> None:
    (a, u), (b, v) = low, high
    t, w = 0.12, width / 2 - 0.12
    p, q = (a + (b - a) * t, u + (v - u) * t), (b + (a - b) * t, v + (u - v) * t)
    canvas.polygon(
        [
            frame.at(p[0], -w, p[1]),
            frame.at(p[0], w, p[1]),
            frame.at(q[0], w - 0.08, q[1]),
            frame.at(q[0], -w + 0.08, q[1]),
        ],
        glass,
        None,
        (0.0, 0.6, -0.5),
    )


def _normal(a: float, u: float, b: float, v: float) -> Point:
    """Outward normal (along, across, up) of the panel pulled out of the edge (a, u)-(b, v)."""
    along, up = u - v, b - a
    size = max((along * along + up * up) ** 0.5, 1e-6)
    return (along / size, 0.0, up / size)


def _lamps(canvas: Canvas, frame: Frame, length: float, width: float, up: float, r: float) -> None:
    for end, colour in ((-1.0, (190.0, 30.0, 25.0)), (1.0, (235.0, 235.0, 215.0))):
        a = end * (length / 2 + 0.01)
        for sign in (-1.0, 1.0):
            x, y = sign * (width / 2 - 0.05), sign * (width / 2 - 0.36)
            canvas.face(
                frame,
                [(a, x, up), (a, y, up), (a, y, up + 0.17), (a, x, up + 0.17)],
                colour,
                None,
                (end, 0.0, 0.0),
            )
        canvas.face(
            frame,
            [(a, -0.26, up - 0.2), (a, 0.26, up - 0.2), (a, 0.26, up - 0.08), (a, -0.26, up - 0.08)],
            (230, 225, 200 - 120 * r),
            None,
            (end, 0.0, 0.0),
        )
        canvas.face(
            frame,
            [(a, -width / 2, 0.24), (a, width / 2, 0.24), (a, width / 2, 0.4), (a, -width / 2, 0.4)],
            (45, 45, 48),
            None,
            (end, 0.0, 0.0),
        )
