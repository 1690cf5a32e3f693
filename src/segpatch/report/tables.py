"""Tables ready for a paper, as Markdown, LaTeX (booktabs) and CSV: drops of the matrix, IoU per class."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from segpatch.names import printable, safe_name
from segpatch.notebook import three
from segpatch.report.facts import class_table
from segpatch.results import CellRecord, GroupRecord, Pair, PatchRecord, TransferResult
from segpatch.writing import make_folder, write_whole


class Value(NamedTuple):
    """A number, its 95 % interval if it has one, and whether the network is one that the patch was trained on."""

    number: float | None
    interval: Pair | None = None
    own: bool = False


class Table(NamedTuple):
    """A table: its file name, what it shows, the heading of each column, and rows with theirs."""

    name: str
    caption: str
    head: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Value]]]


def write_tables(result: TransferResult, out: Path) -> None:
    """Writes each table as NAME.md, NAME.tex and NAME.csv into a folder."""
    make_folder(out)
    for table in tables(result):
        for ending, write in FORMS.items():
            write_whole(out / f"{table.name}.{ending}", write(table).encode())


def tables(result: TransferResult) -> list[Table]:
    """The matrix of drops, with means over the seeds of a training, and the IoU of each network's classes."""
    data = f"{result.dataset.images} images of {result.dataset.kind} {result.dataset.split}"
    drops = Table(
        "drops",
        f"Loss of mIoU [95 % interval] on {data}, over the pixels outside the patch; * own network.",
        ["patch", *(victim.name for victim in result.victims)],
        _drops(result),
    )
    return [drops, *(_classes(result, victim.name, data) for victim in result.victims)]


def markdown(table: Table) -> str:
    """The table as Markdown, its caption above."""
    head = [_escaped(cell, _MARKDOWN) for cell in table.head]
    rows = [[_escaped(name, _MARKDOWN), *map(text_of, values)] for name, values in table.rows]
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join([_escaped(table.caption, _MARKDOWN), "", *(f"| {' | '.join(line)} |" for line in lines), ""])


def latex(table: Table) -> str:
    r"""The table as LaTeX; it needs \usepackage{booktabs}."""

    def line(cells: Sequence[str]) -> str:
        text = " & ".join(cells)  # a bracket or star would be taken by the line end before it
        return f"{'{}' if text.startswith(('[', '*')) else ''}{text} \\\\"

    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex(table.caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.head) - 1)}}}",
            r"\toprule",
            line([_latex(cell) for cell in table.head]),
            r"\midrule",
            *(line([_latex(name), *map(_latex_value, values)]) for name, values in table.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def csv_text(table: Table) -> str:
    """The table as CSV: exact numbers, and a column for each end of an interval."""
    wide = any(value.interval for _, values in table.rows for value in values)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    heads = [[name, f"{name} low", f"{name} high"] if wide else [name] for name in table.head[1:]]
    writer.writerow([table.head[0], *(printable(name) for part in heads for name in part)])
    for name, values in table.rows:
        cells = [[v.number, *(v.interval or (None, None))] if wide else [v.number] for v in values]
        writer.writerow([printable(name), *(cell for part in cells for cell in part)])
    return out.getvalue()


FORMS: dict[str, Callable[[Table], str]] = {"md": markdown, "tex": latex, "csv": csv_text}


def text_of(value: Value) -> str:
    """ "0.123 [0.100, 0.150] *"; a dash where there is no number."""
    if value.number is None:
        return "–"
    low, high = value.interval or (None, None)
    interval = "" if low is None or high is None else f" [{three(low)}, {three(high)}]"
    return f"{three(value.number)}{interval}{' *' if value.own else ''}"


def _drops(result: TransferResult) -> list[tuple[str, list[Value]]]:
    """The clean mIoU, each control, then each training with its mean over the seeds."""
    victims = [victim.name for victim in result.victims]
    trained_on = {_training(patch): patch.trained_on for patch in result.patches if patch.kind == "trained"}
    grouped: dict[str, dict[str, GroupRecord]] = {}
    for group in result.groups:
        grouped.setdefault(group.patch_group, {})[group.victim] = group
    rows = [("clean mIoU", [Value(result.cell("none", name).miou_clean) for name in victims])]
    done = set()
    for patch in sorted(result.patches, key=lambda patch: patch.kind == "trained"):
        training = _training(patch)
        if patch.kind == "none" or training in done:
            continue
        if training in grouped:
            done.add(training)
            found: list[CellRecord | GroupRecord] = [grouped[training][name] for name in victims]
            name = f"{training}, {len(found[0].seeds)} seeds" if len(found[0].seeds) > 1 else training  # type: ignore[union-attr]
        else:
            found, name = [result.cell(patch.name, name) for name in victims], patch.name
        own = trained_on.get(training, [])
        values = [Value(one.miou_drop, one.ci95, v in own) for v, one in zip(victims, found, strict=True)]
        rows.append((name, values))
    return rows


def _training(patch: PatchRecord) -> str:
    """What the patches of a training's seeds have in common, as `transfer_matrix` groups them."""
    if patch.kind != "trained" or patch.seed is None:
        return patch.name
    return patch.name.rpartition("/s")[0] or patch.name


def _classes(result: TransferResult, victim: str, data: str) -> Table:
    about = class_table(result, victim)
    columns = list(zip(*(series.values for series in about.series), strict=True))
    return Table(
        f"iou-{safe_name(victim)}",
        f"IoU per class of {victim} on {data}, over the pixels outside the patch: clean, and under the costliest "
        "patches of its own and of another network.",
        ["class", *(series.name for series in about.series)],
        [(name, [Value(v) for v in values]) for name, values in zip(result.classes, columns, strict=True)],
    )


_MARKDOWN = {"\\": "\\\\", "|": "\\|", "*": "\\*", "_": "\\_", "`": "\\`", "<": "&lt;", "&": "&amp;", "[": "\\["}
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    "–": r"\textendash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}


def _escaped(text: str, table: dict[str, str]) -> str:
    return "".join(table.get(c, c) if c.isprintable() else " " for c in text)


def _latex(text: str) -> str:
    return re.sub("-(?=-)", "-{}", _escaped(text, _LATEX))  # two hyphens in a row would become a dash


def _latex_value(value: Value) -> str:
    return _escaped(text_of(value), _LATEX).replace("-", "$-$")
