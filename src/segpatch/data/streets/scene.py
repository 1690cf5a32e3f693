"""What a street is made of before any pixel: camera, light, cross-section, items; and the dice for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segpatch.data.streets.canvas import Camera, Colour, Light

NUMBERS = 24  # uniform numbers carried by each item for its own looks


@dataclass(frozen=True)
class Item:
    """Something to paint: `kind` names its painter, `length` is its extent along the road if it is a row."""

    kind: str
    s: float
    lateral: float
    heading: float
    length: float
    r: tuple[float, ...]
    behind: float = 0.0  # metres added to its distance when sorting far to near


@dataclass(frozen=True, kw_only=True)
class Side:
    """Cross-section of one side: distances from the road's centre line where each strip ends."""

    road: float
    verge: float  # strip between road and pavement
    verge_paved: bool
    pavement: float
    front: float  # where the buildings, walls and fences stand
    yard_paved: bool


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything random about an image."""

    camera: Camera
    light: Light
    sides: tuple[Side, Side]  # left, right
    crossing: tuple[float, float] | None  # where a cross street starts and ends
    lanes: tuple[float, ...]  # lateral positions of the lines between lanes
    rails: float | None  # lateral position of a track
    ground: tuple[Colour, ...]  # road, marking, pavement, terrain
    paving: int  # which pavement texture
    sky: tuple[Colour, Colour, Colour, float]  # zenith, horizon, cloud, cover
    tone: tuple[float, ...]  # exposure, white balance (3), gamma, noise, blur
    offsets: tuple[int, ...]
    items: tuple[Item, ...]


class Dice:
    """Short names for the draws a scene needs."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator

    def between(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * float(self.generator.random())

    def chance(self, share: float) -> bool:
        """True with this probability."""
        return float(self.generator.random()) < share

    def choose(self, names: Sequence[str], weights: Sequence[float]) -> str:
        """One of the names, with odds in proportion to the weights."""
        at = self.between(0, sum(weights))
        for name, weight in zip(names, weights, strict=True):
            at -= weight
            if at < 0:
                return name
        return names[-1]

    def numbers(self, count: int = NUMBERS) -> tuple[float, ...]:
        """Uniform numbers in [0, 1)."""
        return tuple(self.generator.random(count).tolist())


def new_item(
    d: Dice,
    kind: str,
    s: float,
    lateral: float,
    heading: float = 0.0,
    length: float = 0.0,
    behind: float = 0.0,
) -> Item:
    """An item with fresh numbers for its looks."""
    return Item(kind, s, lateral, heading, length, d.numbers(), behind)
