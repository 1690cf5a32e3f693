"""Work that is done side by side, each piece on one core.

A short operation on all cores costs more than it gains: they wait for each other after each, and what one has
in its cache the next operation wants on another. Whole pieces of work, one to a core, have neither.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

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
    on_team = _openmp() if threading.current_thread() is threading.main_thread() else None
    if on_team is None:
        return list(_pool(threads).map(work, listed))
    return _on_team(on_team, work, listed, threads)


_Body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@functools.cache
def _openmp() -> Any:
    """What runs a function on each thread of a team (function, argument, threads, 0): of the GNU OpenMP library
    that torch has loaded; None where there is none.

    After an operation of torch its threads keep looking for the next one for some milliseconds, on cores that
    others then wait for. They begin at once, and torch uses one core in each. A thread of ours beside the main one
    would get a team of its own, which is why only the main one uses it.
    """
    try:
        run = ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD | os.RTLD_NOW).GOMP_parallel
    except (OSError, AttributeError):
        return None
    run.argtypes, run.restype = (_Body, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
    return run


def _on_team(on_team: Any, work: Callable[[T], S], pieces: Sequence[T], threads: int) -> list[S]:
    left = iter(range(len(pieces)))  # of which each thread takes the next: a team may be smaller than asked for
    made: dict[int, S] = {}
    errors: list[BaseException] = []

    def body(_: Any) -> None:
        try:
            for number in left:
                made[number] = work(pieces[number])
        except BaseException as error:  # nothing may pass through the library
            errors.append(error)

    on_team(_Body(body), None, threads, 0)
    if errors:
        raise errors[0]
    return [made[number] for number in range(len(pieces))]


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
