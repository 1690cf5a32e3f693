"""A disk that fails, or a process that is killed, at the n-th of the calls by which segpatch writes."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from typing import Any

FAULTS = {
    "no space": (errno.ENOSPC, ("open", "write", "fsync", "makedirs")),
    "permission lost": (errno.EACCES, ("open", "replace", "makedirs", "unlink")),
    "short write": (errno.ENOSPC, ("write",)),
    "rename fails": (errno.EIO, ("replace",)),
}
CALLS = ("open", "write", "fsync", "replace", "makedirs", "unlink")


class Disk:
    """Stands in for `os` in segpatch.writing. The n-th call that the fault concerns fails, and, of a lasting
    fault, all later ones; n 0: none fails. calls: how many there were."""

    def __init__(self, fault: str, n: int = 0, *, lasting: bool = False) -> None:
        self.fault, self.n, self.lasting, self.calls = fault, n, lasting, 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        code, concerned = FAULTS[self.fault]
        if name not in concerned:
            return real

        def call(*given: Any, **more: Any) -> Any:
            self.calls += 1
            if self.n and (self.calls == self.n or (self.lasting and self.calls > self.n)):
                if self.fault == "short write":
                    real(given[0], given[1][: len(given[1]) // 2])
                raise OSError(code, os.strerror(code))
            return real(*given, **more)

        return call


class Killer:
    """Stands in for `os` in segpatch.writing, and kills the process before or after the n-th call, or within it:
    of a write, half is done."""

    def __init__(self, n: int, moment: str) -> None:
        self.n, self.moment, self.calls = n, moment, 0

    def __getattr__(self, name: str) -> Any:
        real: Callable[..., Any] = getattr(os, name)
        if name not in CALLS:
            return real

        def call(*given: Any, **more: Any) -> Any:
            self.calls += 1
            if self.calls != self.n:
                return real(*given, **more)
            try:
                if self.moment == "within" and name == "write":
                    real(given[0], given[1][: len(given[1]) // 2])
                elif self.moment == "after":
                    real(*given, **more)
            finally:
                os.kill(os.getpid(), signal.SIGKILL)

        return call
