"""Victims and data as commands ask for them: named apart, on a device, speaking one set of classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from segpatch.cli.options import choose_device

if TYPE_CHECKING:
    from segpatch.data import Dataset
    from segpatch.models.victim import Victim


def open_victims_and_data(
    specs: list[str], data: str, class_map: Path | None, device: str
) -> tuple[list[Victim], Dataset]:
    """The victims of the specs and the data set, whose classes all victims speak."""
    from segpatch.data import cached, open_data
    from segpatch.models.load import load_victims

    place = choose_device(device)
    dataset = cached(open_data(data))
    victims = [victim.for_classes(dataset.classes, class_map).to(place) for victim in load_victims(specs)]
    return victims, dataset
