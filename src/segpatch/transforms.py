"""The scene's part of EOT: an image rescaled, cropped and flipped, its labels with it.

Chance is in `draw_scene`; applying a scene is exact, so any sample can be replayed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

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
    down = _bilinear(image.shape[1], scene.scaled[0], scene.top, scene.size[0])
    along = _bilinear(image.shape[2], scene.scaled[1], scene.left, scene.size[1], scene.flip)
    if image.dtype == torch.uint8 and image.device.type == "cpu":
        out = _compiled_scene(image, down, along)
    else:
        # Only what the crop shows is looked at, rows first: a row lies together in memory.
        first, last = int(along.low.min()), int(along.high.max()) + 1
        seen = image[:, :, first:last]
        low, high = (as_float(seen.index_select(1, rows.to(image.device))) for rows in (down.low, down.high))
        rows = low.lerp_(high, down.share.to(low).view(1, -1, 1))
        low, high = (_columns(rows, columns - first) for columns in (along.low, along.high))
        out = low.lerp_(high, along.share.to(low))
    return _fill(out, down.inside, along.inside, 0)


def _compiled_scene(image: Tensor, down: _Places, along: _Places) -> Tensor:
    """The resized image (3, h, w) in [0, 1], each pixel's channels together, of one (3, H, W) uint8 on a CPU."""
    from segpatch import kernels

    out = np.empty((len(down.low), len(along.low), 3), np.float32)
    kernels.resize_image(image.permute(1, 2, 0).contiguous().numpy(), *down.numpy(), *along.numpy(), out)
    return torch.from_numpy(out).permute(2, 0, 1)


def apply_scene_to_labels(labels: Tensor, scene: Scene) -> Tensor:
    """The transformed labels (h, w), of labels (H, W): nearest pixel; padding is IGNORE."""
    rows, inside_rows = _nearest(labels.shape[0], scene.scaled[0], scene.top, scene.size[0])
    columns, inside_columns = _nearest(labels.shape[1], scene.scaled[1], scene.left, scene.size[1], scene.flip)
    out = _columns(labels.index_select(0, rows.to(labels.device)), columns)
    return _fill(out, inside_rows, inside_columns, IGNORE)


def as_float(image: Tensor) -> Tensor:
    """The image in [0, 1], of one in uint8 0..255 or already in [0, 1]."""
    return image.float() / 255 if image.dtype == torch.uint8 else image


def _columns(image: Tensor, columns: Tensor) -> Tensor:
    """These columns of an image (..., H, W); on a CPU five times as fast as index_select along the last axis."""
    return image.gather(-1, columns.to(image.device).expand(*image.shape[:-1], -1))


def _fill(image: Tensor, inside_rows: Tensor, inside_columns: Tensor, value: int) -> Tensor:
    """The image (..., h, w), in place, with a value wherever it isn't inside."""
    for axis, inside in ((-2, inside_rows), (-1, inside_columns)):
        if not inside.all():
            image.index_fill_(axis, (~inside).nonzero().flatten().to(image.device), value)
    return image


def _positions(length: int, scaled: int, start: int, size: int, flip: bool) -> tuple[Tensor, Tensor]:
    """Where the crop's pixels lie in the image (size,) float64, and which of them lie inside it."""
    target = torch.arange(start, start + size, dtype=torch.float64)
    target = target.flip(0) if flip else target
    return (target + 0.5) * (length / scaled) - 0.5, target < scaled


class _Places(NamedTuple):
    """Where a crop's pixels lie in an image along one axis (size,): the two that each lies between, its share of
    the way to the second, and whether it lies inside."""

    low: Tensor
    high: Tensor
    share: Tensor
    inside: Tensor

    def numpy(self) -> tuple[Any, Any, Any]:
        """low, high, share, the last in single precision."""
        return self.low.numpy(), self.high.numpy(), self.share.float().numpy()


def _bilinear(length: int, scaled: int, start: int, size: int, flip: bool = False) -> _Places:
    position, inside = _positions(length, scaled, start, size, flip)
    position = position.clamp(0, length - 1)
    low = position.floor().long()
    return _Places(low, (low + 1).clamp(max=length - 1), position - low, inside)


def _nearest(length: int, scaled: int, start: int, size: int, flip: bool = False) -> tuple[Tensor, Tensor]:
    position, inside = _positions(length, scaled, start, size, flip)
    return (position + 0.5).floor().clamp(0, length - 1).long(), inside
