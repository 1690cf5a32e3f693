"""What 8 bits a channel cost a patch: its pixels, and its effect on the same images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from segpatch.data import Dataset, batches
from segpatch.data.images import spaced
from segpatch.models.victim import Victim
from segpatch.patch import Patch, rounded
from segpatch.statistics import interval, resampled_miou
from segpatch.studies.matrix import block_of
from segpatch.transfer import bootstrap_counts, transfer_matrix

Drop = tuple[float, tuple[float, float]]
"""mIoU lost, with its 95 % interval."""


@dataclass(frozen=True)
class RoundTrip:
    """The drop of a patch, that of its PNG, and what the PNG lacks of it, over the same images."""

    images: int
    exact: Drop
    png: Drop
    lost: Drop


def pixel_change(patch: Patch) -> tuple[float, float]:
    """The largest and the mean change of a channel's value by 8 bits, in 1/255."""
    change = (rounded(patch).pixels - patch.pixels).abs() * 255
    return float(change.max()), float(change.mean())


def round_trip(
    victim: Victim,
    dataset: Dataset,
    patch: Patch,
    *,
    split: str | None = None,
    images: int | None = None,
    place: str = "centre",
    seed: int = 0,
    precision: str = "fp32",
) -> RoundTrip:
    """A patch and its PNG, measured on a network. The victim must speak the data set's classes."""
    split = split or dataset.eval_split
    chosen = spaced(len(dataset.samples(split)), images)
    groups = [dataset.groups(split)[index] for index in chosen]
    block = block_of(dataset, len(dataset.samples(split)), len(chosen))
    matrix = transfer_matrix(
        [victim],
        batches(dataset, split, batch_size=1, indices=chosen, workers=1),
        [patch, replace(rounded(patch), name=f"{patch.name} in 8 bits")],
        groups=groups,
        block=block,
        place=place,
        seed=seed,
        precision=precision,
    )
    _, exact, png = matrix.cells
    counts = bootstrap_counts(groups, block, seed)
    lost = resampled_miou(png.scores.patched, counts) - resampled_miou(exact.scores.patched, counts)
    return RoundTrip(
        len(chosen),
        (exact.scores.miou_drop, exact.ci95),
        (png.scores.miou_drop, png.ci95),
        (png.scores.miou - exact.scores.miou, interval(lost)),
    )


def pixel_statistics(patch: Patch) -> dict[str, Any]:
    """Least, most, mean and deviation of each channel, and the share of values at a bound of their range."""
    low, high = (torch.tensor(bound).view(3, 1, 1) for bound in patch.range)
    channels = {
        name: {
            "least": float(channel.min()),
            "most": float(channel.max()),
            "mean": float(channel.mean()),
            "deviation": float(channel.std(correction=0)),
        }
        for name, channel in zip(("red", "green", "blue"), patch.pixels, strict=True)
    }
    at_bound = (patch.pixels <= low) | (patch.pixels >= high)
    return {"channels": channels, "at_bound": float(at_bound.float().mean())}
