"""Work that is done side by side, each piece on one core.

A short operation on all cores costs more than it gains: they wait for each other after each, and what one has
in its cache the next operation wants on another. Whole pieces of work, one to a core, have neither.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
S = TypeVar("S")


def count(device: torch.device) -> int:
    """How many pieces of work go side by side: torch's threads on a CPU; 1 on a GPU, which orders its own."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def side_by_side(work: Callable[[T], S], pieces: Iterable[T], device: torch.device) -> list[S]:
    """What `work` makes of each piece on a device, in their order."""
    listed = list(pieces)
    threads = count(device)
    if threads == 1 or len(listed) == 1:
        return [work(piece) for piece in listed]
    return list(_pool(threads).map(work, listed))


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads on each of which torch uses one core.

    torch sets that for the thread that asks, as OpenMP does, but remembers the number for threads yet to come: it
    is put right again once all of these are there.
    """
    pool = ThreadPoolExecutor(threads)
    all_there = threading.Barrier(threads)

    def begin(_: int) -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # a thread takes over what is remembered when it first asks
        all_there.wait()

    list(pool.map(begin, range(threads)))
    torch.set_num_threads(threads)
    return pool
