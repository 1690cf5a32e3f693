"""How long things take: actions in one process, in turn, each repeated; and the memory each needs at its peak."""

from __future__ import annotations

import gc
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

Action = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Seconds of every repeat of an action, and the bytes that it needed above what was there before it."""

    seconds: tuple[float, ...]
    peak_bytes: int

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Ratio:
    """How much longer one action takes than another: median, lowest and highest over the rounds of a run."""

    median: float
    low: float
    high: float


def interleaved(actions: Mapping[str, Action], repeats: int, device: torch.device) -> dict[str, Timing]:
    """The timing of every action, run in turn `repeats` times after one round that is not counted.

    In turn, so that a machine that grows slower or faster does so for all of them. Memory is of that first round.
    """
    peaks = {name: _peak(action, device) for name, action in actions.items()}
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats):
        for name, action in actions.items():
            start = _now(device)
            action()
            seconds[name].append(_now(device) - start)
    return {name: Timing(tuple(seconds[name]), peaks[name]) for name in actions}


def ratio(of: Timing, to: Timing, scale: float = 1.0) -> Ratio:
    """`of` over `scale` x `to`, round by round: what drifts within a run cancels within a round."""
    rounds = sorted(a / (b * scale) for a, b in zip(of.seconds, to.seconds, strict=True))
    return Ratio(statistics.median(rounds), rounds[0], rounds[-1])


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _peak(action: Action, device: torch.device) -> int:
    """Bytes above the level before, at the highest; on a CPU sampled every millisecond from the resident set."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        action()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    done = threading.Event()
    before = highest = _resident()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.001):
            highest = max(highest, _resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        action()
    finally:
        done.set()
        watcher.join()
    return highest - before


def _resident() -> int:
    """Bytes of the process in memory, or 0 where the system does not say (it is no Linux)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * 4096
