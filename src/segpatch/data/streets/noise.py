"""Small tileable textures and tree crowns, the same in every process: made once from a fixed seed."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

TILE = 256
TEXELS_PER_METRE = 20.0
ASPHALT, SLABS, COBBLES, GRASS, GRAVEL = range(5)


@cache
def tile(seed: int, cells: int, octaves: int) -> Floats:
    """Value noise (TILE, TILE) in [0, 1] that wraps; `cells` lattice cells a side in the first octave."""
    total = np.zeros((TILE, TILE), np.float64)
    weight = 0.0
    rng = np.random.Generator(np.random.PCG64(seed))
    for octave in range(octaves):
        n = cells << octave
        if n > TILE:
            break
        lattice = rng.random((n, n))
        at = np.arange(TILE) * n / TILE
        low = at.astype(np.int64)
        t = at - low
        t = t * t * (3 - 2 * t)
        high = (low + 1) % n
        rows = lattice[low] * (1 - t)[:, None] + lattice[high] * t[:, None]
        total += (rows[:, low] * (1 - t) + rows[:, high] * t) * 0.6**octave
        weight += 0.6**octave
    total /= weight
    low_value, high_value = total.min(), total.max()
    return _steps((total - low_value) / (high_value - low_value))


def _steps(values: NDArray[np.float64]) -> Floats:
    """Values rounded to 1/1024, so that a last-bit difference between machines cannot show."""
    return (np.round(values * 1024) / 1024).astype(np.float32)


@cache
def ground_tiles() -> Floats:
    """Brightness around 1 of asphalt, slabs, cobbles, grass and gravel, (5, TILE, TILE)."""
    rng = np.random.Generator(np.random.PCG64(11))
    grain = rng.random((TILE, TILE))
    asphalt = 0.92 + 0.16 * grain + 0.06 * (tile(1, 32, 2) - 0.5)
    slabs = _blocks(rng, 32, 16, 0.30, 2) + 0.06 * (grain - 0.5)
    cobbles = _blocks(rng, 8, 8, 0.36, 1) + 0.05 * (grain - 0.5)
    blades = np.repeat(rng.random((TILE // 4, TILE)), 4, axis=0)
    grass = 0.55 + 0.5 * blades + 0.55 * (tile(2, 24, 3) - 0.3)
    pebbles = np.kron(rng.random((TILE // 4, TILE // 4)), np.ones((4, 4)))
    gravel = 0.62 + 0.45 * pebbles + 0.5 * (tile(3, 16, 3) - 0.4) + 0.2 * (grain - 0.5)
    return np.stack([_steps(np.asarray(m, np.float64)) for m in (asphalt, slabs, cobbles, grass, gravel)])


def _blocks(rng: np.random.Generator, rows: int, cols: int, spread: float, joint: int) -> NDArray[np.float64]:
    """Running-bond blocks of random brightness with dark joints."""
    height, width = TILE // rows * 2, TILE // cols
    image = np.empty((TILE, TILE), np.float64)
    for row in range(TILE // height):
        course = np.repeat(1 + spread * (rng.random(cols) - 0.5), width)
        course[::width] = 0.55
        if joint > 1:
            course[1::width] = 0.7
        image[row * height : (row + 1) * height] = np.roll(course, (row % 2) * width // 2)
        image[row * height : row * height + joint] = 0.58
    return image


@cache
def crowns() -> tuple[tuple[Floats, NDArray[np.uint8]], ...]:
    """Tree crowns: pairs of foliage brightness around 1 and cut-out mask 0 or 255, both (144, 144)."""
    return tuple(_crown(seed) for seed in range(14))


def _crown(seed: int) -> tuple[Floats, NDArray[np.uint8]]:
    size = 144
    rng = np.random.Generator(np.random.PCG64(100 + seed))
    y, x = np.mgrid[0:size, 0:size] / (size / 2) - 1 + 1 / size
    conifer = seed % 7 == 6
    if conifer:
        field = 0.95 * (y + 1) / 2 - np.abs(x) * 1.05 + 0.1 * ((y * 4) % 1)
    else:
        field = 1 - x * x * 1.25 - y * y * 1.25
        for _ in range(7):
            cx, cy, r = rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5), rng.uniform(0.3, 0.45)
            field = np.maximum(field, 1 - ((x - cx) ** 2 + (y - cy) ** 2) / r**2)
    shift = int(rng.integers(0, 110))
    rough = tile(4, 11, 4)[shift : shift + size, shift : shift + size].astype(np.float64)
    leaves = tile(5, 28, 3)[shift : shift + size, shift : shift + size].astype(np.float64)
    mask = field + 1.5 * (rough - 0.5) > 0.24
    mask &= (np.abs(x) < 0.98) & (np.abs(y) < 0.98)
    shade = 0.42 + 1.0 * leaves + 0.5 * (rough - 0.5) - 0.18 * y - 0.12 * x
    return _steps(np.clip(shade, 0.15, 1.7)), np.where(mask, 255, 0).astype(np.uint8)
