"""Progress on stderr: one line that is rewritten on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from segpatch.studies.progress import Progress


@dataclass
class ProgressPrinter:
    """Prints stage, units done, rate and remaining time. every: seconds between lines off a terminal."""

    quiet: bool = False
    every: float = 5.0
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    _stage: str = ""
    _began: float = 0.0
    _first: int = 0
    _printed: float = 0.0
    _width: int = 0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.stage != self._stage:
            self._stage, self._began, self._first, self._printed = progress.stage, now, progress.done, 0.0
        terminal = self.stream.isatty()
        last = progress.done >= progress.total
        if self.quiet or not (last or now - self._printed >= (0.1 if terminal else self.every)):
            return
        self._printed = now
        line = describe(progress, progress.done - self._first, now - self._began)
        if terminal:
            end = "\n" if last else ""
            self.stream.write(f"\r{line:<{self._width}}{end}")
            self._width = 0 if last else len(line)
        else:
            self.stream.write(line + "\n")
        self.stream.flush()


def describe(progress: Progress, done_here: int, seconds: float) -> str:
    """One line: stage, done/total, rate, time left, note. done_here: units done in these seconds."""
    rate = done_here / seconds if seconds > 0 else 0.0
    speed = ""
    if rate:
        left = (progress.total - progress.done) / rate
        speed = f", {rate:.2f}/s" if rate >= 1 else f", {1 / rate:.2f} s each"
        speed += f", {clock(left)} left" if progress.done < progress.total else f", took {clock(seconds)}"
    note = f", {progress.note}" if progress.note else ""
    return f"{progress.stage}: {progress.done}/{progress.total}{speed}{note}"


def clock(seconds: float) -> str:
    """Minutes and seconds, or hours and minutes: 4:05, 2h05."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}"
    return f"{whole // 60}:{whole % 60:02d}"
