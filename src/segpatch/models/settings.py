"""What may be said about a victim beside its weights: by the list of published checkpoints, or by a user."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
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


def class_set(facts: Mapping[str, Any], source: object) -> ClassSet:
    """The class set of such a record; BadInput naming the source where it is damaged."""
    try:
        return ClassSet(facts["name"], tuple(facts["names"]), tuple(tuple(c) for c in facts["colours"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{source} names its classes in a damaged record ({error!r})") from error
