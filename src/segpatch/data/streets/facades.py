"""Upright textures as small arrays: house fronts, masonry, fences, hedges. Row 0 is at the bottom."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segpatch.data.streets.canvas import Colour
from segpatch.data.streets.noise import TILE, Floats, ground_tiles, tile
from segpatch.data.streets.palette import hsv, pick_colour, scale

TEXELS = 10  # per metre of a house front
FINE = 24  # per metre of a wall, fence or hedge


def _canvas(height: int, width: int, colour: Colour, bright: Floats) -> Floats:
    out = np.empty((height, width, 3), np.float32)
    for c in range(3):  # far quicker than broadcasting along an axis of three
        np.multiply(bright[:height, :width], np.float32(colour[c]), out=out[..., c])
    return out


def _tiled(texture: Floats, height: int, width: int) -> Floats:
    return np.tile(texture, (height // TILE + 1, width // TILE + 1))[:height, :width]


def front(length: float, height: float, storey: float, r: Sequence[float]) -> Floats:
    """A house front (h, w, 3), 0 to 255: plaster or brick, rows of framed windows, shop or doors below."""
    h, w = max(int(height * TEXELS), 8), max(int(length * TEXELS), 8)
    wall = pick_colour(r[0:4])
    kind = int(r[4] * 3)
    base = 0.94 + 0.14 * (_tiled(tile(31, 8, 4), h, w) - np.float32(0.5))
    if kind == 1:
        base = base * (0.5 + 0.5 * _tiled(ground_tiles()[1], h, w))
    elif kind == 2:
        base[:: int(storey * TEXELS)] *= 0.7
    out = _canvas(h, w, wall, base)
    frame, glass, lit = (
        pick_colour(r[5:9]),
        hsv(r[9], 0.35 * r[10], 0.1 + 0.45 * r[11]),
        (235.0, 205.0, 130.0),
    )
    bay = int((1.9 + 1.8 * r[12]) * TEXELS)
    ww, wh = int(bay * (0.38 + 0.3 * r[13])), int(storey * TEXELS * (0.42 + 0.22 * r[14]))
    step = int(storey * TEXELS)
    sill = int(step * 0.3)
    margin = (w % bay) // 2
    for i, low in enumerate(range(0, h - step + 4, step)):
        for j, left in enumerate(range(margin + (bay - ww) // 2, w - ww, bay)):
            if i == 0 and r[15] < 0.5:
                continue
            hash_ = (i * 7919 + j * 104729 + int(r[16] * 1e6)) % 97
            pane = lit if hash_ < 6 else scale(glass, 0.7 + 0.6 * (hash_ / 97))
            lo, hi = low + sill, min(low + sill + wh, h - 2)
            out[lo - 1 : hi + 1, left - 1 : left + ww + 1] = frame
            out[lo:hi, left : left + ww] = pane
            out[lo:hi, left + ww // 2] = frame
            out[lo - 2 : lo - 1, left - 2 : left + ww + 2] = scale(wall, 0.6)
    if r[15] < 0.5:  # shop windows between piers, under a fascia
        top = min(int(step * 0.8), h - 3)
        for left in range(margin, w - bay, bay):
            out[4:top, left + 3 : left + bay - 2] = scale(glass, 0.9)
            out[4:top, left + bay // 2] = frame
        out[top : top + 5, margin : w - margin] = pick_colour(r[17:21])
    else:
        left = int(w * (0.2 + 0.5 * r[17]))
        out[0 : int(2.2 * TEXELS), left : left + 11] = scale(frame, 0.6)
    out[-4:] = scale(wall, 0.6)
    out[:, :1] *= 0.7
    return out


def masonry(length: float, height: float, r: Sequence[float]) -> Floats:
    """A garden wall (h, w, 3): bricks, stones or concrete panels under a coping, never a window."""
    h, w = max(int(height * FINE), 6), max(int(length * FINE), 6)
    colour = pick_colour(r[0:4])
    kind = int(r[4] * 3)
    material = ground_tiles()[1 if kind == 0 else 2]
    if kind == 2:
        bright = 0.9 + 0.3 * (_tiled(tile(32, 16, 4), h, w) - np.float32(0.5))
        bright[:, :: int(2.4 * FINE)] *= 0.55
        bright[:, 1 :: int(2.4 * FINE)] *= 0.6
    else:
        bright = _tiled(np.repeat(material, 1 + kind, axis=1)[:, :TILE], h, w)
        bright = bright * (0.85 + 0.4 * (_tiled(tile(33, 8, 3), h, w) - np.float32(0.5)))
    out = _canvas(h, w, colour, bright)
    coping = scale(colour, 1.25 if r[5] < 0.5 else 0.7)
    out[-max(3, int(0.12 * FINE)) :] = coping
    out[-max(3, int(0.12 * FINE)) - 2 : -max(3, int(0.12 * FINE))] *= 0.5
    return out


def fence(height: float, r: Sequence[float]) -> tuple[Floats, NDArray[np.uint8]]:
    """One 2.4 m panel of a fence (h, w, 3) and its alpha (h, w), 0 where one sees through."""
    h, w = max(int(height * FINE), 6), int(2.4 * FINE)
    colour = pick_colour(r[0:4])
    solid = np.zeros((h, w), bool)
    shade = np.ones((h, w), np.float32)
    kind = int(r[4] * 4)
    if kind == 0:  # upright bars
        gap = 4 + int(3 * r[5])
        for i in range(0, w, gap):
            solid[:, i : i + 2] = True
        solid[2:4] = solid[-6:-4] = True
    elif kind == 1:  # boards
        gap = 5 + int(4 * r[5])
        for i in range(0, w, gap):
            solid[:, i : i + gap - 1] = True
            shade[:, i : i + gap - 1] = 0.75 + 0.4 * ((i * 37) % 11) / 11
        shade[3:5] = shade[-7:-5] = 0.5
    elif kind == 2:  # wire mesh between posts
        y, x = np.mgrid[0:h, 0:w]
        solid = ((x + y) % 6 < 1) | ((x - y) % 6 < 1)
        solid[-2:] = True
    else:  # rails
        for i in range(1, h, max(h // (3 + int(2 * r[5])), 4)):
            solid[i : i + 3] = True
    solid[:, :4] = True
    shade[:, :4] *= 0.8
    return _canvas(h, w, colour, shade), np.where(solid, 255, 0).astype(np.uint8)


def hedge(length: float, height: float, colour: Colour, shift: int) -> tuple[Floats, NDArray[np.uint8]]:
    """Clipped foliage (h, w, 3) and its alpha (h, w), 1 above the ragged top."""
    h, w = max(int(height * FINE), 6), max(int(length * FINE), 6)
    leaves = _tiled(np.roll(tile(5, 40, 3), shift, 1), h, w)
    rough = _tiled(tile(4, 16, 4), h, w)
    bright = np.float32(0.4) + leaves + np.float32(0.5) * (rough - np.float32(0.5))
    edge = (h - 1 - (_tiled(tile(34, 64, 2), 1, w)[0] * min(10, h // 3))).astype(np.int32)
    alpha = np.where(np.arange(h)[:, None] <= edge, 255, 1).astype(np.uint8)
    return _canvas(h, w, colour, bright), alpha
