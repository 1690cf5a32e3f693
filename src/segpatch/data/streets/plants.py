"""Trees, bushes and far woods: trunks and cut-out crowns."""

from __future__ import annotations

from segpatch.data.streets.canvas import Canvas
from segpatch.data.streets.noise import crowns
from segpatch.data.streets.palette import pick_leaf, scale
from segpatch.data.streets.scene import Item

VEGETATION = 8


def paint_tree(canvas: Canvas, item: Item) -> None:
    """A tree: trunk, two boughs, and a crown of one or two cut-outs."""
    r = item.r
    frame = canvas.frame(item.s, item.lateral)
    if frame.z < 2:
        return
    height, leaf = 4.5 + 7 * r[0], pick_leaf(r[1:5])
    trunk = scale(pick_leaf((0.0, 0.12 * r[5], 0.2 * r[6], 0.4)), 0.9)
    clear = height * (0.25 + 0.15 * r[7])
    thick = 0.1 + 0.018 * height
    canvas.limb(frame, (0, 0, 0), (0, 0, height * 0.6), (thick * 1.2, thick * 0.7), trunk, VEGETATION)
    for sign in (-1.0, 1.0):
        canvas.limb(
            frame,
            (0, 0, clear),
            (0, sign * height * 0.1, height * 0.58),
            (thick * 0.6, thick * 0.3),
            trunk,
            VEGETATION,
        )
    looks = crowns()
    tall = height - clear
    wide = tall * (0.75 + 0.5 * r[8])
    canvas.sprite(
        frame.x,
        clear + tall / 2,
        frame.z,
        (wide, tall * 1.15),
        leaf,
        looks[int(r[9] * len(looks))],
        VEGETATION,
    )
    if r[10] < 0.5:
        canvas.sprite(
            frame.x + wide * 0.2,
            clear + tall * 0.42,
            frame.z,
            (wide * 0.7, tall * 0.7),
            scale(leaf, 0.9),
            looks[int(r[11] * 6)],
            VEGETATION,
        )


def paint_bush(canvas: Canvas, item: Item) -> None:
    """A bush."""
    frame = canvas.frame(item.s, item.lateral)
    size = 0.8 + 1.6 * item.r[0]
    canvas.sprite(
        frame.x,
        size * 0.42,
        frame.z,
        (size * 1.4, size),
        pick_leaf(item.r[1:5]),
        crowns()[int(item.r[5] * 6)],
        VEGETATION,
    )


def paint_wood(canvas: Canvas, item: Item) -> None:
    """A far stand of trees."""
    frame = canvas.frame(item.s, item.lateral)
    for i in range(3):
        height = 8 + 9 * item.r[i + 10]
        canvas.sprite(
            frame.x + item.length * (i - 1) / 3,
            height * 0.42,
            frame.z,
            (item.length * 0.75, height),
            pick_leaf(item.r[1:5]),
            crowns()[int(item.r[i] * 13)],
            VEGETATION,
        )
