"""Parts that vehicles share: boxes, panes on them, wheels, the dark underside."""

from __future__ import annotations

from collections.abc import Sequence

from segpatch.data.streets.canvas import Canvas, Colour, Frame


def box(
    canvas: Canvas,
    frame: Frame,
    along: tuple[float, float],
    width: float,
    up: tuple[float, float],
    colour: Colour,
    label: int | None,
) -> None:
    """The visible faces of an upright box."""
    (a, b), w, (lo, hi) = along, width / 2, up
    canvas.face(frame, [(a, -w, hi), (b, -w, hi), (b, w, hi), (a, w, hi)], colour, label, (0.0, 0.0, 1.0))
    for x, n in ((a, -1.0), (b, 1.0)):
        canvas.face(frame, [(x, -w, lo), (x, w, lo), (x, w, hi), (x, -w, hi)], colour, label, (n, 0.0, 0.0))
    for n in (-1.0, 1.0):
        canvas.face(
            frame,
            [(a, n * w, lo), (b, n * w, lo), (b, n * w, hi), (a, n * w, hi)],
            colour,
            label,
            (0.0, n, 0.0),
        )


def pane(
    canvas: Canvas,
    frame: Frame,
    end: float,
    across: tuple[float, float],
    up: tuple[float, float],
    colour: Colour,
    n: float,
) -> None:
    """A rectangle on the front (n = 1) or rear (n = -1) of a box."""
    canvas.face(
        frame,
        [(end, across[0], up[0]), (end, across[1], up[0]), (end, across[1], up[1]), (end, across[0], up[1])],
        colour,
        None,
        (n, 0.0, 0.0),
    )


def side_pane(
    canvas: Canvas,
    frame: Frame,
    along: tuple[float, float],
    out: float,
    up: tuple[float, float],
    colour: Colour,
) -> None:
    """A rectangle on the side of a box at `out` metres to the right (negative: left)."""
    canvas.face(
        frame,
        [(along[0], out, up[0]), (along[1], out, up[0]), (along[1], out, up[1]), (along[0], out, up[1])],
        colour,
        None,
        (0.0, 1.0 if out > 0 else -1.0, 0.0),
    )


def paint_wheels(
    canvas: Canvas,
    frame: Frame,
    along: Sequence[float],
    out: float,
    radius: float,
    label: int,
    far: bool = False,
) -> None:
    for sign in (-1.0, 1.0):
        turned = frame.fz * sign * frame.x - frame.fx * sign * frame.z < 0  # this side faces the camera
        for a in along:
            if far:
                canvas.limb(
                    frame,
                    (a, sign * (out - 0.12), 0.12),
                    (a, sign * (out - 0.12), radius * 1.6),
                    (0.13, 0.13),
                    (22, 22, 24),
                    label,
                )
            elif turned:
                canvas.disc(frame, (a, sign * out, radius), radius, (28, 28, 30), label)
                canvas.disc(frame, (a, sign * out, radius), radius * 0.6, (150, 150, 155), None)


def underside(canvas: Canvas, frame: Frame, length: float, width: float, label: int) -> None:
    a, w = length / 2 - 0.1, width / 2
    canvas.polygon([frame.at(x, y, 0.02) for x, y in ((-a, -w), (-a, w), (a, w), (a, -w))], (18, 18, 20), None)
    canvas.polygon([frame.at(x, y, 0.22) for x, y in ((-a, -w), (-a, w), (a, w), (a, -w))], (18, 18, 20), label)
