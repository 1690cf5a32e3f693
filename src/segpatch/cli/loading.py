"""Victims and data as commands ask for them: named apart, on a device, speaking one set of classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from segpatch.cli.options import choose_device
from segpatch.processes import ALONE, Processes

if TYPE_CHECKING:
    from segpatch.data import Dataset
    from segpatch.models.victim import Victim


def open_victims_and_data(
    specs: list[str],
    file: Path | None,
    data: str,
    class_map: Path | None,
    device: str,
    processes: Processes = ALONE,
) -> tuple[list[Victim], Dataset]:
    """The victims of the specs (of the file, where there are none) and the data set, whose classes all speak."""
    from segpatch.data import cached, open_data
    from segpatch.models.load import load_victims
    from segpatch.victims import read_victims

    named = read_victims(file) if file else {}
    if not specs and not named:
        raise typer.BadParameter("give --victim, or --victims FILE", param_hint="'--victim'")
    place = choose_device(device, processes)
    dataset = cached(open_data(data))
    victims = load_victims(specs or list(named), named)
    return [victim.for_classes(dataset.classes, class_map).to(place) for victim in victims], dataset


def open_victim_and_data(
    spec: str | None,
    file: Path | None,
    data: str,
    class_map: Path | None,
    device: str,
    processes: Processes = ALONE,
) -> tuple[Victim, Dataset]:
    """The one victim of the spec, or of the file, and the data set, whose classes it speaks."""
    from segpatch.errors import BadInput

    victims, dataset = open_victims_and_data([spec] if spec else [], file, data, class_map, device, processes)
    if len(victims) > 1:
        names = ", ".join(victim.name for victim in victims)
        raise BadInput(f"this is about one network, and {file} names {names}; choose one with --victim")
    return victims[0], dataset


def spare_inputs(out: Path, *given: Path | str | None, victims: Path | None = None) -> None:
    """BadInput where a directory that --overwrite is to remove is, or holds, something that the command reads.

    given: paths, or specs that name one; victims: a file of victims, whose networks are spared too.
    """
    from segpatch.errors import BadInput
    from segpatch.victims import read_victims
    from segpatch.writing import is_within

    named = [named.spec for named in read_victims(victims).values()] if victims else []
    for spec in map(str, (*filter(None, given), *filter(None, [victims]), *named)):
        for place in (spec, spec.partition("=")[2], spec.partition(":")[2]):
            if place and is_within(Path(place), out) and Path(place).exists():
                raise BadInput(f"--overwrite would remove {place}, which this command reads; choose another --out")
