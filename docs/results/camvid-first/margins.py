"""How far a patch moves a network's logits, beside how far it would have to: by distance from the patch.

    python docs/results/camvid-first/margins.py VICTIM DATA SPLIT PATCH [--images 12]

Over the pixels outside the patch that are right without it, in patch widths from its edge: the median lead of the
right class over the next one; the median change of the logits (the largest over the classes, each freed of its
mean); the mean of the lead that the patch takes; the share of pixels whose class changes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from segpatch import load_patch, load_victim, open_data
from segpatch.compositing import centre_region, paste
from segpatch.data.images import split_images
from segpatch.models.victim import Victim
from segpatch.patch import Patch
from segpatch.transforms import as_float
from segpatch.types import IGNORE

BINS = ((0.0, 0.25), (0.25, 0.5), (0.5, 1.0), (1.0, 2.0), (2.0, 99.0))


def measured(victim: Victim, patch: Patch, image: Tensor, labels: Tensor) -> Tensor:
    """Of each counted pixel (5, N): distance, lead, change of the logits, lead taken, class changed or not."""
    region = centre_region(*labels.shape, *patch.size)
    clean, patched = (victim(x[None])[0] for x in (image, paste(image, patch.pixels, region)))
    highest = clean.topk(2, dim=0).values
    lead, first = highest[0] - highest[1], clean.argmax(0)
    change = ((patched - patched.mean(0)) - (clean - clean.mean(0))).abs().amax(0)
    others = patched.scatter(0, first[None], -torch.inf).amax(0)
    taken = lead - (patched.gather(0, first[None])[0] - others)
    y, x = torch.meshgrid(*(torch.arange(side) for side in labels.shape), indexing="ij")
    below = torch.maximum(region.top - y, y - (region.top + region.height - 1)).clamp(min=0)
    beside = torch.maximum(region.left - x, x - (region.left + region.width - 1)).clamp(min=0)
    distance = (below**2 + beside**2).sqrt() / region.height
    counted = (labels != IGNORE) & (distance > 0) & (first == labels)
    values = torch.stack([distance, lead, change, taken, (patched.argmax(0) != first).float()])
    return values[:, counted]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("victim")
    parser.add_argument("data")
    parser.add_argument("split")
    parser.add_argument("patch", type=Path)
    parser.add_argument("--images", type=int, default=12, help="evenly spaced ones of the split")
    options = parser.parse_args()
    data = open_data(options.data)
    victim, patch = load_victim(options.victim).for_classes(data.classes), load_patch(options.patch)
    images = split_images(data, options.split, options.images)
    with torch.inference_mode():
        rows = [measured(victim, patch, as_float(image), labels.long()) for image, labels in images]
    distance, lead, change, taken, changed = torch.cat(rows, dim=1)
    print("| widths from the patch | lead | change | lead taken | class changed |\n|---|---|---|---|---|")
    for low, high in BINS:
        here = (distance > low) & (distance <= high)
        figures = f"{lead[here].median():.2f} | {change[here].median():.2f} | {taken[here].mean():+.2f}"
        print(f"| {low} to {high} | {figures} | {changed[here].mean():.1%} |")


if __name__ == "__main__":
    main()
