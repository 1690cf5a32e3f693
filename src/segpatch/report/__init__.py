"""The report of a finished run: one self-contained page and its figures."""

from __future__ import annotations

from pathlib import Path

from segpatch.errors import BadInput, SegpatchError
from segpatch.report.page import write_matrix_report
from segpatch.report.study import write_study_report

__all__ = ["write_report"]


def write_report(run: Path, out: Path) -> Path:
    """Writes the page, figures and tables of a finished transfer run or study; returns the page's path.

    Raises Missing where the run holds no result, BadInput where it is damaged.
    """
    try:
        return (write_study_report if (run / "study.json").is_file() else write_matrix_report)(run, out)
    except SegpatchError:
        raise
    except _DAMAGED as error:  # the records name each other, and a study's hold what its parts returned
        raise BadInput(f"{run} holds a damaged result ({error!r}); measure again") from error


_DAMAGED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, StopIteration)
