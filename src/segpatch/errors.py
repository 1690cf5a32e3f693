"""The exceptions that segpatch raises on purpose.

    SegpatchError            anything the user can mend; the command line prints its one line
    ├── BadInput             a bad argument or file (also a ValueError)
    ├── Missing              absent data, weights or optional package
    └── Lost                 another process of the same run has stopped

Any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SegpatchError(Exception):
    """Base of all: says in one line what was expected, what came and what to do."""


class BadInput(SegpatchError, ValueError):
    """An argument or a file that cannot be used as it is."""


class Missing(SegpatchError):
    """Something that is not there: data, weights, an optional package."""


class Lost(SegpatchError):
    """Another process of the same run has stopped without a word, so that this one cannot go on."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> BadInput:
    """A BadInput for a name that is not in `known`, naming the nearest ones (all of them if few)."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return BadInput(f"unknown {kind} {name!r}; {hint}known: {', '.join(names)}")
