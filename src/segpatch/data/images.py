"""A split as a sequence of tensors: what attacks and fits train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segpatch.bounds import check_whole_or_none
from segpatch.data.dataset import Dataset


@dataclass(frozen=True)
class SplitImages:
    """The images of one split (or those of `indices`) as pairs: image (3, H, W) uint8, labels (H, W) uint8."""

    dataset: Dataset
    split: str
    indices: Sequence[int]

    def __str__(self) -> str:
        """ "camvid test", or "camvid test, 50 of 233 images"."""
        total = len(self.dataset.samples(self.split))
        part = "" if len(self.indices) == total else f", {len(self.indices)} of {total} images"
        return f"{self.dataset.kind} {self.split}{part}"

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, labels = self.dataset.read(self.split, self.indices[index])
        # A copy: kept images are read-only, which torch does not know.
        return torch.tensor(image).permute(2, 0, 1), torch.tensor(labels)


def split_images(dataset: Dataset, split: str, count: int | None = None) -> SplitImages:
    """The whole split, or `count` of its images, evenly spaced."""
    total = len(dataset.samples(split))
    return SplitImages(dataset, split, spaced(total, count))


def spaced(total: int, count: int | None) -> list[int]:
    """`count` of range(total), evenly spaced and in order; all of them where count is None or too large."""
    check_whole_or_none("the number of images", count)
    if count is None or count >= total:
        return list(range(total))
    return [int((i + 0.5) * total / count) for i in range(count)]
