"""The C library's heap: kept by the process instead of given back to the system after every tensor.

The allocator of glibc gives large blocks back at once, and asks the system for zeroed pages again for the next
tensor. On a CPU that costs a forward and backward pass between 5 and 30 % of its time, and an operation on a new
tensor up to ten times its own. Elsewhere than on glibc these functions do nothing.
"""

from __future__ import annotations

import ctypes
import functools

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -2, -3, -4, -8  # of mallopt(3)
_MIB = 2**20
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 64 * _MIB, _ARENA_MAX: 1}
_AS_IT_IS = {
    _MMAP_MAX: 65536,
    _MMAP_THRESHOLD: 32 * _MIB,
    _TRIM_THRESHOLD: 64 * _MIB,
    _TOP_PAD: 128 * 1024,
    _ARENA_MAX: 0,
}


def keep() -> bool:
    """Keeps what is freed for the next tensor, whichever thread frees it, for the rest of the process; whether
    that could be arranged.

    The process then never shrinks: for a command, which ends, not for a library that others import.
    """
    return _set(_KEEP)


def as_it_is() -> bool:
    """Sets what glibc itself arrives at in a process with large tensors, to time what others do beside `keep`."""
    return _set(_AS_IT_IS)


def _set(options: dict[int, int]) -> bool:
    libc = _glibc()
    return libc is not None and all(libc.mallopt(option, value) for option, value in options.items())


def give_back() -> None:
    """Gives what is free back to the system now, so that the process is as large as what it holds."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    """The C library of this process, where it is glibc."""
    try:
        libc = ctypes.CDLL(None)
    except (OSError, TypeError):
        return None
    return libc if hasattr(libc, "gnu_get_libc_version") else None
