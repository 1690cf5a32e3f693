from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from pylatexenc.latex2text import LatexNodes2Text, MacroTextSpec, get_default_latex_context_db
from pylatexenc.latexwalker import LatexEnvironmentNode, LatexNode, LatexWalker

from segpatch.patch import FULL_RANGE, Patch, grey_patch, random_patch, random_pixels
from segpatch.report.facts import class_table
from segpatch.report.tables import FORMS, Table, Value, csv_text, latex, markdown, tables, text_of, write_tables
from segpatch.results import DatasetRecord, TransferResult, transfer_result
from segpatch.transfer import transfer_matrix
from tiny import conv_victim, in_batches, pictures

NASTY = "a|b_{50%}&<b>$x$\\~^#*[c]"


@pytest.fixture(scope="module")
def result() -> TransferResult:
    """Two networks; two seeds of a training on the first, a given patch without a seed, and two controls."""
    victims = [conv_victim(0, name="one"), conv_victim(1, name=NASTY)]
    seeds = [
        Patch(random_pixels((4, 4), FULL_RANGE, 7 + n), name=f"one/paper/s{n}", trained_on=("one",), seed=n)
        for n in (0, 1)
    ]
    patches = [*seeds, Patch(random_pixels((4, 4), FULL_RANGE, 5), name="given")]
    controls = [grey_patch((4, 4)), random_patch((4, 4), FULL_RANGE, 0)]
    matrix = transfer_matrix(victims, in_batches(pictures(5, classes=2), 5), [*controls, *patches])
    names = [f"picture{i}" for i in range(5)]
    about = DatasetRecord(
        kind="tiny",
        split="val",
        images=5,
        height=12,
        width=16,
        fingerprint="f",
        names=names,
        groups=names,
        block=1,
    )
    return transfer_result(matrix, victims, about, command="", precision="fp32", warnings=[], files={})


def cells_of(text: str) -> list[list[str]]:
    """The cells of the only table of a Markdown text, as a reader sees them."""
    rows: list[list[str]] = []
    for token in MarkdownIt().enable("table").parse(text):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and rows:
            rows[-1].append("".join(child.content for child in token.children or ()))
    return rows


PRINTED = get_default_latex_context_db()
PRINTED.add_context_category(
    "symbols",
    macros=[
        MacroTextSpec(f"text{name}", c)
        for name, c in (("bar", "|"), ("less", "<"), ("greater", ">"), ("asciicircum", "^"))
    ],
    prepend=True,
)


def latex_cells(text: str) -> tuple[str, list[list[str]]]:
    """The caption and the cells of the only table of a LaTeX text, as a reader of the print sees them."""
    nodes = LatexWalker(text, tolerant_parsing=False).get_latex_nodes()[0][0].nodelist
    macros = [getattr(node, "macroname", None) for node in nodes]
    caption = nodes[macros.index("caption") + 1].nodelist
    (tabular,) = (node for node in nodes if node.isNodeType(LatexEnvironmentNode))
    rows: list[list[list[LatexNode]]] = [[[]]]
    for node in tabular.nodelist:
        macro = getattr(node, "macroname", None)
        if macro == "\\":
            assert not any(node.nodeargd.argnlist), "the line end took the star or bracket after it"
            rows.append([[]])
        elif getattr(node, "specials_chars", None) == "&":
            rows[-1].append([])
        elif macro not in ("toprule", "midrule", "bottomrule"):
            rows[-1][-1].append(node)
    show = LatexNodes2Text(latex_context=PRINTED, math_mode="text", strict_latex_spaces=True).nodelist_to_text
    return show(caption), [[show(cell).strip() for cell in row] for row in rows if len(row) > 1]


def test_the_matrix_has_means_over_seeds_and_marks_own_networks(result: TransferResult):
    drops = tables(result)[0]
    assert [name for name, _ in drops.rows] == [
        "clean mIoU",
        "grey",
        "random/full/s0",
        "one/paper, 2 seeds",
        "given",
    ]
    rows = dict(drops.rows)
    assert rows["clean mIoU"][0] == Value(result.cell("none", "one").miou_clean)
    two = [result.cell(f"one/paper/s{seed}", "one").miou_drop for seed in (0, 1)]
    assert rows["one/paper, 2 seeds"][0].number == pytest.approx(sum(two) / 2)
    assert [value.own for value in rows["one/paper, 2 seeds"]] == [True, False]
    given = result.cell("given", NASTY)
    assert rows["given"][1] == Value(given.miou_drop, given.ci95)


def test_iou_per_class_has_a_table_for_each_network(result: TransferResult):
    (one, other) = tables(result)[1:]
    assert one.head[:2] == ["class", "clean"] and one.name == "iou-one" and "/" not in other.name
    values = dict(one.rows)
    assert list(values) == result.classes == ["road", "car", "sky"]
    for column, series in enumerate(class_table(result, "one").series):
        assert [row[column].number for row in values.values()] == series.values


def test_values_as_text():
    assert text_of(Value(None)) == "–"
    assert text_of(Value(0.1234, (-0.1, 0.2))) == "0.123 [-0.100, 0.200]"
    assert text_of(Value(0.1234, (None, None), own=True)) == "0.123 *"


def test_a_reader_of_markdown_sees_the_cells(result: TransferResult):
    for table in tables(result):
        shown = cells_of(markdown(table))
        assert shown == [list(table.head), *([name, *map(text_of, values)] for name, values in table.rows)]


def test_a_reader_of_latex_sees_the_cells(result: TransferResult):
    for table in tables(result):
        caption, shown = latex_cells(latex(table))
        assert caption == table.caption
        assert shown == [list(table.head), *([name, *map(text_of, values)] for name, values in table.rows)]


@pytest.mark.parametrize(
    "name", [NASTY, "line\nbreak", "[1]", "*", "`code`", "![x](y)", "a--b---c", "{x}", "50 %"]
)
def test_no_name_breaks_a_table(name: str):
    table = Table("t", name, ["patch", name], [(name, [Value(0.5)]), (name, [Value(None)])])
    seen = name.replace("\n", " ")
    assert cells_of(markdown(table)) == [["patch", seen], [seen, "0.500"], [seen, "–"]]
    assert list(csv.reader(io.StringIO(csv_text(table)))) == [["patch", name], [name, "0.5"], [name, ""]]
    assert latex_cells(latex(table)) == (seen, [["patch", seen], [seen, "0.500"], [seen, "–"]])


def test_latex_by_hand():
    table = Table("t", "50 % & more", ["patch", "pidnet_s"], [("a", [Value(-0.1, (-0.2, 0.05), own=True)])])
    assert latex(table).splitlines() == [
        r"\begin{table}",
        r"\centering",
        r"\caption{50 \% \& more}",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"patch & pidnet\_s \\",
        r"\midrule",
        r"a & $-$0.100 [$-$0.200, 0.050] * \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    escaped = latex(Table("t", NASTY, ["patch"], []))
    assert (
        r"\caption{a\textbar{}b\_\{50\%\}\&\textless{}b\textgreater{}\$x\$\textbackslash{}"
        r"\textasciitilde{}\textasciicircum{}\#*[c]}"
    ) in escaped


def test_csv_has_exact_numbers_and_both_ends(result: TransferResult):
    rows = list(csv.DictReader(io.StringIO(csv_text(tables(result)[0]))))
    cell = result.cell("given", "one")
    row = next(row for row in rows if row["patch"] == "given")
    assert [float(row[key]) for key in ("one", "one low", "one high")] == [cell.miou_drop, *cell.ci95]
    assert rows[0]["one low"] == ""


def test_all_are_written(result: TransferResult, tmp_path: Path):
    write_tables(result, tmp_path / "tables")
    assert len(list((tmp_path / "tables").iterdir())) == 3 * len(FORMS)
    assert (tmp_path / "tables/drops.tex").read_text() == latex(tables(result)[0])
