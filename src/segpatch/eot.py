"""Expectation over Transformation: what is drawn for each training sample, and how it is applied.

Every draw is addressed by (seed, step, sample), so resuming needs only the step number, and any split over
workers, devices or micro-batches draws the same scenes. Source: Athalye et al., arXiv:1707.07397; the
scene part as arXiv:2502.16012 trains its patches, the patch part as arXiv:2201.01850 does.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segpatch.bounds import check_number, check_pair
from segpatch.compositing import centre_region, cover, draw_region, paste
from segpatch.errors import BadInput
from segpatch.transforms import LARGEST_SCALE, Scene, SceneEOT, draw_scene
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

    def __post_init__(self) -> None:
        check_pair("the patch's scale", self.scale, 0, LARGEST_SCALE, above=True)
        check_number("rotation", self.rotation, 0, 180)
        check_number("perspective", self.perspective, 0, 1, below=True)
        check_number("brightness", self.brightness, 0, 1)
        check_pair("contrast", self.contrast, 0, 10)
        check_number("noise", self.noise, 0, 1)


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


@dataclass(frozen=True)
class Appearance:
    """A placement worked out for a patch of one size, without its pixels: what can be made ready before a step.

    alpha (1, h', w'): how much of the region's pixels is patch; grid (1, h', w', 2): where in the patch they come
    from, as torch.nn.functional.grid_sample takes it; noise (3, h, w). None for a patch pasted as it is.
    """

    placement: Placement
    alpha: Tensor | None = None
    grid: Tensor | None = None
    noise: Tensor | None = None

    def to(self, device: torch.device) -> Appearance:
        """The same, with its tensors on a device."""
        alpha, grid, noise = (
            part if part is None else part.to(device) for part in (self.alpha, self.grid, self.noise)
        )
        return replace(self, alpha=alpha, grid=grid, noise=noise)

    @property
    def at(self) -> tuple[slice, slice, slice]:
        """The region of an image (3, H, W): all channels, its rows and columns."""
        region = self.placement.region
        rows = slice(region.top, region.top + region.height)
        return slice(None), rows, slice(region.left, region.left + region.width)

    def cover(self, labels: Tensor) -> Tensor:
        """New labels (H, W), IGNORE wherever the patch shows."""
        if self.alpha is None:
            return cover(labels, self.placement.region)
        labels = labels.clone()
        inside = labels[self.at[1:]]
        labels[self.at[1:]] = torch.where(self.alpha[0].to(labels.device) > 0, IGNORE, inside)
        return labels

    def over(self, under: Tensor, patch: Tensor) -> Tensor:
        """The region with the patch (3, h, w) in it (3, h', w'), of what is under it, of the same shape.

        Differentiable in the patch, which is warped by the homography of its corners and blended at its edge.
        """
        if self.alpha is None or self.grid is None:
            return patch.to(under.dtype)
        placement, mid_grey = self.placement, 0.5
        shown = (patch - mid_grey) * placement.contrast + mid_grey + placement.brightness
        if self.noise is not None:
            shown = shown + placement.noise * self.noise.to(patch)
        warped, alpha = _sample(shown.clamp(0, 1), self.grid.to(patch)), self.alpha.to(patch)
        # Written with `where`, so that pixels which the patch does not touch keep their bits.
        return torch.where(alpha > 0, warped + (1 - alpha) * under, under)


def appearance(placement: Placement, patch_size: tuple[int, int]) -> Appearance:
    """How a patch (h, w) appears at a placement; noise is replayed from the placement's own seed."""
    if placement.corners is None:
        return Appearance(placement)
    from kornia.geometry.transform import get_perspective_transform

    h, w = patch_size
    start = torch.tensor([[[0, 0], [w - 1, 0], [w - 1, h - 1], [0, h - 1]]], dtype=torch.float64)
    end = torch.tensor([placement.corners], dtype=torch.float64)
    back = get_perspective_transform(end, start)[0]
    height, width = placement.region.height, placement.region.width
    y, x = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    source = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ back.T
    source = source[..., :2] / source[..., 2:]
    grid = (source * 2 / torch.tensor([max(1, w - 1), max(1, h - 1)]) - 1).float()[None]
    noise = None
    if placement.noise:
        drawn = generator_at(placement.noise_seed).standard_normal((3, h, w), dtype=np.float32)
        noise = torch.from_numpy(drawn)
    return Appearance(placement, _sample(torch.ones(1, h, w), grid), grid, noise)


def apply_placement(image: Tensor, labels: Tensor, patch: Tensor, placement: Placement) -> tuple[Tensor, Tensor]:
    """The patched image (3, H, W) and labels (H, W), IGNORE wherever the patch (3, h, w) shows.

    Differentiable in the patch; all pixels that it does not touch keep their bits.
    """
    look = appearance(placement, (patch.shape[1], patch.shape[2]))
    return paste(image, look.over(image[look.at], patch), placement.region), look.cover(labels)


def _sample(layers: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(layers[None], grid, mode="bilinear", padding_mode="zeros", align_corners=True)[0]


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
