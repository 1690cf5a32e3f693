"""A network as the rest of segpatch sees it: images in [0, 1] in, logits at image size out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segpatch.data.classes import CITYSCAPES, ClassMap, ClassSet, class_map
from segpatch.errors import BadInput

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


@dataclass(frozen=True, eq=False)
class Victim:
    """A segmentation network with everything that belongs to its input and output.

    module: any nn.Module; mean, std: per channel, of images in [0, 1] x value_range; channel_order: "rgb" or
    "bgr"; output: which element of a tuple or dict that the module returns; size_multiple: images are padded
    right and bottom with the mean colour to a multiple of it; align_corners: of the final bilinear resize;
    window, stride: sliding-window inference in pixels, None for the whole image at once; classes: what the
    logits mean; class_map: how they are merged into the classes of a data set.

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
    align_corners: bool = False
    window: int | None = None
    stride: int | None = None
    classes: ClassSet = CITYSCAPES
    class_map: ClassMap | None = None
    provenance: Provenance = Provenance()

    def __post_init__(self) -> None:
        if self.channel_order not in ("rgb", "bgr"):
            raise BadInput(f"channel_order must be 'rgb' or 'bgr', got {self.channel_order!r}")
        if min(self.std) <= 0 or self.value_range <= 0 or self.size_multiple < 1:
            raise BadInput(
                "std, value_range and size_multiple must be above 0; "
                f"got {self.std}, {self.value_range} and {self.size_multiple}"
            )
        step = self.window if self.stride is None else self.stride
        if step is not None and (self.window is None or not 0 < step <= self.window):
            raise BadInput(
                f"window must be above 0 and stride in 1..window; got window {self.window}, stride {self.stride}"
            )
        self.module.eval().requires_grad_(False)

    @property
    def label_classes(self) -> ClassSet:
        """The classes of the logits that the victim returns: the data set's, once a map is set."""
        return self.class_map.target if self.class_map else self.classes

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (B, K, H, W), float32 (float64 of a float64 module), at the size of the images (B, 3, H, W) RGB
        in [0, 1]."""
        x = self.normalise(images)
        weight = next(self.module.parameters(), None)
        logits = self._predict(x if weight is None else x.to(weight.dtype))
        return merge_classes(logits, self.class_map) if self.class_map else logits

    def to(self, device: torch.device | str) -> Victim:
        """The victim with its module on a device (the module itself is moved)."""
        self.module.to(device)
        return self

    def for_classes(self, target: ClassSet, map_file: Path | None = None) -> Victim:
        """The victim speaking the classes of a data set; BadInput where no map leads there."""
        return replace(self, class_map=class_map(self.classes, target, map_file))

    def normalise(self, images: Tensor) -> Tensor:
        mean = images.new_tensor(self.mean).view(3, 1, 1)
        std = images.new_tensor(self.std).view(3, 1, 1)
        if self.channel_order == "bgr":
            images = images.flip(1)
        return (images * self.value_range - mean) / std

    def _predict(self, x: Tensor) -> Tensor:
        if self.window is None:
            return self._logits(x)
        return slide(self._logits, x, self.window, self.stride or self.window)

    def _logits(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        m = self.size_multiple
        padded = F.pad(x, (0, -width % m, 0, -height % m))  # 0 is the mean colour here
        padded = padded.contiguous(memory_format=torch.channels_last)
        logits = pick_output(self.module(padded), self.output)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # autocast leaves bfloat16
        if logits.shape[-2:] != padded.shape[-2:]:
            logits = F.interpolate(logits, padded.shape[-2:], mode="bilinear", align_corners=self.align_corners)
        return logits[..., :height, :width]


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
    table = torch.tensor(mapping.table, device=logits.device)
    merged = [
        logits[:, (table == target).nonzero().flatten()].logsumexp(dim=1) for target in range(len(mapping.target))
    ]
    return torch.stack(merged, dim=1)


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
