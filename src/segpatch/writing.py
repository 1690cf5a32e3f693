"""The one door through which runs reach the disk: a file appears whole or not at all.

A file is written beside its place and renamed. What a killed process leaves is named `.<number>.unfinished`, and
`leftovers` finds it. Every call goes to `os`, so that tests can put a failing disk in its place.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segpatch.errors import BadInput, SegpatchError, advice

UNFINISHED = ".unfinished"
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # Windows has none


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file beside its place, then renames it; the old one stays where that fails (SegpatchError)."""
    # A name of its own length, since the path's may be as long as a file system takes.
    beside = path.with_name(f".{os.getpid()}-{zlib.crc32(os.fsencode(path.name)):08x}{UNFINISHED}")
    with guarded(path):
        try:
            file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _NO_LINK, 0o666)
            try:
                _put(file, content)
                os.fsync(file)
            finally:
                os.close(file)
            os.replace(beside, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise


def write_png(path: Path, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    """Writes a picture (h, w) or (h, w, 3) as PNG, whole or not at all."""
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    write_whole(path, encoded.getvalue())


def append_line(path: Path, line: str) -> None:
    """Adds a line to a file; where that fails, what went in of it is taken out again."""
    with guarded(path):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _NO_LINK, 0o666)
        try:
            before = os.fstat(file).st_size
            try:
                _put(file, f"{line}\n".encode())
            except BaseException:
                with contextlib.suppress(OSError):
                    os.ftruncate(file, before)
                raise
        finally:
            os.close(file)


def make_folder(path: Path) -> Path:
    """The folder, made with those above it where it is not there."""
    with guarded(path):
        os.makedirs(path, exist_ok=True)
    return path


def remove(path: Path) -> None:
    """Removes a file or a folder with all that is in it; nothing where there is none."""
    with guarded(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def leftovers(directory: Path, lock: str) -> list[Path]:
    """Unfinished files in a directory, but not in those below it that hold a file `lock` of their own."""
    found = []
    for folder, below, files in os.walk(directory):
        below[:] = [name for name in below if not Path(folder, name, lock).is_file()]
        found += [Path(folder, name) for name in files if name.startswith(".") and name.endswith(UNFINISHED)]
    return found


def refuse_links_out(directory: Path) -> None:
    """BadInput where a link in a directory, which may be a stranger's, leads to a place outside of it."""
    for folder, below, files in os.walk(directory):
        for path in (Path(folder, name) for name in (*below, *files)):
            if path.is_symlink() and not is_within(path, directory):
                raise BadInput(f"{path} is a link out of {directory}; put the files there, or remove it")


def is_within(path: Path, directory: Path) -> bool:
    """Whether a path leads into a directory, links followed as far as they lead anywhere."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(directory))


def refuse_existing(path: Path, overwrite: bool) -> None:
    """BadInput where a file to write is there, unless it is to be replaced."""
    if path.exists() and not overwrite:
        raise BadInput(f"{path} exists; use --overwrite or another --out")


@contextlib.contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Turns an OSError of writing at a path (no space left, no permission) into one line."""
    try:
        yield
    except OSError as error:
        what = advice(error, "mend that")
        raise SegpatchError(
            f"cannot write to {path}: {error.strerror or error}; {what}, or choose another place"
        ) from error


def _put(file: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(file, left) :]
