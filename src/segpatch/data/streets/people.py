"""People, riders, bicycles and motorcycles, built of rounded sticks so that every view is right."""

from __future__ import annotations

import math

from segpatch.data.streets.canvas import Canvas, Colour, Frame
from segpatch.data.streets.palette import hsv, pick_colour, scale
from segpatch.data.streets.scene import Item

PERSON, RIDER, MOTORCYCLE, BICYCLE = 11, 12, 17, 18
DARK: Colour = (30, 30, 33)


def paint_person(canvas: Canvas, item: Item) -> None:
    """Someone walking or standing: shoes, trousers or skirt, coat, arms, head and hair, perhaps a bag."""
    r = item.r
    frame = canvas.frame(item.s, item.lateral, item.heading)
    k = (1.55 + 0.35 * r[0]) / 1.75 if r[1] < 0.88 else 0.7
    coat, trousers, skin = (
        pick_colour(r[2:6]),
        pick_colour(r[6:10]),
        hsv(0.06, 0.3 + 0.3 * r[10], 0.3 + 0.6 * r[10]),
    )
    hair = hsv(0.08, 0.5 * r[11], 0.08 + 0.6 * r[12] * r[13])
    stride = (0.34 * r[14] - 0.05) * k
    hip, neck = 0.88 * k, 1.42 * k
    for sign in (-1.0, 1.0):
        foot = sign * stride
        canvas.limb(
            frame,
            (0, sign * 0.09 * k, hip),
            (foot * 0.45, sign * 0.1 * k, hip * 0.52),
            (0.11 * k, 0.08 * k),
            scale(trousers, 1 - 0.12 * sign),
            PERSON,
        )
        canvas.limb(
            frame,
            (foot * 0.45, sign * 0.1 * k, hip * 0.52),
            (foot, sign * 0.11 * k, 0.08),
            (0.08 * k, 0.06 * k),
            scale(trousers, 1 - 0.12 * sign),
            PERSON,
        )
        canvas.limb(
            frame,
            (foot, sign * 0.11 * k, 0.05),
            (foot + 0.14, sign * 0.11 * k, 0.05),
            (0.05, 0.05),
            DARK,
            PERSON,
        )
    canvas.limb(
        frame,
        (-stride * 0.6, -0.26 * k, 0.85 * k),
        (0, -0.23 * k, neck - 0.06),
        (0.055 * k, 0.07 * k),
        scale(coat, 0.8),
        PERSON,
    )
    low = hip * (0.55 if r[15] < 0.2 else 0.92)
    chest = [
        frame.at(0, a * k, u)
        for a, u in (
            (-0.17, low),
            (0.17, low),
            (0.24, neck - 0.04),
            (0.12, neck + 0.03),
            (-0.12, neck + 0.03),
            (-0.24, neck - 0.04),
        )
    ]
    canvas.limb(frame, (0, 0, hip), (0, 0, neck - 0.12), (0.15 * k, 0.15 * k), coat, PERSON)
    canvas.polygon(chest, coat, PERSON)
    canvas.limb(
        frame,
        (stride * 0.6, 0.26 * k, 0.85 * k),
        (0, 0.23 * k, neck - 0.06),
        (0.055 * k, 0.07 * k),
        scale(coat, 0.88),
        PERSON,
    )
    if r[16] < 0.3:
        bag = pick_colour(r[17:21])
        canvas.limb(frame, (-0.17, 0, neck - 0.12), (-0.17, 0, hip + 0.1), (0.12 * k, 0.14 * k), bag, PERSON)
    canvas.limb(frame, (0, 0, neck), (0, 0, neck + 0.08), (0.055 * k, 0.055 * k), skin, PERSON)
    canvas.limb(frame, (0.02, 0, neck + 0.15 * k), (0.02, 0, neck + 0.21 * k), (0.1 * k, 0.1 * k), skin, PERSON)
    canvas.limb(
        frame, (-0.03, 0, neck + 0.22 * k), (-0.03, 0, neck + 0.26 * k), (0.1 * k, 0.095 * k), hair, PERSON
    )


def _rider(
    canvas: Canvas,
    frame: Frame,
    item: Item,
    saddle: tuple[float, float],
    grip: tuple[float, float],
    pedal: tuple[float, float],
) -> None:
    """A seated rider between saddle, handlebar grip and foot rest, each (along, up)."""
    r = item.r
    coat, trousers, helmet = pick_colour(r[2:6]), pick_colour(r[6:10]), pick_colour(r[10:14])
    (sa, su), (ga, gu), (pa, pu) = saddle, grip, pedal
    shoulder = (sa + (ga - sa) * 0.42, su + 0.56)
    for sign in (-1.0, 1.0):
        turn = 0.13 * sign * (1 if r[14] < 0.5 else -1)
        knee = (sa + 0.36, su - 0.14 + turn * 0.6)
        canvas.limb(
            frame,
            (sa, sign * 0.1, su + 0.03),
            (knee[0], sign * 0.16, knee[1]),
            (0.1, 0.08),
            scale(trousers, 1 - 0.12 * sign),
            RIDER,
        )
        canvas.limb(
            frame,
            (knee[0], sign * 0.16, knee[1]),
            (pa + turn, sign * 0.13, pu + turn),
            (0.075, 0.055),
            scale(trousers, 1 - 0.12 * sign),
            RIDER,
        )
        canvas.limb(
            frame,
            (pa + turn - 0.05, sign * 0.13, pu + turn),
            (pa + turn + 0.13, sign * 0.13, pu + turn),
            (0.05, 0.045),
            DARK,
            RIDER,
        )
        canvas.limb(
            frame,
            (shoulder[0], sign * 0.2, shoulder[1] - 0.02),
            (ga - 0.1, sign * 0.27, gu + 0.03),
            (0.07, 0.05),
            scale(coat, 0.85),
            RIDER,
        )
    canvas.limb(frame, (sa, 0, su + 0.06), (shoulder[0], 0, shoulder[1]), (0.15, 0.15), coat, RIDER)
    canvas.polygon(
        [
            frame.at(sa, -0.16, su),
            frame.at(sa, 0.16, su),
            frame.at(shoulder[0], 0.23, shoulder[1]),
            frame.at(shoulder[0], -0.23, shoulder[1]),
        ],
        scale(coat, 1.05),
        RIDER,
    )
    head = (shoulder[0] + 0.06, shoulder[1] + 0.24)
    skin = hsv(0.06, 0.3 + 0.3 * r[15], 0.3 + 0.6 * r[15])
    canvas.limb(frame, (shoulder[0], 0, shoulder[1]), (head[0], 0, head[1]), (0.07, 0.08), skin, RIDER)
    canvas.limb(
        frame, (head[0], 0, head[1] + 0.04), (head[0] + 0.02, 0, head[1] + 0.07), (0.13, 0.12), helmet, RIDER
    )


def _wheel(
    canvas: Canvas, frame: Frame, along: float, radius: float, tyre: float, label: int, solid: bool
) -> None:
    canvas.limb(frame, (along, 0, tyre), (along, 0, 2 * radius - tyre), (tyre, tyre), DARK, label)
    if solid:
        canvas.disc(frame, (along, 0, radius), radius, DARK, label)
        canvas.disc(frame, (along, 0, radius), radius * 0.62, (120, 120, 125), None)
        canvas.disc(frame, (along, 0, radius), radius * 0.25, (60, 60, 63), None)
        return
    rim = [
        frame.at(along + radius * math.cos(i * math.pi / 9), 0, radius + radius * math.sin(i * math.pi / 9))
        for i in range(18)
    ]
    if min(p[2] for p in rim) < 0.6:
        return
    outline = [canvas.project(p) for p in rim]
    canvas.label_pen.polygon(outline, fill=label)
    thick = max(1, round(2.4 * tyre * canvas.focal / frame.z))
    ink = canvas.shade(DARK, (0, 0.3, -0.8), frame.z)
    canvas.pen.line([*outline, outline[0]], fill=ink, width=thick)
    if thick > 1:
        grey = canvas.shade((140, 140, 145), (0, 0.3, -0.8), frame.z)
        for i in range(0, 9, 2):
            canvas.pen.line([outline[i], outline[i + 9]], fill=grey, width=1)


def paint_bicycle(canvas: Canvas, item: Item) -> None:
    """A bicycle: thin wheels with spokes, a diamond frame, saddle and handlebar. Labels fill the wheels."""
    frame = canvas.frame(item.s, item.lateral, item.heading)
    colour = pick_colour(item.r[16:20])
    _wheel(canvas, frame, -0.53, 0.34, 0.03, BICYCLE, False)
    _wheel(canvas, frame, 0.53, 0.34, 0.03, BICYCLE, False)
    hub, crank, seat, head, front = (-0.53, 0.34), (-0.08, 0.3), (-0.2, 0.85), (0.36, 0.85), (0.53, 0.34)
    if min(frame.at(0.9, 0, 0)[2], frame.at(-0.9, 0, 0)[2]) > 0.6:
        canvas.label_pen.polygon(
            [canvas.project(frame.at(a, 0, u)) for a, u in (hub, crank, front, head, seat)], fill=BICYCLE
        )
    for p, q in ((hub, crank), (hub, seat), (crank, seat), (crank, head), (seat, head), (head, front)):
        canvas.limb(frame, (p[0], 0, p[1]), (q[0], 0, q[1]), (0.028, 0.028), colour, BICYCLE)
    canvas.limb(frame, (0.36, 0, 0.85), (0.33, 0, 1.02), (0.025, 0.025), DARK, BICYCLE)
    canvas.limb(frame, (0.33, -0.28, 1.02), (0.33, 0.28, 1.02), (0.03, 0.03), DARK, BICYCLE)
    canvas.limb(frame, (-0.34, 0, 0.95), (-0.08, 0, 0.94), (0.06, 0.03), DARK, BICYCLE)
    if item.r[20] < 0.4:
        canvas.limb(frame, (-0.7, 0, 0.76), (-0.35, 0, 0.76), (0.04, 0.04), DARK, BICYCLE)


def paint_motorcycle(canvas: Canvas, item: Item) -> None:
    """A motorcycle: fat wheels, engine, tank, seat, fork, handlebar with mirrors, lamps at both ends."""
    frame = canvas.frame(item.s, item.lateral, item.heading)
    colour = pick_colour(item.r[16:20])
    scooter = item.r[20] < 0.35
    radius = 0.25 if scooter else 0.33
    for along in (-0.68, 0.7):
        _wheel(canvas, frame, along, radius, 0.1, MOTORCYCLE, True)
    canvas.limb(frame, (-0.1, 0, 0.42), (0.18, 0, 0.42), (0.2, 0.22), (70, 70, 74), MOTORCYCLE)
    canvas.limb(frame, (-0.75, 0.15, 0.33), (0.05, 0.15, 0.3), (0.06, 0.05), (165, 165, 170), MOTORCYCLE)
    canvas.limb(frame, (0.7, 0, radius), (0.46, 0, 0.95), (0.06, 0.06), (150, 150, 155), MOTORCYCLE)
    if scooter:
        canvas.limb(frame, (0.5, 0, 0.3), (0.44, 0, 0.95), (0.2, 0.17), colour, MOTORCYCLE)
        canvas.limb(frame, (-0.6, 0, 0.5), (-0.1, 0, 0.52), (0.2, 0.2), colour, MOTORCYCLE)
    else:
        canvas.limb(frame, (0.02, 0, 0.78), (0.34, 0, 0.82), (0.14, 0.16), colour, MOTORCYCLE)
    canvas.limb(frame, (-0.75, 0, 0.82), (0.0, 0, 0.74), (0.1, 0.12), DARK, MOTORCYCLE)
    canvas.limb(frame, (-0.85, 0, 0.72), (-0.6, 0, 0.66), (0.08, 0.1), colour, MOTORCYCLE)
    canvas.limb(frame, (0.42, -0.38, 1.04), (0.42, 0.38, 1.04), (0.04, 0.04), DARK, MOTORCYCLE)
    for sign in (-1.0, 1.0):
        canvas.limb(frame, (0.42, sign * 0.3, 1.04), (0.42, sign * 0.38, 1.2), (0.03, 0.07), DARK, MOTORCYCLE)
    canvas.limb(frame, (0.52, 0, 0.88), (0.6, 0, 0.88), (0.14, 0.12), colour, MOTORCYCLE)
    lamp, at = ((240, 240, 225), 0.68) if frame.fx * frame.x + frame.fz * frame.z < 0 else ((200, 25, 20), -0.92)
    canvas.limb(frame, (at, 0, 0.84), (at, 0, 0.85), (0.08, 0.08), lamp, MOTORCYCLE)


def paint_cyclist(canvas: Canvas, item: Item) -> None:
    """A rider on a bicycle."""
    paint_bicycle(canvas, item)
    frame = canvas.frame(item.s, item.lateral, item.heading)
    _rider(canvas, frame, item, (-0.2, 0.97), (0.36, 1.04), (0.0, 0.28))


def paint_motorcyclist(canvas: Canvas, item: Item) -> None:
    """A rider on a motorcycle."""
    paint_motorcycle(canvas, item)
    frame = canvas.frame(item.s, item.lateral, item.heading)
    _rider(canvas, frame, item, (-0.3, 0.9), (0.42, 1.06), (0.0, 0.36))


PAINTERS = {
    "person": paint_person,
    "bicycle": paint_bicycle,
    "motorcycle": paint_motorcycle,
    "cyclist": paint_cyclist,
    "motorcyclist": paint_motorcyclist,
}
