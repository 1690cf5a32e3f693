"""docs/errors.md, from the source: `python tests/error_list.py` writes it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import segpatch
from bad_inputs import BAD

ROOT = Path(segpatch.__file__).parent
DOCUMENT = Path(__file__).parents[1] / "docs/errors.md"
KINDS = {
    "BadInput": "something given cannot be used",
    "Missing": "something is not there",
    "SegpatchError": "the disk or the machine refused",
    "Lost": "another process has stopped",
}
AREAS = {
    "data": "Data sets",
    "models": "Networks and checkpoints",
    "patch": "Patches",
    "runs": "Run directories",
    "results": "Results",
    "report": "Reports",
    "studies": "Studies and runs of attacks, fits and matrices",
    "victims": "Files of victims",
    "cli": "The command line",
}
HEAD = """# Errors

Every error that is yours to mend is one line on stderr and exit code 1: `segpatch: ` and the text below, with what
came in the place of `{...}`. A wrong option is exit code 2, with the option's name. Anything else, with a
traceback, is a bug in segpatch.

Each text says what was expected, what came, and, mostly after the semicolon, what to do. "Tested by" names the
bad inputs of `tests/bad_inputs.py` whose expected words are in that text; other errors are tested beside their
module.
This page is made from the source by `python tests/error_list.py`, and a test holds it to that.
"""


class Said(NamedTuple):
    """An error as the source has it: module, kind, text."""

    module: str
    kind: str
    text: str


def errors() -> Iterator[Said]:
    """Every error with a text of its own, by module and line."""
    for path in sorted(ROOT.rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                if node.func.id in KINDS and (text := _text(node.args[0])):
                    yield Said(module, node.func.id, text)
                if node.func.id == "unknown_name":
                    what = _text(node.args[0]) or "{kind}"
                    yield Said(
                        module, "BadInput", f"unknown {what} {{name}}; did you mean {{near}}? known: {{all}}"
                    )


def _text(node: ast.expr) -> str:
    """The text of a literal, expressions in braces; empty where nothing of it is literal."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr) and any(isinstance(part, ast.Constant) for part in node.values):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}"  # type: ignore[attr-defined]
            for part in node.values
        )
    return ""


def document() -> str:
    """The page."""
    said = sorted(set(errors()))
    lines = [HEAD]
    areas = {error.module.split(".")[0] for error in said}
    for area in [*(a for a in AREAS if a in areas), *sorted(areas - AREAS.keys())]:
        lines.append(f"## {AREAS.get(area, f'`segpatch.{area}`')}\n")
        for error in said:
            if error.module.split(".")[0] == area:
                lines += _entry(error)
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _entry(error: Said) -> list[str]:
    tests = ", ".join(bad.name for bad in BAD if bad.words in error.text)
    code = " ".join(error.text.replace("`", "'").split())
    return [
        f"- `{code}`",
        f"  ({KINDS[error.kind]}; `segpatch.{error.module}`{f'; tested by: {tests}' if tests else ''})",
    ]


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
