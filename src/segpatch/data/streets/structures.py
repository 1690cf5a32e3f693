"""Things that do not move: buildings, walls, fences, hedges, lamp posts, signs, traffic lights."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from segpatch.data.streets import facades
from segpatch.data.streets.canvas import Canvas, Colour, Frame
from segpatch.data.streets.noise import Floats
from segpatch.data.streets.palette import pick_colour, pick_leaf, scale
from segpatch.data.streets.plants import paint_bush, paint_tree, paint_wood
from segpatch.data.streets.scene import Item

BUILDING, WALL, FENCE, POLE, LIGHT, SIGN, VEGETATION = 2, 3, 4, 5, 6, 7, 8


def _lit(canvas: Canvas, texture: Floats, alpha: NDArray[np.uint8] | int, a: Frame, b: Frame) -> NDArray[np.uint8]:
    """The texture (h, w, 4) under the canvas's light and haze, for a surface from a to b."""
    nx, nz = b.z - a.z, -(b.x - a.x)
    size = math.hypot(nx, nz)
    if nx * (a.x + b.x) + nz * (a.z + b.z) > 0:
        nx, nz = -nx, -nz
    depth = max((max(a.z, 0) + max(b.z, 0)) / 2, 1.0)
    light = canvas.light
    k = light.ambient * 0.9 + light.direct * max(0.0, (nx * light.sun[0] + nz * light.sun[2]) / size)
    clear = math.exp(-depth / light.visibility)
    out = np.empty((*texture.shape[:2], 4), np.uint8)
    seen = np.minimum(texture * np.float32(k * clear), np.float32(255 * clear))
    for c in range(3):
        out[..., c] = seen[..., c] + np.float32(light.haze[c] * (1 - clear))
    out[..., 3] = alpha
    return out


def paint_building(canvas: Canvas, item: Item) -> None:
    """A house along the street: its front, the gable towards the camera, at times a roof."""
    r = item.r
    storey = 2.7 + 0.8 * r[21]
    floors = 1 + int(7 * r[22] ** 1.5)
    height = storey * floors + 0.8
    side = 1.0 if item.lateral > 0 else -1.0
    near, far = canvas.frame(item.s, item.lateral), canvas.frame(item.s + item.length, item.lateral)
    depth = 9 + 5 * r[23]
    back = canvas.frame(item.s, item.lateral + side * depth)
    if far.z < 1:
        return
    gable = scale(pick_colour(r[0:4]), 0.9)
    if near.z > 1 and canvas.sees(near, back):
        texture = (
            facades.front(depth, height, storey, r)
            if r[20] < 0.85
            else facades.masonry(depth, height * 0.3, (*r[0:4], 0.9, *r[5:]))
        )
        scale_ = facades.TEXELS
        canvas.strip(near, back, (0, height), _lit(canvas, texture, 255, near, back), scale_, BUILDING)
    if canvas.sees(near, far):
        front = facades.front(item.length, height, storey, r)
        canvas.strip(near, far, (0, height), _lit(canvas, front, 255, near, far), facades.TEXELS, BUILDING)
    if floors <= 4 and r[19] < 0.6:
        tiles = pick_colour((r[7], r[11], r[3], r[14]))
        ridge = (1.6 + 1.8 * r[18]) + height
        middle = item.lateral + side * depth / 2
        ends = [
            canvas.frame(s, lat)
            for s, lat in (
                (item.s, item.lateral),
                (item.s + item.length, item.lateral),
                (item.s + item.length, middle),
                (item.s, middle),
            )
        ]
        ups = (height, height, ridge, ridge)
        canvas.polygon(
            [(back.x, height, back.z), (near.x, height, near.z), (ends[3].x, ridge, ends[3].z)],
            gable,
            BUILDING,
        )
        canvas.polygon(
            [(f.x, u, f.z) for f, u in zip(ends, ups, strict=True)], tiles, BUILDING, (-side * 0.6, 0.8, 0.0)
        )


def paint_block(canvas: Canvas, item: Item) -> None:
    """A far house that faces the camera."""
    a, b = canvas.frame(item.s, item.lateral), canvas.frame(item.s, item.lateral + item.length)
    if not canvas.sees(a, b):
        return
    height = 6 + 26 * item.r[22] ** 2
    texture = facades.front(item.length, height, 3.2, item.r)
    canvas.strip(a, b, (0, height), _lit(canvas, texture, 255, a, b), facades.TEXELS, BUILDING)


def paint_wall(canvas: Canvas, item: Item) -> None:
    """A low masonry wall along the street."""
    a, b = canvas.frame(item.s, item.lateral), canvas.frame(item.s + item.length, item.lateral)
    if not canvas.sees(a, b):
        return
    height = 1.0 + 2.2 * item.r[20]
    texture = facades.masonry(item.length, height, item.r)
    canvas.strip(a, b, (0, height), _lit(canvas, texture, 255, a, b), facades.FINE, WALL)


def paint_fence(canvas: Canvas, item: Item) -> None:
    """A fence along the street; one sees through it, its label is solid."""
    a, b = canvas.frame(item.s, item.lateral), canvas.frame(item.s + item.length, item.lateral)
    height = 0.9 + 1.2 * item.r[20]
    texture, alpha = facades.fence(height, item.r)
    canvas.strip(a, b, (0, height), _lit(canvas, texture, alpha, a, b), facades.FINE, FENCE)


def paint_hedge(canvas: Canvas, item: Item) -> None:
    """A clipped hedge along the street."""
    a, b = canvas.frame(item.s, item.lateral), canvas.frame(item.s + item.length, item.lateral)
    if not canvas.sees(a, b):
        return
    height = 0.9 + 1.6 * item.r[20]
    texture, alpha = facades.hedge(item.length, height, pick_leaf(item.r[0:4]), int(item.r[5] * 256))
    canvas.strip(a, b, (0, height), _lit(canvas, texture, alpha, a, b), facades.FINE, VEGETATION)


def _post(canvas: Canvas, frame: Frame, height: float, radius: float, colour: Colour) -> None:
    canvas.limb(frame, (0, 0, 0), (0, 0, height), (radius, radius * 0.8), colour, POLE)
    canvas.limb(
        frame,
        (0, -radius * 0.5, 0),
        (0, -radius * 0.5, height),
        (radius * 0.3, radius * 0.3),
        scale(colour, 1.35),
        None,
    )


def paint_lamp(canvas: Canvas, item: Item) -> None:
    """A lamp post with an arm over the road."""
    r = item.r
    frame = canvas.frame(item.s, item.lateral, item.heading)
    height, colour = 4.5 + 4 * r[0], pick_colour(r[1:5])
    _post(canvas, frame, height, 0.08 + 0.06 * r[5], colour)
    canvas.limb(frame, (0, 0, height), (0, -1.6, height + 0.3), (0.06, 0.05), colour, POLE)
    canvas.limb(frame, (0, -1.3, height + 0.24), (0, -1.9, height + 0.26), (0.1, 0.09), (225, 225, 215), POLE)


def paint_sign(canvas: Canvas, item: Item) -> None:
    """A traffic sign on its pole: disc, triangle, octagon, diamond or board, bordered, with a mark."""
    r = item.r
    frame = canvas.frame(item.s, item.lateral, 0.0)
    height, size = 2.1 + 0.9 * r[0], 0.36 + 0.28 * r[1]
    _post(canvas, frame, height, 0.05 + 0.03 * r[2], pick_colour(r[3:7]))
    border, field = (scale(pick_colour((0.9, r[8], 0.75, 0.9)), 1.0), (235.0, 235.0, 230.0))
    if r[9] < 0.4:
        border, field = field, border
    elif r[9] > 0.85:
        field = pick_colour(r[10:14])
    sides, turn = ((16, 0.0), (3, 0.5), (8, 0.125), (4, 0.0), (4, 0.125), (3, 0.0))[int(r[14] * 6)]
    stretch = 1.0 if sides != 4 or turn == 0 else 0.7 + 1.2 * r[15]

    def plate(share: float, colour: Colour, label: int | None) -> None:
        angles = [2 * math.pi * (i / sides + 0.25 + turn) for i in range(sides)]
        canvas.polygon(
            [
                frame.at(-0.05, math.cos(a) * size * share * stretch, height + math.sin(a) * size * share)
                for a in angles
            ],
            colour,
            label,
        )

    plate(1.0, border, SIGN)
    plate(0.74, field, None)
    ink = (20.0, 20.0, 25.0) if sum(field) > 330 else (240.0, 240.0, 240.0)
    mark = size * 0.3
    canvas.limb(
        frame,
        (-0.06, -mark * (r[16] < 0.6), height - mark * (r[16] > 0.4)),
        (-0.06, mark * (r[16] < 0.6), height + mark * (r[16] > 0.4) * 0.8),
        (mark * 0.3, mark * 0.3),
        ink,
        None,
    )
    if r[17] < 0.25:
        canvas.face(
            frame,
            [
                (-0.05, -0.35, height - size - 0.4),
                (-0.05, 0.35, height - size - 0.4),
                (-0.05, 0.35, height - size - 0.08),
                (-0.05, -0.35, height - size - 0.08),
            ],
            field,
            SIGN,
            (-1.0, 0.0, 0.0),
        )


def _lantern(canvas: Canvas, frame: Frame, across: float, up: float, k: float, r: tuple[float, ...]) -> None:
    """An upright box of three lamps, one of them lit, on a backing board with a pale border."""
    w, h = 0.19 * k, 0.55 * k

    def board(grow: float, colour: Colour) -> None:
        canvas.polygon(
            [
                frame.at(-0.1, across + a * (w + grow), up + b * (h + grow))
                for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))
            ],
            colour,
            LIGHT,
        )

    if r[10] < 0.5:
        board(0.09, (215, 215, 210))
        board(0.05, (25, 25, 25))
    board(0.0, scale(pick_colour(r[11:15]), 0.35))
    on = int(r[15] * 3)
    for i, colour in enumerate(((250.0, 45.0, 30.0), (255.0, 185.0, 40.0), (50.0, 245.0, 140.0))):
        shown = scale(colour, 1.4) if i == on else scale(colour, 0.22)
        canvas.disc(frame, (-0.11, across, up + (0.36 - 0.36 * i) * k), 0.145 * k, shown, None, upright="front")


def paint_light(canvas: Canvas, item: Item) -> None:
    """A traffic light on its pole; some also carry one on an arm over the road."""
    r = item.r
    frame = canvas.frame(item.s, item.lateral, 0.0)
    colour = pick_colour(r[1:5])
    k = 1.1 + 0.6 * r[0]
    arm = r[5] < 0.4
    inward = -1.0 if item.lateral > 0 else 1.0
    _post(canvas, frame, 5.6 if arm else 3.1, 0.08 + 0.03 * r[6], colour)
    if arm:
        reach = inward * (2.5 + 2.5 * r[7])
        canvas.limb(frame, (0, 0, 5.5), (0, reach, 5.7), (0.08, 0.06), colour, POLE)
        _lantern(canvas, frame, reach, 5.3, k, r)
    _lantern(canvas, frame, -inward * 0.05, 2.7, k, r)


PAINTERS: dict[str, Callable[[Canvas, Item], None]] = {
    "building": paint_building,
    "block": paint_block,
    "wall": paint_wall,
    "fence": paint_fence,
    "hedge": paint_hedge,
    "tree": paint_tree,
    "bush": paint_bush,
    "wood": paint_wood,
    "lamp": paint_lamp,
    "sign": paint_sign,
    "light": paint_light,
}
