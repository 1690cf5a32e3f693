"""How studies report what they are doing; the caller decides what to show."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Progress(NamedTuple):
    """Where a stage stands: its name, units done and in all, and a few words on the latest one."""

    stage: str
    done: int
    total: int
    note: str = ""


OnProgress = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Shows nothing."""
