"""Running out of memory: what works on many images at once goes on with half of them, or says what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from segpatch.errors import OutOfMemory

T = TypeVar("T")
_CPU_ALLOCATOR = ("can't allocate memory", "not enough memory")
"""What torch's RuntimeError of the CPU says: Linux, Windows."""


def in_parts_that_fit(work: Callable[[int], T], part: int, images: int) -> tuple[T, int]:
    """What `work(part)` returns and the part that it worked with, halved while memory does not suffice.

    work: does a job on `images` images, `part` of them at a time; it is repeated whole. Where memory does not
    suffice for one image, OutOfMemory says what to do.
    """
    while True:
        try:
            return work(part), part
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            tried = min(part, images)
            if tried <= 1:
                raise OutOfMemory(memory_line(1)) from error
        # Out here, because until the handler ends the error holds what filled the memory.
        part = tried // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _CPU_ALLOCATOR)


@contextmanager
def memory_advice(batch_size: int) -> Iterator[None]:
    """Turns running out of memory into a line that says what to do."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise OutOfMemory(memory_line(batch_size)) from error


def memory_line(images: int) -> str:
    """What to do where this many images at a time are too many."""
    if images == 1:
        return "out of memory with a single image; use smaller images or crops (--crop), or --precision bf16"
    return (
        f"out of memory with {images} images at a time; use a smaller --batch-size or --crop, or --precision bf16"
    )


def memory_warning(name: str, asked: int, used: int, remedy: str = "") -> list[str]:
    """A warning where fewer images at a time were used than asked for, else none."""
    if used >= asked:
        return []
    return [
        f"{name}: memory ran out with {asked} images at a time, so it went on with {used} (same result up to "
        f"rounding){remedy}"
    ]
