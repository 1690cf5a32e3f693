"""The report of a finished run: one self-contained page, its figures, and tables for a paper."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from segpatch.errors import BadInput, SegpatchError
from segpatch.report.page import write_matrix_report
from segpatch.report.study import write_study_report
from segpatch.writing import refuse_links_out

__all__ = ["refuse_taken", "sound", "write_report"]


def write_report(run: Path, out: Path, *, photographs: bool = False) -> Path:
    """Writes the page, figures and tables of a finished transfer run or study; returns the page's path.

    photographs: show those of its scenes too; see `report.photographs` for where they come from. Raises Missing
    where the run holds no result, BadInput where it is damaged.
    """
    refuse_links_out(run)
    is_study = (run / "study.json").is_file()
    with sound(run):
        if is_study:
            return write_study_report(run, out, photographs=photographs)
        return write_matrix_report(run, out, photographs=photographs)


def refuse_taken(out: Path) -> None:
    """BadInput for a folder that holds something and no page of segpatch's: a page beside it, or in its place,
    would be asked for by nobody."""
    page = out / "index.html"
    if page.is_file():
        with page.open("rb") as file:
            ours = _OURS in file.read(_HEAD)
    else:
        ours = not out.is_dir() or not any(out.iterdir())
    if not ours:
        raise BadInput(f"{out} holds other files than a page of segpatch; use --overwrite or another --out")


@contextlib.contextmanager
def sound(*runs: Path) -> Iterator[None]:
    """Turns what is found wrong only while a result is shown into BadInput."""
    try:
        yield
    except SegpatchError:
        raise
    except _DAMAGED as error:  # the records name each other, and a study's hold what its parts returned
        raise BadInput(
            f"{' or '.join(map(str, runs))} holds a damaged result ({error!r}); measure again, and if that does "
            "not help report a bug"
        ) from error


_OURS, _HEAD = b'<meta name="generator" content="segpatch">', 1000
_DAMAGED = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    StopIteration,
    OSError,
)
