"""The one door through which files of text are read, which may be a stranger's.

What is no plain file (a pipe would never end), or larger than such a file can be with sense, is refused before a
byte of it is read.
"""

from __future__ import annotations

import stat
from pathlib import Path

from segpatch.errors import BadInput, Missing, advice

MOST_BYTES = 64 * 1024**2
"""Of a file of text: 400,000 lines of steps.jsonl, or a transfer.json of 20,000 cells."""


def read_text(path: Path) -> str:
    """The text of a file, without the mark that some editors put before it; BadInput where it is none."""
    content = read_bytes(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not a text file ({error}); save it as text in UTF-8") from error


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """The content of a plain file; Missing where there is none, BadInput for one that is not to be read."""
    must_be_plain(path, most)
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise unreadable(path, error) from error


def must_be_plain(path: Path, most: int = MOST_BYTES) -> None:
    """BadInput for what is no file to read, or larger than `most` bytes; Missing where there is nothing."""
    try:
        about = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    if not stat.S_ISREG(about.st_mode):
        raise BadInput(f"{path} is no plain file; put the file itself there")
    if about.st_size > most:
        raise BadInput(f"{path} is of {about.st_size} bytes, more than the {most} of such files; give another")


def unreadable(path: Path, error: OSError) -> BadInput | Missing:
    """What an error of reading a file is called: Missing or BadInput, with what to do."""
    if isinstance(error, FileNotFoundError):
        return Missing(f"{path} is not there; give a file that is")
    return BadInput(f"{path} cannot be read ({error.strerror}); {advice(error, 'give another file')}")
