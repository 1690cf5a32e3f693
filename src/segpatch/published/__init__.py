"""The published numbers of arXiv:2502.16012, each with its source, and what sets a measured number beside one.

matrix.json            Table I at full precision, and the clean mIoU of each network
curves.json            Fig. 2: mIoU and class IoU for each epoch of patch training
hyperparameters.json   what the patches were trained and measured with

Scores are fractions. Networks go by their full names here; every function takes an alias (`icnet`), the label of
a victim (`pidnet-s:best`) or the name of a patch (`pidnet-s/released/s0`) for them just as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, NamedTuple

from segpatch.errors import unknown_name

RANDOM = "random"
"""The row of the random patch, which the others are set against."""

ATTACK_FIELDS = (
    "range",
    "patch_size",
    "place",
    "start",
    "loss",
    "stepper",
    "step_size",
    "schedule",
    "batch_size",
    "epochs",
    "select",
    "held_out",
    "scales",
    "crop",
    "flip",
    "patch_eot",
    "precision",
)
VICTIM_FIELDS = ("mean", "std", "channel_order", "value_range", "align_corners")


@dataclass(frozen=True, kw_only=True)
class PublishedNetwork:
    """A column of Table I. None: not published.

    weights: file or id of the checkpoint; trained_on: data set and split; clean_miou, clean_pixel_accuracy: as
    the authors measured them without a patch, over all pixels of Cityscapes val; publisher_miou: on the same
    images, by those who published the network, for weights trained on train alone.
    """

    weights: str | None
    trained_on: str | None
    clean_miou: float
    clean_pixel_accuracy: float
    publisher_miou: float | None


@dataclass(frozen=True, kw_only=True)
class PublishedMatrix:
    """Table I: the mIoU on Cityscapes val outside the patch, of each patch on each network.

    networks: the columns in their order, by name; rows: by RANDOM or the network that the patch was trained on;
    caveats: what a reader must know; aliases: other names of networks.
    """

    table: str
    source: str
    caveats: tuple[str, ...]
    aliases: Mapping[str, str]
    networks: Mapping[str, PublishedNetwork]
    rows: Mapping[str, Mapping[str, float]]

    def cell(self, patch: str, network: str) -> float | None:
        """The mIoU of a cell; None where there is none."""
        return self.rows.get(self.full_name(patch), {}).get(self.full_name(network))

    def drop_over_random(self, patch: str, network: str) -> float | None:
        """How much lower the mIoU is than under a random patch; None where there is no such cell."""
        return _minus(self.cell(RANDOM, network), self.cell(patch, network))

    def full_name(self, name: str) -> str:
        """The network that an alias, a label or the name of a patch begins with."""
        network = re.split("[:/]", name)[0]
        return self.aliases.get(network, network)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A patch's training: mIoU, and IoU by class (empty where not published), at index e during epoch e.

    Index 0 is a random patch, before training.
    """

    miou: tuple[float, ...]
    iou: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class PublishedCurves:
    """Fig. 2: the curve of each network's patch, on crops of Cityscapes train. recovered: how it was read."""

    figure: str
    source: str
    recovered: str
    caveats: tuple[str, ...]
    classes: tuple[str, ...]
    networks: Mapping[str, Curve]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A hyperparameter: what the published run used, and what the paper says (None: nothing).

    A value that differs between families or networks is a mapping. source: a file of the released code, or a
    section of the paper.
    """

    value: Any
    paper: Any
    source: str
    note: str | None

    def of(self, which: str) -> Any:
        """The value for a family, "cnn" or "transformer", or for the full name of a network."""
        return self.value[which] if isinstance(self.value, Mapping) else self.value


class Beside(NamedTuple):
    """A measured number, the published one, and ours - theirs. None: not measured, or not published.

    Drops against a random patch are what can be compared: the mIoU themselves differ by weights and preprocessing
    (see the caveats).
    """

    ours: float | None
    theirs: float | None
    difference: float | None

    @classmethod
    def of(cls, ours: float | None, theirs: float | None) -> Beside:
        return cls(ours, theirs, _minus(ours, theirs))


def as_released(family: str) -> dict[str, Any]:
    """The fields of an AttackConfig for a "cnn" or a "transformer", as the published patches were trained."""
    settings = published_settings()
    families = settings["batch_size"].value
    if family not in families:
        raise unknown_name("family", family, families)
    return {"preset": "released", **{name: settings[name].of(family) for name in ATTACK_FIELDS}}


def updates_as_released() -> dict[str, dict[str, Any]]:
    """By family, the fields of an AttackConfig with the updates of the run, and a patch kept per epoch."""
    settings = published_settings()
    return {
        family: {
            **as_released(family),
            "steps": settings["updates"].of(family),
            "snapshots": settings["epochs"].of(family),
        }
        for family in settings["updates"].value
    }


def published_curve(network: str) -> Curve | None:
    """The curve of a network in Fig. 2; None where there is none."""
    return published_curves().networks.get(published_matrix().full_name(network))


def victim_as_released(network: str) -> dict[str, Any]:
    """The `Settings` with which a network sees its images as in the published run; window 0: all at once.

    These are not always its own: the BiSeNets were given ImageNet's mean and standard deviation.
    """
    matrix, settings = published_matrix(), published_settings()
    name = matrix.full_name(network)
    if name not in matrix.networks:
        raise unknown_name("published network", network, matrix.networks)
    return {
        **{field: settings[field].of(name) for field in VICTIM_FIELDS},
        "window": settings["window"].value or 0,
    }


@cache
def published_matrix() -> PublishedMatrix:
    """Table I."""
    facts = _read("matrix.json")
    columns = facts.pop("columns")
    rows = {patch: dict(zip(columns, row, strict=True)) for patch, row in facts.pop("rows").items()}
    networks = {name: PublishedNetwork(**facts["networks"][name]) for name in columns}
    return PublishedMatrix(**facts | {"networks": MappingProxyType(networks), "rows": _frozen(rows)})


@cache
def published_curves() -> PublishedCurves:
    """Fig. 2."""
    facts = _read("curves.json")
    curves = {name: Curve(**curve) for name, curve in facts["networks"].items()}
    return PublishedCurves(**facts | {"networks": MappingProxyType(curves)})


@cache
def published_settings() -> Mapping[str, Setting]:
    """The hyperparameters by name: that of an AttackConfig's or a Victim's field, where there is one."""
    rows = _read("hyperparameters.json")["rows"]
    return MappingProxyType(
        {name: Setting(**{"paper": row["value"], "note": None, **row}) for name, row in rows.items()}
    )


def _read(name: str) -> dict[str, Any]:
    facts = json.loads((files("segpatch.published") / name).read_text(encoding="utf-8"))
    return {key: _frozen(value) for key, value in facts.items()}


def _frozen(value: Any) -> Any:
    """What JSON holds, made unchangeable: tuples for lists, read-only mappings."""
    if isinstance(value, Mapping):
        return MappingProxyType({key: _frozen(inner) for key, inner in value.items()})
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other
