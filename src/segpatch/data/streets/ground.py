"""The ground by inverse perspective and the sky above it: the arrays every object is painted over."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from segpatch.data.streets.noise import (
    ASPHALT,
    GRASS,
    GRAVEL,
    TEXELS_PER_METRE,
    TILE,
    Floats,
    ground_tiles,
    tile,
)
from segpatch.data.streets.scene import Scene

ROAD, LINE, DASH, PAVED, KERB, TERRAIN, RAIL, PATCH = range(8)
ZONE_LABEL = np.array([0, 0, 0, 1, 1, 9, 0, 0], np.uint8)
SKY = 10
STEP = 0.1  # metres per entry of the cross-section table
REACH = 60.0  # metres to either side that the table covers; beyond, its last entry goes on
FAR = 400.0


def paint_ground_and_sky(
    scene: Scene, height: int, width: int, shadow: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image (H, W, 3) and labels (H, W) of the empty street; `shadow` (H, W) is 255 in the shade."""
    image = np.empty((height, width, 3), np.uint8)
    labels = np.full((height, width), SKY, np.uint8)
    split = min(max(math.ceil(scene.camera.horizon * height + 0.5), 1), height - 1)
    _paint_sky(scene, image[:split], height)
    labels[split:] = _paint_ground(scene, image[split:], split, height, shadow[split:])
    return image, labels


def _paint_sky(scene: Scene, out: NDArray[np.uint8], height: int) -> None:
    rows, width = out.shape[:2]
    zenith, low, cloud, cover = scene.sky
    level = (np.arange(rows, dtype=np.float32) + 0.5) / np.float32(scene.camera.horizon * height)
    up = 1.0 / (1.06 - np.minimum(level, 1.0))
    across = (np.arange(width, dtype=np.float32) - width / 2) / np.float32(height)
    v = ((up * 46).astype(np.int32) + scene.offsets[0]) % TILE
    u = ((up[:, None] * (across * np.float32(60))).astype(np.int32) + scene.offsets[1]) % TILE
    puffs = tile(21, 4, 5)[v[:, None], u]
    amount = np.clip((puffs - np.float32(1 - max(cover, 0.05))) * np.float32(3.0), 0, 0.85)
    amount *= np.minimum(1.0, (1.1 - level) * 2.5).astype(np.float32)[:, None]
    for c in range(3):
        base = np.float32(zenith[c]) * (1 - level) + np.float32(low[c]) * level
        out[..., c] = base[:, None] + (np.float32(cloud[c]) - base)[:, None] * amount


def _paint_ground(
    scene: Scene, out: NDArray[np.uint8], first: int, height: int, shadow: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    rows, width = out.shape[:2]
    camera = scene.camera
    drop = np.arange(first, first + rows) + 0.5 - camera.horizon * height
    depth = np.minimum(camera.focal * height * camera.height / drop, FAR)
    slope = (np.arange(width) + 0.5 - width / 2) / (camera.focal * height)
    cos, sin = math.cos(camera.yaw), math.sin(camera.yaw)
    z, m = depth.astype(np.float32)[:, None], slope.astype(np.float32)
    s = z * (np.float32(cos) - m * np.float32(sin))
    lateral = z * (m * np.float32(cos) + np.float32(sin)) + np.float32(camera.lateral)
    if camera.bend:
        lateral -= np.float32(camera.bend / 2) * s * s
    table, block = _cross_sections(scene)
    at_s = np.clip(s, 0, FAR - 1).astype(np.int32)
    across = ((np.clip(lateral, -REACH, REACH - STEP) + np.float32(REACH)) * np.float32(1 / STEP)).astype(np.int32)
    zone = table.reshape(-1).take(block[at_s] * table.shape[1] + across)
    dashed = np.nonzero(zone == DASH)
    zone[dashed] = np.where((s[dashed] + scene.offsets[2]) % 9 < 4, LINE, ROAD)
    bright = _texture(scene, zone, s, lateral, depth, height)
    bright *= 1 - shadow.astype(np.float32) * np.float32(_shade_strength(scene) / 255)
    light = scene.light
    up = light.ambient + light.direct * light.sun[1]
    clear = np.array([math.exp(-d / light.visibility) for d in depth.tolist()], np.float32)
    road, marking, pavement, terrain = (np.array(c, np.float32) * np.float32(up) for c in scene.ground)
    rail = road * 0.55
    colours = np.stack([road, marking, marking, pavement, pavement * 1.15, terrain, rail, road * 0.8])
    for c in range(3):
        plane = colours[:, c].take(zone) * bright
        plane *= clear[:, None]
        plane += (np.float32(light.haze[c]) * (1 - clear))[:, None]
        out[..., c] = np.minimum(plane, 255)
    named: NDArray[np.uint8] = ZONE_LABEL[zone]
    return named


def _shade_strength(scene: Scene) -> float:
    sun = scene.light.direct * scene.light.sun[1]
    return 0.25 + 0.75 * sun / (sun + scene.light.ambient)


def _texture(
    scene: Scene, zone: NDArray[np.uint8], s: Floats, lateral: Floats, depth: NDArray[np.float64], height: int
) -> Floats:
    """Brightness around 1: each material's tile nearby, fading to its mean where a texel is below a pixel."""
    wild = GRASS if scene.offsets[3] < 190 else GRAVEL
    material = np.array([ASPHALT, ASPHALT, ASPHALT, scene.paving, ASPHALT, wild, ASPHALT, ASPHALT], np.int32)
    v = (s * np.float32(TEXELS_PER_METRE)).astype(np.int32) & (TILE - 1)
    u = (lateral * np.float32(TEXELS_PER_METRE)).astype(np.int32) & (TILE - 1)
    fine = ground_tiles().reshape(-1).take((material * TILE * TILE).take(zone) + v * TILE + u)
    camera = scene.camera
    texels = TEXELS_PER_METRE * depth * depth / (camera.focal * height * camera.height)
    fade = np.minimum(1.0, 5.0 / texels).astype(np.float32)[:, None]
    v = ((s * np.float32(2.5)).astype(np.int32) + scene.offsets[4]) & (TILE - 1)
    u = ((lateral * np.float32(5)).astype(np.int32) + scene.offsets[5]) & (TILE - 1)
    rough = np.array([0.18, 0.3, 0.3, 0.16, 0.2, 0.75, 0.2, 0.2], np.float32).take(zone)
    bright: Floats = 1 + (fine - 1) * fade + rough * (tile(7, 16, 4)[v, u] - np.float32(0.5))
    return bright


def _cross_sections(scene: Scene) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Zone by (block, lateral) and block by whole metre along the road."""
    lateral = (np.arange(int(2 * REACH / STEP)) + 0.5) * STEP - REACH
    plain = np.full(lateral.shape, TERRAIN, np.uint8)
    for side, out in zip(scene.sides, (-lateral, lateral), strict=True):
        here = out >= 0
        if side.yard_paved:
            plain[here & (out < side.front + 3)] = PAVED
        plain[here & (out < side.pavement)] = PAVED
        plain[here & (out < side.verge)] = PAVED if side.verge_paved else TERRAIN
        plain[here & (out < side.road + 0.2)] = KERB if side.pavement > side.verge else TERRAIN
        plain[here & (out < side.road)] = ROAD
        if side.road - scene.sides[0].road > -9 and scene.offsets[2] % 3:
            plain[here & (np.abs(out - side.road + 0.35) < 0.08)] = LINE
    for line in scene.lanes:
        plain[np.abs(lateral - line) < 0.09] = DASH if scene.offsets[0] % 4 else LINE
    wide = np.full(lateral.shape, ROAD, np.uint8)
    if scene.rails is not None:
        for table in (plain, wide):
            for gauge in (-0.72, 0.72):
                table[np.abs(lateral - scene.rails - gauge) < 0.09] = RAIL
    stripes = plain.copy()
    on_road = (lateral > -scene.sides[0].road) & (lateral < scene.sides[1].road)
    stripes[on_road & (np.floor(lateral / 0.5) % 2 == 0)] = LINE
    block = np.zeros(int(FAR), np.int32)
    if scene.crossing:
        a, b = (int(x) for x in scene.crossing)
        block[a:b] = 1
        block[max(a - 4, 0) : a - 1] = 2
        block[b + 1 : b + 4] = 2
    return np.stack([plain, wide, stripes]), block
