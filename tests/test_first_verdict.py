"""The notebook of examples/ runs from top to bottom, with fewer steps and images than it has."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

NOTEBOOK = json.loads((Path(__file__).parents[1] / "examples/first-verdict.ipynb").read_text(encoding="utf-8"))
SIZE = "STEPS, TRAINED, MEASURED = 400, 96, 20"
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def run(code: list[str], scope: dict[str, Any]) -> list[Any]:
    """What a notebook would show below each cell: the value of its last line, where that is an expression."""
    shown = []
    for text in code:
        *lines, last = ast.parse(text).body
        exec(compile(ast.Module(lines, []), "cell", "exec"), scope)
        value = None
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), scope)
        else:
            exec(compile(ast.Module([last], []), "cell", "exec"), scope)
        shown.append(value)
    return shown


def test_it_is_committed_without_outputs():
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in NOTEBOOK["cells"])
    assert (NOTEBOOK["nbformat"], len({cell["id"] for cell in NOTEBOOK["cells"]})) == (4, len(NOTEBOOK["cells"]))


def test_it_runs_from_top_to_bottom(capsys: pytest.CaptureFixture[str]):
    assert CODE[0].startswith(SIZE)
    scope: dict[str, Any] = {}
    shown = run([CODE[0].replace("400, 96, 20", "2, 18, 2"), *CODE[1:]], scope)
    patch, matrix, scores, scene = (value for value in shown if value is not None)
    assert patch.steps == 2 and patch._repr_png_().startswith(b"\x89PNG")
    assert patch.name in matrix._repr_html_() and len(matrix.cells) == 2 * 4
    assert scores is matrix.cell(patch.name, "pidnet-s").scores and "drop" in scores._repr_html_()
    assert isinstance(scene, Image.Image) and scene.width == 3 * 512
    said = capsys.readouterr().out
    assert "pidnet-s: cnn, mIoU 0.715 on streets val" in said
    assert f"on its own network it costs {scores.miou_drop:.3f}" in said
