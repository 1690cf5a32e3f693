"""Several processes that work on one thing, each on its share (`torchrun --nproc-per-node N -m segpatch ...`).

Each process draws the same chance and knows the same state; samples and images are dealt out in turn, and what
the shares add up to is known to all. A procedure takes a `Processes` and asks nothing else: `ALONE` does nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from segpatch.errors import BadInput, Lost, SegpatchError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed.distributed_c10d import Store

T = TypeVar("T")
TIMEOUT = timedelta(hours=2)
"""How long a process waits for one that is alive: longer than any batch is measured or any page written."""
_SAID, _PATIENCE = "segpatch/said", timedelta(seconds=10)


@dataclass(frozen=True)
class Processes:
    """One of `world` processes, number `rank` from 0; number `local` of those on this machine."""

    rank: int = 0
    world: int = 1
    local: int = 0
    store: Store | None = None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def share(self, items: range) -> range:
        """The items that are this process's: every world-th."""
        return items[self.rank :: self.world]

    def gathered(self, work: Callable[[], T]) -> list[T]:
        """What `work` returned in each process, in their order, once all are done; to be called by all.

        Where it failed in one, it fails in all: Ctrl-C as KeyboardInterrupt, a SegpatchError as itself, and any
        other error, which keeps its traceback in its own process, as a SegpatchError that names it.
        """
        if self.world == 1:
            return [work()]
        value, failure = None, None
        try:
            value = work()
        except (Exception, KeyboardInterrupt) as error:
            failure = error
        try:
            results = self._gather((value, self._shown(failure)))
        except Lost:
            if failure is None:
                raise
            raise failure from None
        failures = [shown for _, shown in results if shown is not None]
        if any(isinstance(shown, KeyboardInterrupt) for shown in failures):
            raise KeyboardInterrupt
        if failures:
            raise failure or failures[0]
        return [cast(T, value) for value, _ in results]

    def together(self, work: Callable[[], T]) -> T:
        """What `work` returned here, once all are done with it; fails in all where it failed in one."""
        values: list[T] = []
        self.gathered(lambda: values.append(work()))
        return values[0]

    def in_step(self, items: Iterable[T], count: int) -> Iterator[T]:
        """This process's items, each fetched together; count: the most that any process has.

        So no process runs far ahead, and an item that one cannot fetch ends all of them at once.
        """
        own = iter(items)
        for _ in range(count):
            item = self.together(lambda: next(own, None))
            if item is not None:
                yield item

    def by_first(self, work: Callable[[], T]) -> T:
        """What `work` returned in the first process, the only one that does it; to be called by all."""
        if self.world == 1:
            return work()
        values: list[T] = []
        self.gathered(lambda: values.append(work()) if self.first else None)
        # Sent apart: a gather would make room in each process for as much from every other.
        with _losses():
            import torch

            box: list[Any] = values or [None]
            torch.distributed.broadcast_object_list(box, src=0)
        value: T = box[0]
        return value

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replaces each of these float32 tensors of one device by its sum over the processes, in place."""
        if self.world == 1:
            return
        import torch

        flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
        with _losses():
            torch.distributed.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.detach().copy_(part.view_as(tensor))

    def say(self, tell: Callable[[], None]) -> None:
        """Lets the first process tell how the run ended; another one tells only where the first says nothing."""
        if self.store is None:
            tell()
            return
        if not self.first:
            leave(self)  # first may be waiting for this process, and hears now that it has gone
            with contextlib.suppress(RuntimeError):
                self.store.wait([_SAID], _PATIENCE)
                return
        tell()
        self.store.set(_SAID, "")

    def _gather(self, value: T) -> list[T]:
        import torch

        values: list[Any] = [None] * self.world
        with _losses():
            torch.distributed.all_gather_object(values, value)
        return values

    def _shown(self, error: BaseException | None) -> BaseException | None:
        """The error as the other processes see it."""
        if error is None or isinstance(error, SegpatchError | KeyboardInterrupt):
            return error
        return SegpatchError(f"process {self.rank} of {self.world} failed: {type(error).__name__}: {error}")


ALONE = Processes()


def join() -> Processes:
    """This process among those that torchrun started, able to reach the others; ALONE where it started none.

    BadInput where the environment says that there are several, but not how to reach them.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return ALONE
    import torch
    from torch.distributed.rendezvous import rendezvous

    try:
        store, rank, world = next(rendezvous("env://", timeout=TIMEOUT))
    except (ValueError, torch.distributed.DistError) as error:
        first_line = str(error).partition("\n")[0]
        raise BadInput(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']!r}, but the others cannot be joined ({first_line}); "
            "start them by torchrun, or unset WORLD_SIZE"
        ) from error
    # What is gathered goes by gloo, from the CPU; the gradients of a network's weights on GPUs go by NCCL.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=TIMEOUT)
    return Processes(rank, world, int(os.environ.get("LOCAL_RANK", rank)), store)


def leave(processes: Processes) -> None:
    """Ends what `join` began: this process closes its connections."""
    if processes.world > 1:
        import torch

        torch.distributed.destroy_process_group()


@contextlib.contextmanager
def _losses() -> Iterator[None]:
    """Turns the failure of an exchange into Lost: a process that ends closes its connections."""
    try:
        yield
    except RuntimeError as error:
        first_line = str(error).partition("\n")[0]
        raise Lost(f"another process of this run has stopped ({first_line}); --resume goes on") from error
