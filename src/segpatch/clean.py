"""Clean predictions kept in memory, so that measurements of patches one after the other share them."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from segpatch.models.victim import Victim

BUDGET = 1 << 30
"""Bytes, one for each pixel: every image of CamVid for 25 networks, 500 of 1024x2048 for one."""


class CleanPredictions:
    """What networks, known by name, predict for batches of images, known by the names of these in order.

    Nothing is dropped: once `budget` bytes are full, what comes new is predicted each time. A prediction is of the
    whole batch, so that it has the bits that it would have if it were made anew.
    """

    def __init__(self, budget: int = BUDGET) -> None:
        self._free = budget
        self._kept: dict[tuple[str, tuple[str, ...]], Tensor] = {}

    def of(self, victim: Victim, names: tuple[str, ...], predict: Callable[[], Tensor]) -> Tensor:
        """The prediction (B, H, W) uint8 of a batch, on the victim's device; `predict` makes what is not kept."""
        key = (victim.name, names)
        if key in self._kept:
            return self._kept[key].to(victim.device)
        predicted = predict()
        if predicted.numel() <= self._free:
            self._free -= predicted.numel()
            self._kept[key] = predicted.cpu()
        return predicted
