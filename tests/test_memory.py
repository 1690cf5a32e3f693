from __future__ import annotations

import pytest
import torch

from segpatch.errors import SegpatchError
from segpatch.memory import in_parts_that_fit, memory_advice, memory_warning, out_of_memory

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:82] DefaultCPUAllocator: not enough memory: you tried"),
]


@pytest.mark.parametrize("error", ERRORS)
def test_running_out_of_memory_is_one_line(error: Exception):
    with pytest.raises(SegpatchError, match="out of memory with 6 images") as caught, memory_advice(6):
        raise error
    assert "--batch-size" in str(caught.value) and "\n" not in str(caught.value)
    assert out_of_memory(error)


def test_other_errors_are_passed_on():
    with pytest.raises(RuntimeError, match="shape"), memory_advice(6):
        raise RuntimeError("shape mismatch")
    with pytest.raises(RuntimeError, match="shape"):
        in_parts_that_fit(wrong_shape, 4, 4)


def wrong_shape(part: int) -> None:
    raise RuntimeError("shape mismatch")


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(
    ("part", "images", "room", "tried"),
    [(6, 6, 6, [6]), (6, 6, 5, [6, 3]), (6, 6, 1, [6, 3, 1]), (8, 3, 2, [8, 1]), (2, 6, 1, [2, 1])],
)
def test_it_is_halved_until_it_fits(error: Exception, part: int, images: int, room: int, tried: list[int]):
    seen: list[int] = []

    def work(part: int) -> str:
        seen.append(part)
        if min(part, images) > room:
            raise error
        return "done"

    assert in_parts_that_fit(work, part, images) == ("done", tried[-1])
    assert seen == tried


def test_too_little_for_one_image_is_one_line():
    def work(part: int) -> None:
        raise ERRORS[0]

    with pytest.raises(SegpatchError, match="out of memory with a single image; use smaller images") as caught:
        in_parts_that_fit(work, 6, 6)
    assert "\n" not in str(caught.value)


def test_a_warning_says_what_was_used():
    assert memory_warning("p", 6, 6) == memory_warning("p", 6, 8) == []
    (line,) = memory_warning("p", 6, 3, "; use less")
    assert line == (
        "p: memory ran out with 6 images at a time, so it went on with 3 (same result up to rounding); use less"
    )
