"""Data sets and runs on disk, for the tests of what reads them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from segpatch.data import CITYSCAPES
from segpatch.evaluation import Picture, Scores
from segpatch.names import safe_name
from segpatch.patch import FULL_RANGE, Patch, grey_patch, natural_patch, random_patch, save_patch
from segpatch.results import DatasetRecord, transfer_result, write_picture, write_transfer
from segpatch.transfer import judged
from segpatch.types import Region
from tiny import conv_victim


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


def write_matrix_run(run: Path, *, networks: int, scenes: int, size: tuple[int, int]) -> Path:
    """A transfer run of made-up numbers: a patch per network, three controls, and index maps of all its images."""
    draw = np.random.default_rng(0)
    victims = [replace(conv_victim(0, name=f"network{i}"), classes=CITYSCAPES) for i in range(networks)]
    side = size[0] * 200 // 1024
    patches = [grey_patch((side, side)), random_patch((side, side), FULL_RANGE, 0)]
    patches.append(natural_patch((side, side), torch.rand(3, *size), 0))
    patches += [
        Patch(torch.rand(3, side, side), name=f"{v.name}/paper/s0", trained_on=(v.name,), preset="paper", seed=0)
        for v in victims
    ]
    names = tuple(f"city_{index:06d}" for index in range(scenes))
    clean = np.eye(19, dtype=np.int32) * 900 + draw.integers(20, size=(scenes, 19, 19), dtype=np.int32)
    grid = [[Scores(names, *map(torch.tensor, (clean, clean, clean))) for _ in victims]]
    for patch in patches:
        grid.append([])
        for victim in victims:
            moved = draw.integers(
                400 if victim.name in patch.trained_on else 60, size=(scenes, 19), dtype=np.int32
            )
            hit = clean.copy()
            hit[:, range(19), range(19)] -= moved
            hit[:, range(19), draw.permutation(19)] += moved
            of_right = np.clip(hit - clean, 0, None)
            of_right[:, range(19), range(19)] = np.minimum(hit, clean)[:, range(19), range(19)]
            grid[-1].append(Scores(names, *map(torch.tensor, (clean, clean, hit, of_right))))
    matrix = judged(grid, [v.name for v in victims], CITYSCAPES.names, patches)
    files = {patch.name: f"patches/{safe_name(patch.name)}.safetensors" for patch in patches}
    (run / "patches").mkdir(parents=True)
    for patch in patches:
        save_patch(patch, run / files[patch.name])
    region = Region((size[0] - side) // 2, (size[1] - side) // 2, side, side)
    for name in names:
        labels = _patchwork(size, draw)
        for victim in victims:
            seen = _shaken(labels, draw)
            for patch in patches:
                maps = [torch.from_numpy(one) for one in (labels, seen, _shaken(seen, draw))]
                write_picture(run, Picture(name, patch.name, victim.name, *maps, region))
    record = DatasetRecord(kind="cityscapes", split="val", images=scenes, height=size[0], width=size[1],
                           fingerprint="f" * 64, names=list(names), groups=[""] * scenes, block=1)  # fmt: skip
    result = transfer_result(matrix, victims, record, command="", precision="fp32", warnings=[], files=files)
    write_transfer(run, result, matrix)
    return run


def _patchwork(size: tuple[int, int], draw: np.random.Generator) -> np.ndarray:
    """An index map of 150 areas: each pixel has the class of the nearest of random points."""
    points, classes = draw.random((150, 2)) * size, draw.integers(19, size=150, dtype=np.uint8)
    y, x = np.mgrid[: size[0], : size[1]]
    nearest, out = np.full(size, np.inf), np.zeros(size, np.uint8)
    for (top, left), kind in zip(points, classes, strict=True):
        distance = (y - top) ** 2 + (x - left) ** 2
        closer = distance < nearest
        nearest[closer], out[closer] = distance[closer], kind
    return out


def _shaken(indices: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """The map with each square of 16 pixels taken from up to 4 pixels away: edges as ragged as predictions."""
    height, width = indices.shape
    coarse = draw.integers(-4, 5, size=(2, height // 16 + 1, width // 16 + 1))
    down, right = coarse.repeat(16, 1).repeat(16, 2)[:, :height, :width]
    y, x = np.mgrid[:height, :width]
    return indices[np.clip(y + down, 0, height - 1), np.clip(x + right, 0, width - 1)]
