"""Place the things of a street: rows of houses, walls and fences, street furniture, traffic, people."""

from __future__ import annotations

import math
from dataclasses import replace

from segpatch.data.streets.scene import Dice, Item, Scene, Side, new_item

STYLES = {  # odds of (building, wall, fence, hedge, trees, gap) along a side
    "city": (8.0, 0.8, 0.7, 0.3, 0.2, 0.3),
    "suburb": (2.5, 2.2, 2.8, 1.2, 0.9, 0.3),
    "park": (0.4, 2.0, 2.4, 1.0, 2.6, 0.6),
    "works": (2.5, 3.2, 2.6, 0.2, 0.4, 0.4),
}
ROWS = ("building", "wall", "fence", "hedge", "trees", "gap")


def place_items(scene: Scene, d: Dice, lane: float, own: float) -> Scene:
    """The scene with its items."""
    items: list[Item] = []
    items += _backdrop(d)
    for sign, side in zip((-1, 1), scene.sides, strict=True):
        items += _rows(scene, d, sign, side)
        items += _furniture(scene, d, sign, side)
        items += _parked(scene, d, sign, side, lane)
        items += _on_pavement(scene, d, sign, side)
    items += _traffic(scene, d, lane, own)
    if scene.crossing:
        items += _at_crossing(scene, d)
    return replace(scene, items=tuple(items))


def _backdrop(d: Dice) -> list[Item]:
    """Far houses and woods, so that the street does not end in sky."""
    items = []
    leafy = d.between(0, 1)
    lateral = -150.0
    while lateral < 150:
        width = d.between(12, 30)
        kind = "wood" if d.chance(leafy) else "block"
        items.append(new_item(d, kind, d.between(150, 190), lateral, 0.0, width * 1.15))
        lateral += width
    return items


def _rows(scene: Scene, d: Dice, sign: int, side: Side) -> list[Item]:
    weights = STYLES[d.choose(tuple(STYLES), (3, 3, 2, 2))]
    items: list[Item] = []
    s = d.between(-6, 2)
    while s < 115:
        kind = d.choose(ROWS, weights)
        length = d.between(9, 20) * (1.6 if kind in ("wall", "fence") else 1.0)
        if scene.crossing and s < scene.crossing[1] + 4 and s + length > scene.crossing[0] - 4:
            if s < scene.crossing[0] - 8:
                length = scene.crossing[0] - 4 - s
            else:
                s = scene.crossing[1] + 4
                continue
        items += _segment(d, kind, s, sign, side.front, length)
        s += length + (d.between(0.5, 5) if d.chance(0.25) else 0.0)
    return items


def _segment(d: Dice, kind: str, s: float, sign: int, front: float, length: float) -> list[Item]:
    items: list[Item] = []
    if kind == "gap":
        return items
    if kind in ("wall", "fence", "hedge"):
        items.append(new_item(d, kind, s, sign * front, length=length))
        back = front + d.between(4, 12)
        if d.chance(0.6):
            items.append(new_item(d, "building", s, sign * back, length=length, behind=length))
        for _ in range(int(d.between(0, 3))):
            at = s + d.between(0, length)
            items.append(new_item(d, "tree", at, sign * (front + d.between(1.5, 5)), behind=length))
        return items
    if kind == "trees":
        for _ in range(2 + int(d.between(0, 4))):
            items.append(new_item(d, "tree", s + d.between(0, length), sign * (front + d.between(0, 14))))
        if d.chance(0.5):
            items.append(new_item(d, "bush", s + d.between(0, length), sign * (front + d.between(1, 5))))
        return items
    return [new_item(d, "building", s, sign * (front + (d.between(0, 2) if d.chance(0.3) else 0)), length=length)]


def _clear(scene: Scene, s: float, margin: float = 1.0) -> bool:
    return not scene.crossing or not scene.crossing[0] - margin < s < scene.crossing[1] + margin


def _furniture(scene: Scene, d: Dice, sign: int, side: Side) -> list[Item]:
    items: list[Item] = []
    kerb = (side.road + 0.5) if side.verge - side.road < 1 else (side.road + side.verge) / 2
    spacing = d.between(9, 28)
    lamp = "lamp" if d.chance(0.75) else "tree"
    s = d.between(4, 4 + spacing)
    while s < 75:
        if _clear(scene, s):
            items.append(new_item(d, lamp, s, sign * kerb, 0.0 if sign > 0 else math.pi))
        s += spacing
    if d.chance(0.4):
        spacing = d.between(6, 14)
        for i in range(int(d.between(2, 8))):
            s = 7 + i * spacing + d.between(-1, 1)
            if _clear(scene, s):
                items.append(new_item(d, "tree", s, sign * (kerb + 0.2)))
    for _ in range(int(d.between(0.5, 3.6))):
        s = 4 + 36 * d.between(0, 1) ** 1.6
        if _clear(scene, s):
            items.append(new_item(d, "sign", s, sign * (kerb + d.between(-0.2, 1.0))))
    if d.chance(0.28):
        s = d.between(5, 20)
        items.append(new_item(d, "light", s, sign * (side.road + 0.6), 0.0 if sign > 0 else math.pi))
    if d.chance(0.13):
        length = d.between(8, 40)
        items.append(new_item(d, "fence", d.between(2, 14), sign * (side.road + 0.25), length=length))
    if d.chance(0.25):
        for _ in range(1 + int(d.between(0, 4))):
            items.append(new_item(d, "bush", d.between(4, 50), sign * (side.pavement + d.between(0.3, 3))))
    return items


def _parked(scene: Scene, d: Dice, sign: int, side: Side, lane: float) -> list[Item]:
    items: list[Item] = []
    half = lane * (len(scene.lanes) + 1) / 2
    if side.road - half > 1.5:
        filled = d.between(0.2, 0.95)
        s = d.between(4, 9)
        while s < 75:
            if d.chance(filled) and _clear(scene, s, 5):
                kind = d.choose(("car", "truck", "motorcycle", "bicycle"), (10, 0.5, 0.7, 0.3))
                heading = (0.0 if sign > 0 else math.pi) + d.between(-0.04, 0.04)
                s += 1.8 if kind == "truck" else 0.0
                items.append(new_item(d, kind, s, sign * (side.road - 1.15), heading))
                s += 1.8 if kind == "truck" else 0.0
            s += d.between(5.2, 7)
    return items


def _on_pavement(scene: Scene, d: Dice, sign: int, side: Side) -> list[Item]:
    items: list[Item] = []
    low, high = side.road + 0.4, max(side.pavement, side.road + 2.0) - 0.3
    for _ in range(int(d.between(0, 1) ** 2 * 9)):
        s, out = 4 + 45 * d.between(0, 1) ** 2, d.between(low, high)
        heading = d.between(-0.3, 0.3) + (math.pi if d.chance(0.5) else 0.0)
        items.append(new_item(d, "person", s, sign * out, heading))
        if d.chance(0.35):
            items.append(new_item(d, "person", s + d.between(-0.3, 0.3), sign * (out + 0.6), heading))
    for kind, share in (("bicycle", 0.32), ("motorcycle", 0.27)):
        if d.chance(share):
            s, out = d.between(4.5, 12), d.between(low, high)
            turn = d.between(0.3, 1.5) + (math.pi if d.chance(0.5) else 0.0)
            for i in range(1 + int(d.between(0, 3.5))):
                items.append(new_item(d, kind, s + 0.8 * i, sign * out, turn + d.between(-0.1, 0.1)))
    return items


def _traffic(scene: Scene, d: Dice, lane: float, own: float) -> list[Item]:
    items: list[Item] = []
    count = len(scene.lanes) + 1
    half = lane * count / 2
    busy = d.between(0.1, 0.9)
    kinds = ("car", "truck", "bus", "cyclist", "motorcyclist")
    odds = (3.0, *(d.between(0.2, 1.6) for _ in range(4)))
    for i in range(count):
        lateral = lane * (i + 0.5) - half
        heading = 0.0 if lateral > min(0.0, own) - 0.5 else math.pi
        if scene.rails is not None and abs(lateral - scene.rails) < 2.6:
            continue
        s = d.between(7, 30)
        while s < 90:
            if d.chance(busy):
                kind = d.choose(kinds, odds)
                extra = {"truck": 3.0, "bus": 5.0}.get(kind, 0.0)
                s += extra
                shift = lane * 0.28 if kind == "cyclist" else 0.0
                items.append(new_item(d, kind, s, lateral + shift, heading + d.between(-0.03, 0.03)))
                s += extra
            s += d.between(7, 22)
    if scene.rails is not None and d.chance(0.85):
        s = d.between(3, 18)
        items.append(new_item(d, "train", s + 13, scene.rails, math.pi if d.chance(0.6) else 0.0))
    if d.chance(0.16):
        kind = d.choose(("truck", "bus"), (1, 1))
        items.append(new_item(d, kind, d.between(9, 16), (half + 0.8) * (1 if own < 0 else -1), 0.0))
    for _ in range(int(d.between(0.3, 3))):
        kind = d.choose(("cyclist", "motorcyclist"), (1, 1))
        side = 1 if d.chance(0.6) else -1
        edge = half - d.between(0.3, 1.0)
        heading = (0.0 if side > 0 else math.pi) + d.between(-0.5, 0.5)
        items.append(new_item(d, kind, d.between(4.5, 15), side * edge, heading))
    return items


def _at_crossing(scene: Scene, d: Dice) -> list[Item]:
    assert scene.crossing is not None
    start, end = scene.crossing
    items: list[Item] = []
    for sign, side in zip((-1, 1), scene.sides, strict=True):
        for s in (start - 1.5, end + 1.5):
            if d.chance(0.7):
                out = sign * (side.road + 0.7)
                items.append(new_item(d, "light", s, out, 0.0 if sign > 0 else math.pi))
    for _ in range(int(d.between(0, 4))):
        items.append(new_item(d, "person", start - d.between(2, 3.5), d.between(-6, 6), d.between(1.2, 1.9)))
    kinds = ("car", "bus", "truck", "cyclist", "motorcyclist", "none")
    for where, heading in ((0.3, math.pi / 2), (0.7, -math.pi / 2)):
        kind = d.choose(kinds, (3, 1, 1, 1.2, 1.2, 2))
        if kind != "none":
            s = start + (end - start) * where
            items.append(new_item(d, kind, s, d.between(-16, 16), heading + d.between(-0.1, 0.1)))
    return items
