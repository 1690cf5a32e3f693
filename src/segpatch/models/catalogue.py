"""The published checkpoints of the networks in networks.py: where each is, and what its file does not say."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from segpatch.errors import BadInput, Missing
from segpatch.models.networks import ALIASES, MODELS, network_name
from segpatch.models.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A published checkpoint.

    name: what a user types; publisher: a repository; network, layout: what its keys are; file: the name that it
    is kept under, and known by; address: where it can be fetched, or None; steps: how to get it then.

    trained_on, measured_on: data set and split; miou: as published, a fraction, or None. variant: arguments of
    the layout's builder that the keys do not show. settings: what differs from the layout's. refused: why the
    file is not what is built here although its keys are, or None.
    """

    name: str
    publisher: str
    network: str
    layout: str
    file: str
    licence: str
    trained_on: str
    measured_on: str
    address: str | None = None
    steps: str | None = None
    miou: float | None = None
    variant: Mapping[str, Any] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    refused: str | None = None


_SETTINGS = ("mean", "std", "channel_order", "value_range", "align_corners", "window", "stride")


@cache
def catalogue() -> tuple[Entry, ...]:
    """All entries, in the order of the file that lists them."""
    tables = tomllib.loads((files("segpatch.models") / "checkpoints.toml").read_text(encoding="utf-8"))
    return tuple(
        _entry(publisher, {**table, **row}) for publisher, table in tables.items() for row in table["checkpoints"]
    )


def entries_of(network: str) -> list[Entry]:
    """The entries of a network."""
    return [entry for entry in catalogue() if entry.network == network]


def entry_of_file(network: str, layout: str, file: str) -> Entry | None:
    """The entry that a checkpoint is taken for: one of its network and layout that bears its file name."""
    return next((e for e in entries_of(network) if (e.layout, e.file) == (layout, file)), None)


def find_entry(name: str) -> Entry:
    """The entry of a name, or the best one of a network that can be fetched directly.

    The best is the one of the highest mIoU on the split that networks are compared on. BadInput for an unknown
    name, naming the nearest; Missing where none of a network's can be fetched.
    """
    named = {entry.name: entry for entry in catalogue()}
    if name in named:
        return named[name]
    if name not in MODELS and name not in ALIASES:
        near = difflib.get_close_matches(name, [*named, *MODELS], n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise BadInput(f"unknown checkpoint or network {name!r}; {hint}`segpatch models --published` lists them")
    network = network_name(name)
    direct = [e for e in entries_of(network) if e.address and not e.refused and e.measured_on == "cityscapes val"]
    if not direct:
        others = ", ".join(entry.name for entry in entries_of(network))
        hint = f"`segpatch models download` says how to get {others}" if others else "`segpatch fit` trains it"
        raise Missing(f"no checkpoint of {network} can be fetched directly; {hint}")
    return max(direct, key=lambda entry: entry.miou or 0.0)


def _entry(publisher: str, row: dict[str, Any]) -> Entry:
    row = {key: value for key, value in row.items() if key != "checkpoints"}
    base = row.pop("base", "")
    if "address" in row:
        row["file"] = row.get("file", row["address"].rsplit("/", 1)[-1])
        row["address"] = row["address"] if "://" in row["address"] else base + row["address"]
    settings = {key: row.pop(key) for key in _SETTINGS if key in row}
    return Entry(publisher=publisher, settings=Settings(**settings), **row)
