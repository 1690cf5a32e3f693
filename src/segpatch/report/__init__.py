"""The report of a finished transfer run: one self-contained page and its figures."""

from segpatch.report.page import write_report

__all__ = ["write_report"]
