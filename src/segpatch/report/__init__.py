"""The report of a finished run: one self-contained page, its figures, and tables for a paper."""

from __future__ import annotations

from pathlib import Path

from segpatch.errors import BadInput, SegpatchError
from segpatch.report.page import write_matrix_report
from segpatch.report.study import write_study_report
from segpatch.report.tables import write_tables
from segpatch.results import read_transfer
from segpatch.writing import refuse_links_out

__all__ = ["write_report"]


def write_report(run: Path, out: Path, *, photographs: bool = False) -> Path:
    """Writes the page, figures and tables of a finished transfer run or study; returns the page's path.

    photographs: show those of its scenes too; see `report.photographs` for where they come from. Raises Missing
    where the run holds no result, BadInput where it is damaged.
    """
    refuse_links_out(run)
    try:
        if (run / "study.json").is_file():
            return write_study_report(run, out, photographs=photographs)
        page = write_matrix_report(run, out, photographs=photographs)
        write_tables(read_transfer(run), out / "tables")
        return page
    except SegpatchError:
        raise
    except _DAMAGED as error:  # the records name each other, and a study's hold what its parts returned
        raise BadInput(
            f"{run} holds a damaged result ({error!r}); measure again, and if that does not help report a bug"
        ) from error


_DAMAGED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, StopIteration)
