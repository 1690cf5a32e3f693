"""Tiny data sets on disk, for the tests of their readers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_image(path: Path, *, seed: int = 0, height: int = 4, width: int = 6) -> np.ndarray:
    """A random picture; PNG and BMP keep its pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def write_labels(path: Path, values: list[int] | int = 0, *, height: int = 4, width: int = 6) -> np.ndarray:
    """The values in reading order, over and over."""
    pixels = np.resize(np.array(values, dtype=np.uint8), (height, width))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def write_folder(root: Path, splits: dict[str, int], *, classes: str = "road\ncar\n") -> Path:
    """A `folder:` data set with `splits[name]` random images of a split, all labelled 0, 1, 0, 1 ..."""
    seeds = iter(range(1000))
    for split, count in splits.items():
        for index in range(count):
            write_image(root / "images" / split / f"{split}{index}.png", seed=next(seeds))
            write_labels(root / "labels" / split / f"{split}{index}.png", [0, 1])
    (root / "classes.txt").write_text(classes)
    return root


def write_cityscapes(root: Path, split: str, city: str, index: int, ids: str = "labelTrainIds", values=0) -> str:
    """One image of a Cityscapes folder; its name."""
    name = f"{city}_{index:06d}_000019"
    write_image(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", seed=len(city) * 100 + index)
    write_labels(root / "gtFine" / split / city / f"{name}_gtFine_{ids}.png", values)
    return name
