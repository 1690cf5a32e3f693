"""Trucks, buses and trams: boxes with what tells them apart."""

from __future__ import annotations

from segpatch.data.streets.boxes import box, paint_wheels, pane, side_pane, underside
from segpatch.data.streets.canvas import Canvas
from segpatch.data.streets.cars import paint_car
from segpatch.data.streets.palette import hsv, pick_colour, scale
from segpatch.data.streets.scene import Item

TRUCK, BUS, TRAIN = 14, 15, 16


def paint_truck(canvas: Canvas, item: Item) -> None:
    """A lorry: a cab in front of a taller, ribbed cargo box with a door at the rear."""
    r = item.r
    length, width, top = 6.5 + 3 * r[0], 2.4, 3.0 + 0.8 * r[1]
    frame = canvas.frame(item.s, item.lateral, item.heading)
    cab, cargo = pick_colour(r[4:8]), pick_colour(r[8:12])
    glass = hsv(r[12], 0.3, 0.1 + 0.25 * r[13])
    front, back = length / 2, -length / 2
    underside(canvas, frame, length, width, TRUCK)
    wheels = (back + 1.0, back + 2.1, front - 1.1)
    paint_wheels(canvas, frame, wheels, width / 2 - 0.05, 0.5, TRUCK, far=True)

    def paint_cab() -> None:
        tall = 2.5 + 0.3 * r[2]
        box(canvas, frame, (front - 1.8, front), width * 0.94, (0.5, tall), cab, TRUCK)
        pane(canvas, frame, front, (-1.0, 1.0), (tall - 1.1, tall - 0.25), glass, 1.0)
        pane(canvas, frame, front, (-0.8, 0.8), (0.75, 1.15), scale(cab, 0.35), 1.0)
        for n in (-1.0, 1.0):
            side_pane(canvas, frame, (front - 1.2, front - 0.2), n * width * 0.47, (tall - 1.1, tall - 0.3), glass)
            pane(canvas, frame, front, (n * 1.05, n * 0.75), (0.6, 0.8), (240, 240, 220), 1.0)

    def paint_cargo() -> None:
        box(canvas, frame, (back, front - 2.0), width, (0.95, top), cargo, TRUCK)
        box(canvas, frame, (back + 0.1, front - 1.9), width * 0.9, (0.55, 0.95), (35, 35, 38), TRUCK)
        ribs = 5 + int(4 * r[14])
        for n in (-1.0, 1.0):
            for i in range(ribs):
                a = back + 0.15 + (length - 2.3) * i / (ribs - 1)
                side_pane(canvas, frame, (a - 0.05, a + 0.05), n * width / 2, (0.95, top), scale(cargo, 0.72))
            side_pane(canvas, frame, (back, front - 2.0), n * width / 2, (0.95, 1.1), scale(cargo, 0.6))
            pane(canvas, frame, back, (n * 1.15, n * 0.85), (0.6, 0.8), (190, 25, 20), -1.0)
        pane(canvas, frame, back, (-0.03, 0.03), (0.95, top), scale(cargo, 0.5), -1.0)
        for x in (-0.7, -0.3, 0.3, 0.7):
            pane(canvas, frame, back, (x - 0.025, x + 0.025), (1.0, top - 0.1), scale(cargo, 0.65), -1.0)
        pane(canvas, frame, back, (-1.1, 1.1), (0.6, 0.95), (40, 40, 42), -1.0)

    towards = frame.fx * frame.x + frame.fz * frame.z < 0
    for part in (paint_cargo, paint_cab) if towards else (paint_cab, paint_cargo):
        part()
    paint_wheels(canvas, frame, wheels, width / 2 + 0.01, 0.5, TRUCK)


def paint_bus(canvas: Canvas, item: Item) -> None:
    """A bus: one long box with an unbroken band of windows, doors, and a bright destination board."""
    r = item.r
    length, width, top = 9.5 + 3 * r[0], 2.5, 3.0 + 0.2 * r[1]
    frame = canvas.frame(item.s, item.lateral, item.heading)
    paint, stripe = pick_colour(r[4:8]), pick_colour(r[8:12])
    glass = hsv(r[12], 0.3 * r[13], 0.1 + 0.25 * r[14])
    end = length / 2
    wheels = (-end + 2.6, end - 2.4)
    underside(canvas, frame, length, width, BUS)
    paint_wheels(canvas, frame, wheels, width / 2 - 0.05, 0.48, BUS, far=True)
    box(canvas, frame, (-end, end), width, (0.3, top), paint, BUS)
    for n in (-1.0, 1.0):
        out = n * width / 2
        side_pane(canvas, frame, (-end, end), out, (0.3, 0.85), stripe)
        side_pane(canvas, frame, (-end + 0.3, end - 0.15), out, (1.3, top - 0.5), glass)
        for i in range(1, 7):
            a = -end + length * i / 7
            side_pane(canvas, frame, (a - 0.04, a + 0.04), out, (1.3, top - 0.5), scale(paint, 0.5))
        pane(canvas, frame, n * end, (-1.12, 1.12), (1.15 if n > 0 else 1.6, top - 0.55), glass, n)
        pane(canvas, frame, n * end, (-0.85, 0.85), (top - 0.42, top - 0.12), (25, 25, 25), n)
        pane(canvas, frame, n * end, (-0.6, 0.6), (top - 0.36, top - 0.18), (255, 190, 60), n)
        for m in (-1.0, 1.0):
            pane(
                canvas,
                frame,
                n * end,
                (m * 1.15, m * 0.8),
                (0.6, 0.85),
                (240, 240, 220) if n > 0 else (200, 25, 20),
                n,
            )
    for a in (-0.5, end - 1.3):
        side_pane(canvas, frame, (a, a + 1.1), width / 2, (0.4, top - 0.45), scale(glass, 1.3))
        side_pane(canvas, frame, (a + 0.5, a + 0.6), width / 2, (0.4, top - 0.45), scale(paint, 0.6))
    paint_wheels(canvas, frame, wheels, width / 2 + 0.01, 0.48, BUS)


def paint_train(canvas: Canvas, item: Item) -> None:
    """A tram: long linked cars down to the rails, tall windows, a slanted nose, a pantograph."""
    r = item.r
    cars, length, width, top = 2 + int(2 * r[0]), 9.0, 2.5, 3.45
    frame = canvas.frame(item.s, item.lateral, item.heading)
    paint, skirt = pick_colour(r[4:8]), pick_colour(r[8:12])
    glass = hsv(r[12], 0.3 * r[13], 0.08 + 0.2 * r[14])
    total = cars * length
    order = list(range(cars))
    if frame.fx * frame.x + frame.fz * frame.z > 0:
        order.reverse()
    for i in order:
        a, b = -total / 2 + i * length + 0.15, -total / 2 + (i + 1) * length - 0.15
        box(canvas, frame, (a - 0.3, b + 0.3), width * 0.85, (0.5, top - 0.3), (30, 30, 32), TRAIN)
        box(canvas, frame, (a, b), width, (0.15, top), paint, TRAIN)
        for n in (-1.0, 1.0):
            out = n * width / 2
            side_pane(canvas, frame, (a, b), out, (0.15, 0.9), skirt)
            side_pane(canvas, frame, (a, b), out, (top - 0.35, top - 0.2), skirt)
            for k in range(5):
                c = a + 0.35 + k * 1.68
                low = 0.35 if k in (1, 3) else 1.25
                side_pane(canvas, frame, (c, c + 1.25), out, (low, top - 0.6), glass)
                if k in (1, 3):
                    side_pane(canvas, frame, (c + 0.58, c + 0.68), out, (low, top - 0.6), paint)
            tip = b if n > 0 else a
            pane(canvas, frame, tip, (-1.05, 1.05), (1.35, top - 0.75), glass, n)
            pane(canvas, frame, tip, (-0.5, 0.5), (top - 0.65, top - 0.35), (255, 170, 40), n)
            pane(canvas, frame, tip, (-1.25, 1.25), (0.15, 0.9), skirt, n)
            for m in (-0.85, 0.0, 0.85):
                pane(canvas, frame, tip, (m - 0.14, m + 0.14), (0.95, 1.15), (245, 245, 225), n)
        if i % 2 == 0:
            middle = (a + b) / 2
            for w in (-0.5, 0.5):
                canvas.limb(
                    frame, (middle, w, top), (middle + 0.8, w, top + 0.55), (0.04, 0.04), (40, 40, 42), TRAIN
                )
                canvas.limb(
                    frame,
                    (middle + 0.8, w, top + 0.55),
                    (middle, w, top + 1.1),
                    (0.04, 0.04),
                    (40, 40, 42),
                    TRAIN,
                )
            canvas.limb(
                frame, (middle, -0.8, top + 1.1), (middle, 0.8, top + 1.1), (0.05, 0.05), (40, 40, 42), TRAIN
            )


PAINTERS = {"car": paint_car, "truck": paint_truck, "bus": paint_bus, "train": paint_train}
