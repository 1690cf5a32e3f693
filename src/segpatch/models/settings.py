"""What may be said about a victim beside its weights: by the list of published checkpoints, or by a user."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from segpatch.data.classes import ClassSet
from segpatch.errors import BadInput
from segpatch.models.victim import Victim

Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Fields of a Victim, and the data that its weights were trained on; None leaves what is known otherwise.

    window: 0 for the whole image at once.
    """

    mean: Triple | None = None
    std: Triple | None = None
    channel_order: str | None = None
    value_range: float | None = None
    align_corners: bool | None = None
    window: int | None = None
    stride: int | None = None
    classes: ClassSet | None = None
    trained_on: str | None = None

    def on(self, victim: Victim) -> Victim:
        """The victim with these settings; BadInput where they do not go together."""
        given = self.given()
        trained_on = given.pop("trained_on", victim.provenance.trained_on)
        if given.get("window") == 0:
            given |= {"window": None, "stride": None}
        return replace(victim, **given, provenance=replace(victim.provenance, trained_on=trained_on))

    def given(self) -> dict[str, Any]:
        """The fields that say something."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


def class_facts(classes: ClassSet) -> dict[str, Any]:
    """A class set as it is recorded in a network file."""
    plain = {"name": classes.name, "names": classes.names, "colours": classes.colours}
    return json.loads(json.dumps(plain))  # type: ignore[no-any-return]


def read_facts(text: str | None, path: Path) -> dict[str, Any]:
    """What segpatch wrote about a network into its file, {} for any other file; BadInput where it is damaged."""
    try:
        facts = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} holds a damaged record of its network ({error}); make it again") from error
    if not isinstance(facts, dict):
        raise BadInput(f"{path} holds a damaged record of its network (no table); make it again")
    for key, right in _FACTS.items():
        if key in facts and not right(facts[key]):
            raise BadInput(f"{path} holds a damaged record of its network ({key}); make it again")
    return facts


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _may_be_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < _LARGEST


def _is_triple(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))


_LARGEST = 1e6  # of any number that a network is described by; NaN is not below it either
_FACTS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("network", "layout", "family"), _is_text),
    **dict.fromkeys(("trained_on", "clean_on", "licence"), _may_be_text),
    **dict.fromkeys(("mean", "std"), _is_triple),
    "clean_miou": lambda value: value is None or _is_number(value),
}


def class_set(facts: Any, source: object) -> ClassSet:
    """The class set of such a record; BadInput naming the source where it is damaged."""
    try:
        name, names, colours = facts["name"], tuple(facts["names"]), tuple(tuple(c) for c in facts["colours"])
        if not all(isinstance(text, str) for text in (name, *names)):
            raise TypeError("names are text")
        if not all(len(colour) == 3 and all(value in range(256) for value in colour) for colour in colours):
            raise ValueError("a colour is three numbers from 0 to 255")
        return ClassSet(name, names, colours)
    except BadInput:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{source} names its classes in a damaged record ({error!r})") from error
