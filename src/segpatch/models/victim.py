"""A network as the rest of segpatch sees it: images in [0, 1] in, logits at image size out."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segpatch.bounds import MOST_SIDE, check_number, check_whole, check_whole_or_none
from segpatch.data.classes import CITYSCAPES, ClassMap, ClassSet, class_map
from segpatch.errors import BadInput
from segpatch.losses import merge_logits
from segpatch.models.blocks import resize, size_of

_LARGEST = 1e6  # of what images are normalised with, and one over it the smallest
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a victim's weights come from, as far as it is known."""

    network: str = "custom"
    family: str = "cnn"
    checkpoint: str | None = None
    sha256: str | None = None
    trained_on: str | None = None
    """Data set and split, such as "cityscapes train"."""
    clean_miou: float | None = None
    """The clean mIoU recorded with the weights, a fraction."""
    clean_on: str | None = None
    """The data set and split that clean_miou was measured on."""
    preprocessing: str | None = None
    """What of the preprocessing is only assumed, because the checkpoint does not say it."""
    taken_for: str | None = None
    """The published checkpoint that a file was taken for by its name; what the file does not say is of it."""
    licence: str | None = None


class Raw(NamedTuple):
    """A network's own logits (B, K, h, w), and the size (H', W') of the padded images that they are resized to."""

    logits: Tensor
    size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Victim:
    """A segmentation network with everything that belongs to its input and output.

    module: any nn.Module; mean, std: per channel, of images in [0, 1] x value_range; channel_order: "rgb" or
    "bgr"; output: which element of a tuple or dict that the module returns; size_multiple, size_offset: images
    are padded right and bottom with the mean colour until their sides are size_offset above a multiple of
    size_multiple; align_corners: of the final bilinear resize, inside the module or after it; window, stride:
    sliding-window inference in pixels, None for the whole image at once; classes: what the logits mean;
    class_map: how they are merged into the classes of a data set.

    The module is put into eval mode and its weights get no gradients. Raises BadInput on impossible settings.
    """

    module: nn.Module
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    name: str = "victim"
    channel_order: str = "rgb"
    value_range: float = 1.0
    output: int | str | None = None
    size_multiple: int = 1
    size_offset: int = 0
    align_corners: bool = False
    window: int | None = None
    stride: int | None = None
    classes: ClassSet = CITYSCAPES
    class_map: ClassMap | None = None
    provenance: Provenance = Provenance()

    def __post_init__(self) -> None:
        if self.channel_order not in ("rgb", "bgr"):
            raise BadInput(f"channel_order must be 'rgb' or 'bgr', got {self.channel_order!r}")
        for mean, std in zip(self.mean, self.std, strict=True):
            check_number("each mean", mean, -_LARGEST, _LARGEST)
            check_number("each std", std, 1 / _LARGEST, _LARGEST)
        check_number("value_range", self.value_range, 1 / _LARGEST, _LARGEST)
        check_whole("size_multiple", self.size_multiple, 1, MOST_SIDE)
        check_whole("size_offset", self.size_offset, 0, self.size_multiple - 1)
        check_whole_or_none("window", self.window, 1, MOST_SIDE)
        if self.window is None and self.stride is not None:
            raise BadInput(f"a stride of {self.stride} needs a window; give both, or neither")
        check_whole_or_none("stride", self.stride, 1, self.window or 1)
        self.module.eval().requires_grad_(False)

    @classmethod
    def of(
        cls,
        module: nn.Module,
        classes: ClassSet | Sequence[str],
        *,
        mean: float | Sequence[float] = IMAGENET_MEAN,
        std: float | Sequence[float] = IMAGENET_STD,
        **settings: Any,
    ) -> Victim:
        """A victim of a module of your own, in fewer words.

        classes: names in the order of the logits; mean, std: of images in [0, 1], one number or one a channel,
        0 and 1 for a module that normalises by itself; settings: other fields of Victim, such as name. Unless a
        provenance is given, it is the module's kind and the hash of its weights.
        """
        if not isinstance(module, nn.Module):
            raise BadInput(f"a victim's module is a torch.nn.Module, got {type(module).__name__}")
        known = classes if isinstance(classes, ClassSet) else ClassSet.of(classes)
        settings.setdefault(
            "provenance", Provenance(network=type(module).__name__, sha256=_weights_sha256(module))
        )
        return cls(module, mean=_triple("mean", mean), std=_triple("std", std), classes=known, **settings)

    @property
    def label_classes(self) -> ClassSet:
        """The classes of the logits that the victim returns: the data set's, once a map is set."""
        return self.class_map.target if self.class_map else self.classes

    @property
    def device(self) -> torch.device:
        """Where the module's weights are; the CPU for a module without any."""
        return next((p.device for p in self.module.parameters()), torch.device("cpu"))

    @property
    def merge(self) -> Tensor | None:
        """The class of the data set that each class of the network belongs to (K,), or None without a map."""
        if self.class_map is None:
            return None
        return _constant(tuple(self.class_map.table), self.device, torch.int64)

    @property
    def differentiable(self) -> bool:
        """Whether gradients reach the images, so that a patch can be trained through the network."""
        return bool(getattr(self.module, "differentiable", True))

    @property
    def inference(self) -> dict[str, Any]:
        """How images become logits, for records."""
        return {
            "mean": list(self.mean),
            "std": list(self.std),
            "channel_order": self.channel_order,
            "value_range": self.value_range,
            "align_corners": self.align_corners,
            "window": self.window,
            "stride": self.stride,
        }

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (B, K, H, W), float32 (float64 of a float64 module), at the size of the images (B, 3, H, W) RGB
        in [0, 1]."""
        logits = self._at_size(self.raw(images), images)
        return merge_classes(logits, self.class_map) if self.class_map else logits

    def raw(self, images: Tensor) -> Raw:
        """What the network itself makes of images (B, 3, H, W) RGB in [0, 1], before resize, cut and class map."""
        return self.raw_of(self.prepared(images))

    def prepared(self, images: Tensor, in_place: bool = False) -> Tensor:
        """The images (B, 3, H, W) as the network takes them: normalised, of its type, in its memory order.

        in_place: the images are not needed any more, so that their memory may hold the result.
        """
        weight = next(self.module.parameters(), None)
        x = self.normalise(images.to(self.device), in_place)
        x = x if weight is None else x.to(weight.dtype)
        return x.contiguous(memory_format=torch.channels_last)

    def raw_of(self, x: Tensor) -> Raw:
        """What the network itself makes of `prepared` images (B, 3, H, W)."""
        if self.window is None:
            return self._raw(x)
        logits = slide(
            lambda part: self._at_size(self._raw(part), part), x, self.window, self.stride or self.window
        )
        return Raw(logits, size_of(x))

    def to(self, device: torch.device | str) -> Victim:
        """The victim with its module on a device (the module itself is moved)."""
        self.module.to(device)
        return self

    def for_classes(self, target: ClassSet, map_file: Path | None = None) -> Victim:
        """The victim speaking the classes of a data set; BadInput where no map leads there."""
        return replace(self, class_map=class_map(self.classes, target, map_file))

    def normalise(self, images: Tensor, in_place: bool = False) -> Tensor:
        mean, std = (_constant(values, images.device, images.dtype) for values in (self.mean, self.std))
        mean, std = mean.view(3, 1, 1), std.view(3, 1, 1)
        if self.channel_order == "bgr":
            images = images.flip(1)
        if self.value_range != 1:
            images = images * self.value_range
        return (images.sub_(mean) if in_place else images - mean).div_(std)

    def gradient_of_images(self, gradient: Tensor) -> Tensor:
        """The gradient of images (..., 3, H, W) in [0, 1], from that of the normalised ones."""
        scale = self.value_range / _constant(self.std, gradient.device, gradient.dtype).view(3, 1, 1)
        gradient = gradient * scale
        return gradient.flip(-3) if self.channel_order == "bgr" else gradient

    def _raw(self, x: Tensor) -> Raw:
        height, width = x.shape[-2:]
        right, bottom = ((self.size_offset - side) % self.size_multiple for side in (width, height))
        # 0 is the mean colour here. A pad of nothing would be a copy.
        padded = F.pad(x, (0, right, 0, bottom)) if right or bottom else x
        padded = padded.contiguous(memory_format=torch.channels_last)
        own = getattr(self.module, "raw_logits", None) if self.output is None else None
        logits = own(padded) if own else pick_output(self.module(padded), self.output)
        return Raw(logits, size_of(padded))

    def _at_size(self, raw: Raw, x: Tensor) -> Tensor:
        """Raw logits at the size of what they were made from."""
        logits = raw.logits.to(torch.promote_types(raw.logits.dtype, torch.float32))  # autocast leaves bfloat16
        logits = resize(logits, raw.size, align_corners=self.align_corners)
        return logits[..., : x.shape[-2], : x.shape[-1]]


def _weights_sha256(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _triple(what: str, given: float | Sequence[float]) -> tuple[float, float, float]:
    values = [float(given)] * 3 if isinstance(given, int | float) else [float(v) for v in given]
    if len(values) != 3:
        raise BadInput(f"{what} is one number or three, one for each channel; got {len(values)}")
    return values[0], values[1], values[2]


def _constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """A tensor (n,) of these values; on a GPU it is kept, because sending it again would wait for the GPU."""
    if device.type == "cpu" or torch.compiler.is_exporting():  # an export makes stand-ins that must not be kept
        return torch.tensor(values, device=device, dtype=dtype)
    return _kept(values, device, dtype)


@functools.lru_cache(maxsize=256)
def _kept(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(values, device=device, dtype=dtype)


def pick_output(output: Any, which: int | str | None) -> Tensor:
    """The logits tensor among what a module returned; BadInput if `which` does not lead to one."""
    if which is not None:
        try:
            output = output[which]
        except (KeyError, IndexError, TypeError) as error:
            kind = type(output).__name__
            raise BadInput(f"the network returned a {kind}, which has no output {which!r}") from error
    elif isinstance(output, dict) and "logits" in output:
        output = output["logits"]
    elif isinstance(output, dict) and "out" in output:
        output = output["out"]
    if not isinstance(output, Tensor) or output.ndim != 4:
        raise BadInput(
            f"a network must return logits (B, K, H, W), got {type(output).__name__}; "
            "name the right element with output="
        )
    return output


def merge_classes(logits: Tensor, mapping: ClassMap) -> Tensor:
    """Logits (B, K', H, W) over a data set's classes, from logits (B, K, H, W) over the network's.

    Log-sum-exp over the classes that a target class is made of, which adds their probabilities.
    """
    return merge_logits(logits, torch.tensor(mapping.table, device=logits.device))


def slide(logits_of: Callable[[Tensor], Tensor], x: Tensor, window: int, stride: int) -> Tensor:
    """Logits (B, K, H, W) averaged over overlapping square windows of an input (B, 3, H, W).

    The last window of a row or column is shifted back to end at the border. Source: mmsegmentation's slide mode.
    """
    height, width = x.shape[-2:]
    total: Tensor | None = None
    visits = x.new_zeros(1, 1, height, width)
    for top in _starts(height, window, stride):
        for left in _starts(width, window, stride):
            rows, columns = slice(top, top + window), slice(left, left + window)
            part = logits_of(x[..., rows, columns])
            if total is None:
                total = part.new_zeros(part.shape[0], part.shape[1], height, width)
            total[..., rows, columns] += part
            visits[..., rows, columns] += 1
    assert total is not None
    return total / visits


def _starts(length: int, window: int, stride: int) -> list[int]:
    last = max(0, length - window)
    return sorted({min(start, last) for start in range(0, last + stride, stride)})
