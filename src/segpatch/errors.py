"""The exceptions that segpatch raises on purpose.

    SegpatchError            anything the user can mend; the command line prints its one line
    ├── BadInput             a bad argument or file (also a ValueError)
    ├── Missing              absent data, weights or optional package
    ├── OutOfMemory          too little memory, even in the smallest pieces
    └── Lost                 another process of the same run has stopped

Any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

STOPPED = 130
"""Exit code after Ctrl-C, as shells know it."""


class SegpatchError(Exception):
    """Base of all: says in one line what was expected, what came and what to do."""


class BadInput(SegpatchError, ValueError):
    """An argument or a file that cannot be used as it is."""


class Missing(SegpatchError):
    """Something that is not there: data, weights, an optional package."""


class OutOfMemory(SegpatchError):
    """Memory that does not suffice, however small the pieces."""


class Lost(SegpatchError):
    """Another process of the same run has stopped without a word, so that this one cannot go on."""


def in_line(text: object) -> str:
    """What a file says, for the one line of an error."""
    return "; ".join(str(text).splitlines())


_ADVICE = {
    errno.EACCES: "give yourself the permission",
    errno.EPERM: "give yourself the permission",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "remove the links that lead to each other",
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there",
    errno.EROFS: "choose another place",
    errno.EIO: "look after the disk",
}
"""What to do about what a disk refuses."""


def advice(error: OSError, otherwise: str) -> str:
    """What to do about an error of the disk."""
    return _ADVICE.get(error.errno or 0, otherwise)


def of_the_disk(error: OSError) -> SegpatchError | None:
    """The one line of an error of the disk that no reader or writer foresaw; None for what may be a bug."""
    if error.errno not in _ADVICE:
        return None
    return SegpatchError(
        f"{error.filename or 'the output'} cannot be used: {error.strerror}; {_ADVICE[error.errno]}"
    )


def unknown_name(kind: str, name: str, known: Iterable[str]) -> BadInput:
    """A BadInput for a name that is not in `known`, naming the nearest ones (all of them if few)."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return BadInput(f"unknown {kind} {name!r}; {hint}known: {', '.join(names)}")
