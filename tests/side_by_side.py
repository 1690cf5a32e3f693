"""Processes as threads of one, so that sharing is tested in milliseconds; test_torchrun.py has real ones."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from segpatch.processes import Processes, _losses

T = TypeVar("T")


@dataclass(frozen=True)
class Thread(Processes):
    """A process that exchanges values through a list which all threads share."""

    board: list[Any] = field(default_factory=list)
    written: threading.Barrier = field(default_factory=lambda: threading.Barrier(1))
    read: threading.Barrier = field(default_factory=lambda: threading.Barrier(1))

    def _gather(self, value: T) -> list[T]:
        with _losses():
            self.board[self.rank] = value
            self.written.wait(10)
            values = list(self.board)
            self.read.wait(10)
        return values

    def by_first(self, work: Callable[[], T]) -> T:
        return self.gathered(lambda: work() if self.first else None)[0]

    def add(self, tensors: Any) -> None:
        values = self.gathered(lambda: [tensor.detach().clone() for tensor in tensors])
        for tensor, *parts in zip(tensors, *values, strict=True):
            tensor.detach().copy_(torch.stack(parts).sum(0))


def side_by_side(world: int, work: Callable[[Processes], T]) -> list[Any]:
    """What `work` returns, or the error that it raises, in each of `world` processes."""
    board: list[Any] = [None] * world
    written, read = threading.Barrier(world), threading.Barrier(world)
    out: list[Any] = [None] * world

    def run(rank: int) -> None:
        try:
            out[rank] = work(Thread(rank, world, rank, board=board, written=written, read=read))
        except BaseException as error:
            out[rank] = error
            written.abort()  # as the connections of a process that ends are closed

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return out
