"""Patches as things: the pixels, where they came from, and the control patches beside them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from segpatch.bounds import MOST_PIXELS
from segpatch.data.files import opened, read_image
from segpatch.eot import generator_at
from segpatch.errors import BadInput, Missing, SegpatchError
from segpatch.reading import must_be_plain
from segpatch.writing import write_whole

Range = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Lowest and highest value of each channel that a patch may take, in [0, 1]."""

FULL_RANGE: Range = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
RELEASED_RANGE: Range = ((0.485, 0.456, 0.406), (0.714, 0.680, 0.631))
"""ImageNet mean to mean + std: what the published run's clamp to [0, 1] in normalised units allowed."""

KINDS = ("trained", "grey", "random", "natural")
PNG = "png/"
"""How the name of a patch begins that went through 8 bits a channel."""
_ABOUT = "segpatch"  # the text of a PNG that says what patch it is
_RECORD = {
    "name": str,
    "kind": str,
    "preset": str | None,
    "trained_on": list,
    "loss": str | None,
    "steps": int,
    "seed": int | None,
    "place": str,
    "origin": dict,
}
_PIXELS = 0x70697865  # "pixe": an address that no training step reaches


@dataclass(frozen=True, eq=False)
class Patch:
    """A patch and its origin.

    pixels (3, h, w) float32 RGB in [0, 1]; name: unique in a run, such as "pidnet-s/strong/s0"; kind: one of
    KINDS; trained_on: names of the networks; range: see Range; origin: everything needed to train it again
    (resolved config, data, victims).
    """

    pixels: Tensor
    name: str = "patch"
    kind: str = "trained"
    preset: str | None = None
    trained_on: tuple[str, ...] = ()
    loss: str | None = None
    steps: int = 0
    seed: int | None = None
    place: str = "centre"
    range: Range = FULL_RANGE
    origin: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (
            self.pixels.ndim != 3
            or self.pixels.shape[0] != 3
            or not self.pixels.numel()
            or not self.pixels.is_floating_point()
        ):
            raise BadInput(f"a patch is a float tensor (3, h, w), got {tuple(self.pixels.shape)}")
        if not bool(torch.isfinite(self.pixels).all()) or not 0 <= self.pixels.min() <= self.pixels.max() <= 1:
            raise BadInput("patch pixels must be finite and lie in [0, 1]")
        if self.kind not in KINDS:
            raise BadInput(f"a patch's kind is one of {', '.join(KINDS)}; got {self.kind!r}")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[1], self.pixels.shape[2]

    def sha256(self) -> str:
        """Of the exact pixels, in hex."""
        return hashlib.sha256(self.pixels.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()

    def facts(self) -> dict[str, Any]:
        """What is known of the patch beside its pixels and origin, ready for JSON."""
        return {
            "name": self.name,
            "kind": self.kind,
            "preset": self.preset,
            "trained_on": list(self.trained_on),
            "loss": self.loss,
            "steps": self.steps,
            "seed": self.seed,
            "height": self.size[0],
            "width": self.size[1],
            "place": self.place,
            "range": [list(pair) for pair in zip(*self.range, strict=True)],
            "sha256": self.sha256(),
        }

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        return as_png(self)


def save_patch(patch: Patch, path: Path) -> None:
    """Writes the exact pixels with all that is known of them, and an 8-bit PNG of the same name beside it."""
    pixels = patch.pixels.detach().float().cpu().contiguous()
    about = {**patch.facts(), "origin": patch.origin}
    write_whole(path.with_suffix(".png"), as_png(patch))
    write_whole(path, save({"pixels": pixels}, metadata={"segpatch": json.dumps(about)}))


def load_patch(path: Path | str) -> Patch:
    """The patch of a `.safetensors` patch file, of the run directory that holds one, or of a PNG (see `rounded`).

    Raises Missing where there is none, BadInput where the file is damaged or holds no patch.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "patch.safetensors"
    if not path.is_file():
        raise Missing(f"no patch at {path}; give a patch.safetensors or the run directory that holds one")
    if path.suffix.lower() == ".png":
        return _from_png(path)
    must_be_plain(path, 16 * MOST_PIXELS)
    try:
        with safe_open(path, framework="pt") as file:
            if list(file.keys()) != ["pixels"]:
                raise BadInput(f"{path} holds no patch but other tensors; give a patch.safetensors")
            pixels = file.get_tensor("pixels")
            about = json.loads((file.metadata() or {}).get(_ABOUT, "{}"))
    except BadInput:
        raise
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} is no whole patch file ({error}); train the patch again") from error
    patch = _patch_of(pixels.float() if pixels.is_floating_point() else pixels, about, path)
    if about.get("sha256", patch.sha256()) != patch.sha256():
        raise BadInput(f"{path} is damaged: its pixels are not those that were saved; train the patch again")
    return patch


def rounded(patch: Patch) -> Patch:
    """The patch as its PNG has it, 8 bits a channel: `png/NAME`."""
    pixels = torch.from_numpy(as_uint8(patch.pixels)).permute(2, 0, 1).float() / 255
    return replace(patch, pixels=pixels, name=patch.name if patch.name.startswith(PNG) else f"{PNG}{patch.name}")


def as_png(patch: Patch) -> bytes:
    """The patch as a PNG of 8 bits a channel, which says what it is."""
    about = {key: value for key, value in patch.facts().items() if key not in ("height", "width", "sha256")}
    text, out = PngInfo(), io.BytesIO()
    text.add_text(_ABOUT, json.dumps(about))
    Image.fromarray(as_uint8(patch.pixels)).save(out, "PNG", pnginfo=text)
    return out.getvalue()


def says_patch(path: Path) -> bool:
    """Whether a picture says that it is a patch, as those of `as_png` do; False for what is no picture."""
    with contextlib.suppress(SegpatchError), opened(path) as picture:
        return _ABOUT in picture.info
    return False


def _from_png(path: Path) -> Patch:
    pixels = torch.from_numpy(read_image(path)).permute(2, 0, 1).float() / 255
    with opened(path) as picture:
        text = picture.info.get(_ABOUT, "{}")
    try:
        about = dict(json.loads(text))
    except (TypeError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} says in a damaged record what patch it is ({error}); export it again") from error
    return rounded(_patch_of(pixels, about, path))


def _patch_of(pixels: Tensor, about: Any, path: Path) -> Patch:
    """The patch of pixels and of what its file says about it; BadInput where that makes no sense."""
    if not isinstance(about, dict):
        raise BadInput(f"{path} is no whole patch file (its record is no table); train the patch again")
    for key, kind in _RECORD.items():
        if key in about and not isinstance(about[key], kind):
            got = type(about[key]).__name__
            raise BadInput(f"{path} is no whole patch file (its {key} is of type {got}); train the patch again")
    try:
        (r, R), (g, G), (b, B) = about.get("range", zip(*FULL_RANGE, strict=True))
        low, high = (float(r), float(g), float(b)), (float(R), float(G), float(B))
    except (TypeError, ValueError, OverflowError) as error:
        raise BadInput(f"{path} is no whole patch file (its range: {error}); train the patch again") from error
    return Patch(
        pixels,
        name=about.get("name", path.stem),
        kind=about.get("kind", "trained"),
        preset=about.get("preset"),
        trained_on=tuple(map(str, about.get("trained_on", ()))),
        loss=about.get("loss"),
        steps=about.get("steps", 0),
        seed=about.get("seed"),
        place=about.get("place", "centre"),
        range=(low, high),
        origin=about.get("origin", {}),
    )


def as_uint8(pixels: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """(h, w, 3) uint8, rounded, of pixels (3, h, w) in [0, 1]."""
    out: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] = (
        pixels.detach().cpu().clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    )
    return out


def random_pixels(size: tuple[int, int], within: Range, seed: int) -> Tensor:
    """Pixels (3, h, w), uniform in the range: a control, and what every trained patch starts from."""
    low, high = (torch.tensor(bound).view(3, 1, 1) for bound in within)
    uniform = generator_at(seed, _PIXELS).random((3, *size), dtype=np.float32)
    return low + (high - low) * torch.from_numpy(uniform)


def random_patch(size: tuple[int, int], within: Range, seed: int) -> Patch:
    """The random control of a pixel range: `random/full/s0`, `random/released/s0`."""
    name = f"random/{range_name(within)}/s{seed}"
    return Patch(random_pixels(size, within, seed), name=name, kind="random", seed=seed, range=within)


def grey_patch(size: tuple[int, int]) -> Patch:
    """The grey control, 0.5 in every channel: what mere occlusion does."""
    return Patch(torch.full((3, *size), 0.5), name="grey", kind="grey")


def natural_patch(size: tuple[int, int], image: Tensor, seed: int) -> Patch:
    """The natural control: a drawn crop of another scene, of an image (3, H, W) in [0, 1]."""
    h, w = size
    if image.shape[1] < h or image.shape[2] < w:
        raise BadInput(f"a natural {h}x{w} patch does not fit in a scene of {image.shape[1]}x{image.shape[2]}")
    generator = generator_at(seed, _PIXELS)
    top = int(generator.integers(image.shape[1] - h + 1))
    left = int(generator.integers(image.shape[2] - w + 1))
    crop = image[:, top : top + h, left : left + w].float().clone()
    return Patch(crop, name="natural", kind="natural", seed=seed)


def range_name(within: Range) -> str:
    """ "full", "released", or the bounds themselves."""
    named = {FULL_RANGE: "full", RELEASED_RANGE: "released"}
    return named.get(within) or "-".join(f"{v:.3f}" for bound in within for v in bound)
