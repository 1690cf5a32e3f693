"""The scene's part of EOT: an image rescaled, cropped and flipped, its labels with it.

Chance is in `draw_scene`; applying a scene is exact, so any sample can be replayed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segpatch.bounds import check_number, check_size
from segpatch.errors import BadInput
from segpatch.types import IGNORE

LARGEST_SCALE = 100.0


@dataclass(frozen=True)
class SceneEOT:
    """The distribution that scenes are drawn from.

    scales: a (low, high) pair to draw uniformly from, or a longer tuple of values to choose among; crop:
    height and width of the result in pixels, or None to keep the size of the image (no scaling either);
    flip: the chance of mirroring left and right.
    """

    scales: tuple[float, ...] = (0.5, 2.0)
    crop: tuple[int, int] | None = None
    flip: float = 0.5

    def __post_init__(self) -> None:
        for scale in self.scales:
            check_number("each of scales", scale, 0, LARGEST_SCALE, above=True)
        if len(self.scales) < 2 or self.scales[0] > self.scales[-1]:
            raise BadInput(f"scales must be (low, high) or a list of values, got {self.scales}")
        if self.crop is not None:
            check_size("crop", self.crop)
        check_number("flip", self.flip, 0, 1)


@dataclass(frozen=True)
class Scene:
    """One drawn transformation: resize to scaled (height, width), crop at (top, left) to size, maybe flip."""

    scaled: tuple[int, int]
    top: int
    left: int
    size: tuple[int, int]
    flip: bool


def draw_scene(eot: SceneEOT, height: int, width: int, generator: np.random.Generator) -> Scene:
    """A scene for an image of height x width pixels.

    The crop lies anywhere inside the scaled image; where the scaled image is smaller than the crop it stays
    at the top left and the rest is padding. Source: arXiv:2502.16012, section III-A and its released loader.
    """
    flip = bool(generator.random() < eot.flip)
    if eot.crop is None:
        return Scene((height, width), 0, 0, (height, width), flip)
    if len(eot.scales) == 2:
        scale = float(generator.uniform(*eot.scales))
    else:  # as the released loader: the long side is rounded, and the short one made from it
        long = max(height, width)
        scale = int(long * float(eot.scales[generator.integers(len(eot.scales))]) + 0.5) / long
    scaled = (max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))
    top = int(generator.integers(max(0, scaled[0] - eot.crop[0]) + 1))
    left = int(generator.integers(max(0, scaled[1] - eot.crop[1]) + 1))
    return Scene(scaled, top, left, eot.crop, flip)


def apply_scene(image: Tensor, scene: Scene) -> Tensor:
    """The transformed image (3, h, w) float, of an image (3, H, W) uint8 or in [0, 1]; padding is black (0).

    Bilinear without smoothing, pixel centres at half integers, as OpenCV and torch (align_corners=False).
    """
    top, bottom, along_rows, inside_rows = _bilinear(image.shape[1], scene.scaled[0], scene.top, scene.size[0])
    left, right, along_columns, inside_columns = _bilinear(
        image.shape[2], scene.scaled[1], scene.left, scene.size[1]
    )
    # Only what the crop shows is looked at, rows first: a row lies together in memory.
    first, last = int(left[0]), int(right[-1]) + 1
    seen = image[:, :, first:last]
    low, high = (as_float(seen.index_select(1, rows.to(image.device))) for rows in (top, bottom))
    rows = low.lerp_(high, along_rows.to(low).view(1, -1, 1))
    low, high = (_columns(rows, columns - first) for columns in (left, right))
    out = low.lerp_(high, along_columns.to(low))
    if not bool(inside_rows[-1] & inside_columns[-1]):
        out = torch.where((inside_rows.view(-1, 1) & inside_columns).to(image.device), out, 0.0)
    return out.flip(-1) if scene.flip else out


def apply_scene_to_labels(labels: Tensor, scene: Scene) -> Tensor:
    """The transformed labels (h, w), of labels (H, W): nearest pixel; padding is IGNORE."""
    rows, inside_rows = _nearest(labels.shape[0], scene.scaled[0], scene.top, scene.size[0])
    columns, inside_columns = _nearest(labels.shape[1], scene.scaled[1], scene.left, scene.size[1])
    out = _columns(labels.index_select(0, rows.to(labels.device)), columns)
    if not bool(inside_rows[-1] & inside_columns[-1]):
        out = torch.where((inside_rows.view(-1, 1) & inside_columns).to(labels.device), out, IGNORE)
    return out.flip(-1) if scene.flip else out


def as_float(image: Tensor) -> Tensor:
    """The image in [0, 1], of one in uint8 0..255 or already in [0, 1]."""
    return image.float() / 255 if image.dtype == torch.uint8 else image


def _columns(image: Tensor, columns: Tensor) -> Tensor:
    """These columns of an image (..., H, W); on a CPU five times as fast as index_select along the last axis."""
    return image.gather(-1, columns.to(image.device).expand(*image.shape[:-1], -1))


def _positions(length: int, scaled: int, start: int, size: int) -> tuple[Tensor, Tensor]:
    """Where the crop's pixels lie in the image (size,) float64, and which of them lie inside it."""
    target = torch.arange(start, start + size, dtype=torch.float64)
    return (target + 0.5) * (length / scaled) - 0.5, target < scaled


def _bilinear(length: int, scaled: int, start: int, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    position, inside = _positions(length, scaled, start, size)
    position = position.clamp(0, length - 1)
    low = position.floor().long()
    return low, (low + 1).clamp(max=length - 1), position - low, inside


def _nearest(length: int, scaled: int, start: int, size: int) -> tuple[Tensor, Tensor]:
    position, inside = _positions(length, scaled, start, size)
    return (position + 0.5).floor().clamp(0, length - 1).long(), inside
