"""Expectation over Transformation: what is drawn for each training sample, and how it is applied.

Every draw is addressed by (seed, step, sample), so resuming needs only the step number, and any split over
workers, devices or micro-batches draws the same scenes. Source: Athalye et al., arXiv:1707.07397; the
scene part as arXiv:2502.16012 trains its patches, the patch part as arXiv:2201.01850 does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from segpatch.compositing import centre_region, cover, draw_region, paste
from segpatch.errors import BadInput
from segpatch.transforms import Scene, SceneEOT, draw_scene
from segpatch.types import IGNORE, Region

PLACES = ("centre", "drawn")


@dataclass(frozen=True)
class PatchEOT:
    """The distribution of what happens to the patch before it is pasted.

    scale: (low, high) factor of its size; rotation: degrees to either side; perspective: corner shift as a
    share of half the side; brightness: added, to either side; contrast: (low, high) factor about mid grey;
    noise: standard deviation of Gaussian noise. Brightness and noise are in units of the [0, 1] pixel range.
    """

    scale: tuple[float, float] = (0.8, 1.2)
    rotation: float = 20.0
    perspective: float = 0.1
    brightness: float = 0.1
    contrast: tuple[float, float] = (0.9, 1.1)
    noise: float = 0.03


@dataclass(frozen=True)
class EOT:
    """The whole distribution: the scene, the patch (None: pasted as it is) and the place (see PLACES)."""

    scene: SceneEOT = field(default_factory=SceneEOT)
    patch: PatchEOT | None = None
    place: str = "centre"

    def __post_init__(self) -> None:
        if self.place not in PLACES:
            raise BadInput(f"place must be one of {', '.join(PLACES)}; got {self.place!r}")


@dataclass(frozen=True)
class Placement:
    """One drawn appearance of the patch: where, and (for a changed patch) how.

    region: its bounding box. corners: where its four corners land, in pixels from the region's top left
    (clockwise from top left), or None for a patch pasted as it is.
    """

    region: Region
    corners: tuple[tuple[float, float], ...] | None = None
    brightness: float = 0.0
    contrast: float = 1.0
    noise: float = 0.0
    noise_seed: int = 0


def generator_at(*address: int) -> np.random.Generator:
    """A generator of its own for an address such as (seed, step, sample); the same wherever it is asked.

    Numbers below 2**32, because numpy splits larger ones into words; trailing zeros do not tell addresses apart.
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(address)))


def draw(
    eot: EOT, address: tuple[int, ...], image_size: tuple[int, int], patch_size: tuple[int, int]
) -> tuple[Scene, Placement]:
    """The scene and the placement of the sample at an address, for an image (H, W) and a patch (h, w)."""
    generator = generator_at(*address)
    scene = draw_scene(eot.scene, *image_size, generator)
    return scene, draw_placement(eot, scene.size, patch_size, generator)


def largest_size(drawn: PatchEOT | None, patch_size: tuple[int, int]) -> tuple[int, int]:
    """Height and width that no drawn appearance of a patch (h, w) exceeds, in pixels."""
    if drawn is None:
        return patch_size
    half_h, half_w = ((side - 1 + drawn.perspective * side) / 2 for side in patch_size)
    most = np.deg2rad(drawn.rotation)

    def longest(along: float, across: float) -> int:
        angle = min(most, np.arctan2(across, along))  # where the turned side is longest
        return int(np.ceil(2 * max(drawn.scale) * (along * np.cos(angle) + across * np.sin(angle)))) + 1

    return longest(half_h, half_w), longest(half_w, half_h)


def draw_placement(
    eot: EOT, size: tuple[int, int], patch_size: tuple[int, int], generator: np.random.Generator
) -> Placement:
    """Where and how a patch (h, w) appears in an image of `size` (H, W)."""
    if eot.patch is None:
        return Placement(_place(eot.place, size, patch_size, generator))
    drawn = eot.patch
    corners = _draw_corners(drawn, patch_size, generator)
    low = corners.min(axis=0)
    box = np.ceil(corners.max(axis=0) - low).astype(int) + 1
    region = _place(eot.place, size, (int(box[1]), int(box[0])), generator)
    return Placement(
        region,
        corners=tuple((float(x), float(y)) for x, y in corners - low),
        brightness=float(generator.uniform(-drawn.brightness, drawn.brightness)),
        contrast=float(generator.uniform(*drawn.contrast)),
        noise=drawn.noise,
        noise_seed=int(generator.integers(2**63)),
    )


def apply_placement(image: Tensor, labels: Tensor, patch: Tensor, placement: Placement) -> tuple[Tensor, Tensor]:
    """The patched image (3, H, W) and labels (H, W), IGNORE wherever the patch shows.

    Differentiable in the patch (3, h, w). A changed patch is warped by the homography of its corners and
    blended at its edge; noise is replayed from the placement's own seed.
    """
    region = placement.region
    if placement.corners is None:
        return paste(image, patch, region), cover(labels, region)
    warped, alpha = _warp(patch, placement)
    rows = slice(region.top, region.top + region.height)
    columns = slice(region.left, region.left + region.width)
    under = image[:, rows, columns]
    # Written with `where`, so that pixels which the patch does not touch keep their bits.
    inside = torch.where(alpha > 0, warped + (1 - alpha) * under, under)
    labels = labels.clone()
    labels[rows, columns] = torch.where(alpha[0] > 0, IGNORE, labels[rows, columns])
    return paste(image, inside, region), labels


def _place(place: str, size: tuple[int, int], box: tuple[int, int], generator: np.random.Generator) -> Region:
    return centre_region(*size, *box) if place == "centre" else draw_region(*size, *box, generator)


def _draw_corners(
    drawn: PatchEOT, patch_size: tuple[int, int], generator: np.random.Generator
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Corners (4, 2) as x, y about the patch's centre: scaled, rotated, each shifted on its own."""
    h, w = patch_size
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * np.array([w - 1, h - 1]) / 2
    angle = np.deg2rad(generator.uniform(-drawn.rotation, drawn.rotation))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    shift = generator.uniform(-drawn.perspective, drawn.perspective, (4, 2)) * np.array([w, h]) / 2
    corners: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = (
        (square + shift) @ turn * generator.uniform(*drawn.scale)
    )
    return corners


def _warp(patch: Tensor, placement: Placement) -> tuple[Tensor, Tensor]:
    """The patch as it appears (3, h', w'), already times its opacity, and the opacity (1, h', w')."""
    from kornia.geometry.transform import get_perspective_transform, warp_perspective

    h, w = patch.shape[-2:]
    region = placement.region
    mid_grey = 0.5
    shown = (patch - mid_grey) * placement.contrast + mid_grey + placement.brightness
    if placement.noise:
        noise = generator_at(placement.noise_seed).standard_normal(tuple(patch.shape), dtype=np.float32)
        shown = shown + placement.noise * torch.from_numpy(noise).to(patch)
    layers = torch.cat([shown.clamp(0, 1), torch.ones_like(patch[:1])])
    start = torch.tensor([[[0, 0], [w - 1, 0], [w - 1, h - 1], [0, h - 1]]]).to(patch)
    end = torch.tensor([placement.corners]).to(patch)
    matrix = get_perspective_transform(start, end)
    out = warp_perspective(layers[None], matrix, (region.height, region.width), align_corners=True)[0]
    return out[:3], out[3:]
