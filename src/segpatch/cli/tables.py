"""Results as plain text tables."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from segpatch.names import printable

if TYPE_CHECKING:
    from segpatch.results import CellRecord, TransferResult

MARKS = {"transfers": "T", "does not": "-", "undecided": "?"}


def table(head: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as their longest cell; the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(len(line) for line in lines))
    return "\n".join(lines)


def print_table(head: list[str], rows: list[list[str]]) -> None:
    """On a terminal a table that fits its width, elsewhere plain text."""
    rows = [[printable(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        print(table(head, [[cell.replace("\n", "; ") for cell in row] for row in rows]))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    shown = Table(*(Column(name, overflow="fold") for name in head), box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        shown.add_row(*map(Text, row))
    Console().print(shown)


def transfer_table(result: TransferResult) -> str:
    """Patches by networks: the mIoU drop with its 95 % interval; the clean mIoU in the first row."""
    names = [victim.name for victim in result.victims]
    rows = []
    for patch in result.patches:
        cells = [result.cell(patch.name, name) for name in names]
        if patch.kind == "none":
            rows.append(["clean mIoU", *(_three(cell.miou_clean) for cell in cells)])
        else:
            rows.append([patch.name, *(_cell(cell) for cell in cells)])
    data = result.dataset
    title = (
        f"mIoU drop [95 % interval] on {data.images} images of {data.kind} {data.split}, over the pixels outside "
        f"the patch.\n* own network; against the random control at margin {result.margin:g}: "
        "T transfers, - does not, ? undecided"
    )
    return printable(f"{title}\n\n{table(['patch', *names], rows)}")


def _cell(cell: CellRecord) -> str:
    mark = "*" if cell.white_box else MARKS[cell.over_random.verdict] if cell.over_random else " "
    return f"{_three(cell.miou_drop)} [{_three(cell.ci95[0])}, {_three(cell.ci95[1])}] {mark}"


def _three(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}".replace("-0.000", "0.000")
