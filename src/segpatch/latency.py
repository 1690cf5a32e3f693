"""How long things take: actions in one process, in turn, each repeated; and the memory each needs at its peak."""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from segpatch.heap import give_back

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


def interleaved(
    actions: Mapping[str, Action],
    repeats: int,
    device: torch.device,
    before: Mapping[str, Action] | None = None,
) -> dict[str, Timing]:
    """The timing of every action, run in turn `repeats` times after two rounds that are not counted.

    In turn, so that a machine that grows slower or faster does so for all of them. Memory is of the second of the
    rounds that are not counted: what the first one leaves for good, such as a library's own buffers, is no
    action's. before: what is done, untimed, right before an action.
    """
    ready = before or {}
    for _ in range(2):
        peaks = {}
        for name, action in actions.items():
            ready.get(name, int)()
            peaks[name] = _peak(action, device)
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats):
        for name, action in actions.items():
            ready.get(name, int)()
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
    """Bytes above the level before, at the highest; on a CPU the resident set's high-water mark (Linux only)."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        action()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    give_back()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # sets the mark to what is resident now
    before = resident()
    action()
    return resident("VmHWM") - before


def resident(what: str = "VmRSS") -> int:
    """Bytes of the process in memory now, or at most (VmHWM); 0 where the system does not say (it is no Linux)."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(what):
                return int(line.split()[1]) * 1024
    return 0
