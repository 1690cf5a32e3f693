"""Putting a patch into images, and taking the pixels under it out of the labels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segpatch.errors import BadInput
from segpatch.types import IGNORE, Region


def centre_region(height: int, width: int, h: int, w: int) -> Region:
    """The h x w region in the middle of a height x width image (rounded up and left)."""
    _must_fit(height, width, h, w)
    return Region((height - h) // 2, (width - w) // 2, h, w)


def draw_region(height: int, width: int, h: int, w: int, generator: np.random.Generator) -> Region:
    """An h x w region drawn uniformly among those inside a height x width image."""
    _must_fit(height, width, h, w)
    top = int(generator.integers(height - h + 1))
    left = int(generator.integers(width - w + 1))
    return Region(top, left, h, w)


def paste(images: Tensor, patch: Tensor, region: Region) -> Tensor:
    """New images (..., 3, H, W) with the patch (3, h, w) at the region; all other pixels keep their bits.

    The patch takes its gradient from every image it is pasted into.
    """
    _must_lie_inside(images, region)
    if patch.shape[-2:] != (region.height, region.width):
        raise BadInput(
            f"a {patch.shape[-2]}x{patch.shape[-1]} patch was given for a region of "
            f"{region.height}x{region.width}; both must be the same size"
        )
    out = images.clone(memory_format=torch.preserve_format)
    out[(..., *_slices(region))] = patch.to(images.dtype)
    return out


def cover(labels: Tensor, region: Region) -> Tensor:
    """New labels (..., H, W) with IGNORE under the region, so that the patch's own pixels never count."""
    _must_lie_inside(labels, region)
    out = labels.clone()
    out[(..., *_slices(region))] = IGNORE
    return out


def _slices(region: Region) -> tuple[slice, slice]:
    return (
        slice(region.top, region.top + region.height),
        slice(region.left, region.left + region.width),
    )


def _must_fit(height: int, width: int, h: int, w: int) -> None:
    if h > height or w > width:
        raise BadInput(f"a {h}x{w} patch does not fit images of {height}x{width}; crop larger or shrink it")


def _must_lie_inside(images: Tensor, region: Region) -> None:
    height, width = images.shape[-2:]
    if min(region) < 0 or region.top + region.height > height or region.left + region.width > width:
        raise BadInput(
            f"the patch region {tuple(region)} (top, left, height, width) leaves images of {height}x{width}"
        )
