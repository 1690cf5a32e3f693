"""Batches of a user's own loader as segpatch takes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from segpatch.errors import BadInput
from segpatch.types import IGNORE, Batch

Loaded = Batch | Sequence[Any] | Mapping[str, Any]
"""A batch as a loader may give it: (images, labels), or a mapping of IMAGES and LABELS, perhaps with their names.

images (B, 3, H, W), float in [0, 1] or uint8; labels (B, H, W) or (B, 1, H, W), class ids, or below 0 where there
is no truth.
"""

IMAGES, LABELS, NAMES = (
    ("images", "image", "pixel_values"),
    ("labels", "label", "masks", "mask"),
    ("names", "name"),
)


def as_batches(loader: Iterable[Loaded]) -> Iterator[Batch]:
    """The batches of a loader; images without a name are called `image N`. BadInput where one cannot be used."""
    done = 0
    for item in loader:
        batch = item if isinstance(item, Batch) else _as_batch(item, done)
        done += len(batch.names)
        yield batch


def _as_batch(item: Sequence[Any] | Mapping[str, Any], done: int) -> Batch:
    if isinstance(item, Mapping):
        images, labels, names = (
            next((item[k] for k in keys if k in item), None) for keys in (IMAGES, LABELS, NAMES)
        )
    else:
        images, labels, names = (*item, None, None, None)[:3]
    if not isinstance(images, Tensor) or not isinstance(labels, Tensor):
        found = list(item) if isinstance(item, Mapping) else [type(part).__name__ for part in item]
        raise BadInput(
            f"a batch is a pair of tensors, images and labels, or has them as {IMAGES[0]!r} and {LABELS[0]!r}; "
            f"got {found}"
        )
    labels = labels.squeeze(1) if labels.ndim == 4 else labels
    if images.ndim != 4 or images.shape[1] != 3 or labels.shape != (len(images), *images.shape[2:]):
        raise BadInput(
            "images are (B, 3, H, W) and labels (B, H, W) of their size; "
            f"got {tuple(images.shape)} and {tuple(labels.shape)}"
        )
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise BadInput(f"labels are whole numbers, the ids of classes; got {labels.dtype}")
    images = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    least, most = float(images.min()), float(images.max())
    if not 0 <= least <= most <= 1:
        raise BadInput(
            f"images are in [0, 1], got {least:.3g} to {most:.3g}; leave normalisation to the victim (mean=, std=)"
        )
    labels = labels.long().masked_fill(labels < 0, IGNORE)
    if not isinstance(names, list | tuple) or len(names) != len(images):
        names = [f"image {done + i}" for i in range(len(images))]
    return Batch(images, labels, tuple(map(str, names)))
