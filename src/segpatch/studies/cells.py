"""Independent cells of a study, done side by side by Ray.

A cell writes its own run directory, on a disk that all of Ray's nodes share, and is resumable. When a node is
lost, its cells are given to another one, which goes on from their last saved state.
"""

from __future__ import annotations

import copy
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from segpatch import heap, subnormals
from segpatch.errors import BadInput, Missing, SegpatchError
from segpatch.models.victim import Victim

C = TypeVar("C")
S = TypeVar("S")
T = TypeVar("T")

RETRIES = 5
"""Nodes that may be lost under one cell; one that is lost every time is the cell's own doing."""
PATIENCE = 120.0
"""Seconds that a cell waits for its run directory: a lost node's processes may outlive it for a while."""


def run_cells(
    work: Callable[[S, C], T],
    shared: S,
    cells: Sequence[C],
    *,
    ray: str,
    gpus: float = 0,
    on_done: Callable[[int], object] = int,
) -> list[T]:
    """What `work(shared, cell)` returned for each cell, in their order, as many at a time as Ray has room for.

    ray: "local" to start it here, or the address of a running cluster. Each cell takes one core, and `gpus`.
    shared: sent to each node once. on_done gets the number of cells done so far. What a cell raises ends all of
    them; so does Ctrl-C.
    """
    with connected(ray) as cluster:
        if gpus > cluster.cluster_resources().get("GPU", 0):
            raise BadInput(
                f"the Ray cluster at {ray} has no GPU for cells; use --device cpu, or a cluster with GPUs"
            )

        def guarded(shared: S, cell: C) -> tuple[T | None, SegpatchError | None]:
            heap.keep()  # both as the command does: its worker computes for it alone
            subnormals.flush()
            try:
                return work(shared, cell), None
            except SegpatchError as error:  # as itself: Ray would wrap it
                return None, error

        remote = cluster.remote(guarded).options(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)
        sent = cluster.put(shared)
        places = {remote.remote(sent, cell): place for place, cell in enumerate(cells)}
        results: dict[int, T] = {}
        waiting = list(places)
        while waiting:
            done, waiting = cluster.wait(waiting)
            for reference in done:
                result, error = cluster.get(reference)
                if error is not None:
                    raise error
                results[places[reference]] = result
                on_done(len(results))
        return [results[place] for place in range(len(cells))]


def to_workers(victims: Sequence[Victim]) -> tuple[list[Victim], str]:
    """Victims as they are sent to cells, on the CPU, and the device that they are for there: the GPU of a cell has
    another number where it runs."""
    if all(victim.device.type != "cuda" for victim in victims):
        return list(victims), "cpu"
    return [replace(victim, module=copy.deepcopy(victim.module).cpu()) for victim in victims], "cuda"


def from_driver(victims: Sequence[Victim], device: str) -> list[Victim]:
    """Victims that were sent to a cell, on its device."""
    return [victim.to(device) for victim in victims]


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Ray, joined to a cluster or started here, and left again; as it is where this process has joined one."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    try:
        import ray
    except ImportError as error:
        raise Missing("--ray needs Ray, which is not installed; pip install 'segpatch[ray]'") from error
    if ray.is_initialized():
        yield ray
        return
    try:
        host, _, port = address.rpartition(":")
        if host and port.isdigit() and "/" not in host:  # where nothing listens, Ray would try for many minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BadInput(f"no Ray cluster at {address} ({reason}); give the address of one, or local") from error
    try:
        yield ray
    finally:
        ray.shutdown()
