"""The templates of the pages: every name that they show is escaped, and a missing one is an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from segpatch.names import printable
from segpatch.plots import figure


def template(name: str, **filters: Callable[..., Any]) -> Template:
    """The template of a name, with the filter `figure` and the given ones."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {"figure": figure, **filters}
    return environment.get_template(name)


def _shown(value: Any) -> Any:
    """What a template shows of a value: names come from files of strangers, whose control codes stay outside."""
    return type(value)(printable(value)) if isinstance(value, str) else value
