"""Names as file names, and names that are shown."""

from __future__ import annotations

import hashlib
import re

_LONGEST = 160  # bytes of a file name: of the 255 that disks take, some are for endings and temporary names
_PATCH = re.compile(r"(?:[^\W_]|[.+-])+/(?:[^\W_]|[.+-])+/s\d+")
_LIKE_PATCH = re.compile(r".+_.+_s\d+")


def safe_name(name: str) -> str:
    """A name as a file name: no two names share one, none is longer than a disk takes or leads out of its folder.

    Patch names such as "pidnet-s/paper/s0" get underscores for slashes, plain ones stay as they are; in all
    others, whatever is no letter, digit or one of -_.+ becomes an underscore, and a hash after ~ tells them apart.
    """
    plain = "".join(c if c.isalnum() or c in "-_.+" else "_" for c in name)
    short = len(plain.encode()) <= _LONGEST and not name.startswith(".")
    if short and (_PATCH.fullmatch(name) or (plain == name != "" and not _LIKE_PATCH.fullmatch(name))):
        return plain
    start = plain.lstrip(".").encode()[: _LONGEST - 17].decode(errors="ignore")
    return f"{start}~{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:16]}"


def printable(text: str) -> str:
    """Text from a file without control codes, lines apart."""
    lines = text.split("\n")
    return "\n".join(
        line if line.isprintable() else "".join(c if c.isprintable() else "?" for c in line) for line in lines
    )
