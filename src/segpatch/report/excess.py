"""What patches cost beyond their controls, over seeds, from a run's raw counts."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from segpatch.eot import generator_at
from segpatch.metrics import miou
from segpatch.report.record import Bounds, Study, bounds
from segpatch.results import PatchRecord, TransferResult, read_scores
from segpatch.statistics import count_blocks, interval, over_seeds, resampled_miou
from segpatch.transfer import bootstrap_counts

_SEEDS = 0x73656564  # "seed": an address that no training step reaches


class Drop(NamedTuple):
    """A drop of mIoU over all images, and in each resample of them (R,)."""

    value: float
    resampled: Tensor

    def less(self, other: Drop) -> Drop:
        """The difference, image by image of the same resamples."""
        return Drop(self.value - other.value, self.resampled - other.resampled)


class Excess(NamedTuple):
    """What the patches of one training cost a network: the mean over their seeds, beyond the random patch of
    their size and range, and beyond whichever control costs that network most.

    patch: the training, as "NETWORK/PRESET"; sources, network: architectures of the networks that it was
    trained and measured on; over_random, over_strongest: None where the matrix has no such control.
    """

    patch: str
    preset: str
    trained_on: tuple[str, ...]
    sources: tuple[str, ...]
    victim: str
    network: str
    over_random: Bounds | None
    over_strongest: Bounds | None

    @property
    def own(self) -> bool:
        """Whether the network is one that it was trained on."""
        return self.victim in self.trained_on

    def __str__(self) -> str:
        return f"{self.patch} on {self.victim}: {self.over_random} beyond random"


class Drops:
    """The drops of a finished matrix, each worked out once; group: of the images of one drive or city only."""

    def __init__(self, run: Path, result: TransferResult, group: str | None = None) -> None:
        about = result.dataset
        kept = [at for at, one in enumerate(about.groups) if group in (None, one)]
        groups = [about.groups[at] for at in kept]
        self.result = result
        self.images = len(kept)
        self.blocks = count_blocks(groups, about.block)
        self._kept = kept
        self._scores = read_scores(run)
        self._counts = bootstrap_counts(groups, about.block, 0)
        self._found: dict[int, Drop] = {}
        self._index = {(cell.patch, cell.victim): index for index, cell in enumerate(result.cells)}

    def of(self, patch: str, victim: str) -> Drop:
        """What one patch costs a network."""
        at = self._index[patch, victim]
        if at not in self._found:
            clean, patched = (self._rows(patch, victim, which) for which in ("clean_outside", "patched"))
            value = float(miou(clean.sum(0)) - miou(patched.sum(0)))
            resampled = resampled_miou(clean, self._counts) - resampled_miou(patched, self._counts)
            self._found[at] = Drop(value, resampled)
        return self._found[at]

    def mean(self, patches: list[PatchRecord], victim: str, control: PatchRecord | None = None) -> Drop:
        """What patches cost a network beyond a control, the mean over them as over seeds."""
        drops = [self.of(patch.name, victim) for patch in patches]
        if control:
            drops = [drop.less(self.of(control.name, victim)) for drop in drops]
        return _mean(drops)

    def share(self, patches: list[PatchRecord], victim: str) -> Drop:
        """The share of its clean mIoU that patches take from a network, the mean over them as over seeds."""
        found = []
        for patch in patches:
            clean = resampled_miou(self._rows(patch.name, victim, "clean_outside"), self._counts)
            drop = self.of(patch.name, victim)
            found.append(Drop(drop.value / self.clean(patch, victim), drop.resampled / clean))
        return _mean(found)

    def clean(self, patch: PatchRecord, victim: str) -> float:
        """The mIoU of a network without the patch, over the pixels outside it."""
        return float(miou(self._rows(patch.name, victim, "clean_outside").sum(0)))

    def random(self, patch: PatchRecord) -> PatchRecord | None:
        """The random patch of a patch's size and range."""
        same = (one for one in self._controls(patch) if one.kind == "random" and one.range == patch.range)
        return next(same, None)

    def strongest(self, patch: PatchRecord, victim: str) -> PatchRecord | None:
        """The control of a patch's size that costs a network most."""
        return max(self._controls(patch), key=lambda one: self.of(one.name, victim).value, default=None)

    def bounds(self, drop: Drop) -> Bounds | None:
        """A drop with its 95 % interval."""
        return bounds(drop.value, interval(drop.resampled), self.blocks)

    def _rows(self, patch: str, victim: str, which: str) -> Tensor:
        return self._scores[f"{self._index[patch, victim]}/{which}"][self._kept]

    def _controls(self, patch: PatchRecord) -> list[PatchRecord]:
        return [
            one
            for one in self.result.patches
            if one.kind not in ("none", "trained") and (one.height, one.width) == (patch.height, patch.width)
        ]


def _mean(drops: list[Drop]) -> Drop:
    """The mean over seeds; the same seeds are drawn in the same resample of every training, for they share
    their start and their scenes."""
    resampled = over_seeds(torch.stack([drop.resampled for drop in drops], dim=1), generator_at(0, _SEEDS))
    return Drop(sum(drop.value for drop in drops) / len(drops), resampled)


def trainings(result: TransferResult) -> dict[tuple[tuple[str, ...], str], list[PatchRecord]]:
    """The trained patches of each training, by (networks trained on, preset): one patch per seed."""
    found: dict[tuple[tuple[str, ...], str], list[PatchRecord]] = {}
    for patch in result.patches:
        if patch.kind == "trained" and patch.preset:
            found.setdefault((tuple(patch.trained_on), patch.preset), []).append(patch)
    return found


def excesses(study: Study, matrix: str = "matrix") -> list[Excess]:
    """Every training of a matrix of a study on every network; empty where the study has no such matrix."""
    result = study.matrices.get(matrix)
    if result is None:
        return []
    drops = Drops(study.directory / matrix, result)
    network = {victim.name: victim.network for victim in result.victims}
    out = []
    for (trained_on, preset), patches in trainings(result).items():
        for victim in network:
            random, strongest = drops.random(patches[0]), drops.strongest(patches[0], victim)
            out.append(
                Excess(
                    "+".join(trained_on) + f"/{preset}",
                    preset,
                    trained_on,
                    tuple(network[name] for name in trained_on),
                    victim,
                    network[victim],
                    drops.bounds(drops.mean(patches, victim, random)) if random else None,
                    drops.bounds(drops.mean(patches, victim, strongest)) if strongest else None,
                )
            )
    return out
