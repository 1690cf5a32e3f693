"""Tiny victims, images and data sets, for tests of attacks, matrices and runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from segpatch.attack_config import AttackConfig
from segpatch.data import Dataset, open_data
from segpatch.data.classes import ClassSet
from segpatch.models.layouts.layout import Layout
from segpatch.models.networks import NetworkSpec
from segpatch.models.victim import Provenance, Victim
from segpatch.types import Batch

CLASSES = ClassSet("tiny", ("road", "car", "sky"), ((128, 64, 128), (0, 0, 142), (70, 130, 180)))
NAMES = "road\ncar\nsky\n"
TINY = AttackConfig(steps=6, batch_size=2, crop=(10, 10), patch_size=(4, 4), scales=(0.8, 1.2), step_size=0.1)


class MeanColour(nn.Module):
    """Class 0 everywhere; its lead over class 1 falls with mean red and blue, and rises with mean green."""

    def forward(self, x: Tensor) -> Tensor:
        red, green, blue = x.mean((2, 3)).unbind(1)
        first = 10 - red + green - blue
        logits = torch.stack([first, torch.zeros_like(first)], dim=1)
        return logits[:, :, None, None].expand(-1, -1, *x.shape[-2:])


class Alarm(nn.Module):
    """Tells dark from bright per pixel, and the wrong way round while the mean of one channel is high."""

    def __init__(self, channel: int, threshold: float) -> None:
        super().__init__()
        self.channel, self.threshold = channel, threshold

    def forward(self, x: Tensor) -> Tensor:
        bright = x.mean(1) - 0.5
        alarmed = x[:, self.channel].mean((1, 2)) > self.threshold
        bright = torch.where(alarmed[:, None, None], -bright, bright)
        return torch.stack([-bright, bright], dim=1)


class Tiny(nn.Module):
    """Two convolutions with what a `fit` needs of a network."""

    size_multiple = 1
    output_align_corners = False

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).relu())

    def all_outputs(self, x: Tensor) -> dict[str, Tensor]:
        return {"main": self(x)}

    def training_loss(self, outputs: dict[str, Tensor], labels: Tensor, criterion: Any) -> Tensor:
        return criterion(F.interpolate(outputs["main"], labels.shape[-2:]), labels)


TINY_SPEC = NetworkSpec(
    "cnn",
    (Layout(source="own", build=lambda classes, auxiliary=True: Tiny(classes), classifier="last.weight"),),
)
"""What makes `Tiny` a network that can be named, once it is in MODELS."""


def plain(module: nn.Module, name: str = "tiny", *, classes: int = 3, **more: Any) -> Victim:
    """A victim that takes images as they are."""
    names = ClassSet(f"first{classes}", CLASSES.names[:classes], CLASSES.colours[:classes])
    return Victim(module, mean=(0, 0, 0), std=(1, 1, 1), name=name, classes=names, **more)


def conv_victim(seed: int = 0, *, kernel: int = 3, name: str = "conv", family: str = "cnn") -> Victim:
    """One random convolution over three classes; with kernel 1 it sees single pixels only."""
    module = nn.Conv2d(3, 3, kernel, padding=kernel // 2)
    generator = torch.Generator().manual_seed(seed)
    module.weight.data = torch.randn(module.weight.shape, generator=generator)
    module.bias.data = torch.zeros(3)
    return replace(plain(module, name, provenance=Provenance(network="conv", family=family)), classes=CLASSES)


def pictures(count: int = 5, height: int = 12, width: int = 16, classes: int = 3) -> list[tuple[Tensor, Tensor]]:
    """Random uint8 images with random labels."""
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randint(256, (3, height, width), dtype=torch.uint8, generator=generator),
            torch.randint(classes, (height, width), dtype=torch.uint8, generator=generator),
        )
        for _ in range(count)
    ]


def in_batches(images: list[tuple[Tensor, Tensor]], size: int) -> list[Batch]:
    """The images as `evaluate` takes them."""
    out = []
    for first in range(0, len(images), size):
        some = images[first : first + size]
        names = tuple(f"picture{first + i}" for i in range(len(some)))
        batch = torch.stack([image for image, _ in some]).float() / 255
        out.append(Batch(batch, torch.stack([labels for _, labels in some]).long(), names))
    return out


def learnable(count: int = 6, height: int = 12, width: int = 16) -> list[tuple[Tensor, Tensor]]:
    """Images whose label is the channel that is brightest, in blocks of 4 pixels."""
    labels = [(torch.arange(height)[:, None] // 4 + torch.arange(width) // 4 + i) % 3 for i in range(count)]
    return [((torch.arange(3)[:, None, None] == part) * 200 + 20, part) for part in labels]


def as_uint8(images: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    return [(image.to(torch.uint8), labels.to(torch.uint8)) for image, labels in images]


def write_learnable(
    root: Path, *, train: int = 6, val: int = 4, classes: str = NAMES, size: tuple[int, int] = (12, 16)
) -> str:
    """`learnable` images as a `folder:` data set; its spec."""
    for split, count in (("train", train), ("val", val)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        for index, (image, labels) in enumerate(as_uint8(learnable(count, *size))):
            pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
            Image.fromarray(pixels).save(root / f"images/{split}/{split}{index}.png")
            Image.fromarray(labels.numpy()).save(root / f"labels/{split}/{split}{index}.png")
    (root / "classes.txt").write_text(classes)
    return f"folder:{root}"


def learnable_dataset(root: Path) -> Dataset:
    return open_data(write_learnable(root))
