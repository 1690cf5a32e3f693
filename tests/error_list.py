"""docs/errors.md, from the source: `python tests/error_list.py` writes it."""

from __future__ import annotations

import ast
import functools
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import segpatch

ROOT = Path(segpatch.__file__).parent
DOCUMENT = Path(__file__).parents[1] / "docs/errors.md"
_FEW = 10  # letters in a row that are words of an error
KINDS = {
    "BadInput": "something given cannot be used",
    "Missing": "something is not there",
    "SegpatchError": "the disk or the machine refused",
    "Lost": "another process has stopped",
    "BadParameter": "an option is wrong, exit code 2",
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
    "reading": "Reading any file",
    "writing": "Writing any file",
    "errors": "The disk",
    "cli": "The command line",
}
HEAD = """# Errors

Every error that is yours to mend is one line on stderr and exit code 1: `segpatch: ` and the text below, with what
came in the place of `{...}`. An option that is unknown, or has a value of a wrong kind, is exit code 2, with the
option's name and the help of the command. Anything else, with a traceback, is a bug in segpatch.

Each text says itself what was expected, what came, and, mostly after the semicolon, what to do. This page is made
from the source by `python tests/error_list.py`, and a test holds it to that. `make coverage` fails where there is
an error that no test raises.
"""


class Said(NamedTuple):
    """An error as the source has it: module, kind, text."""

    module: str
    kind: str
    text: str


class Site(NamedTuple):
    """Where an error is made: the file below the package, the lines of its call, and what it says."""

    file: str
    lines: range
    said: Said


def errors() -> Iterator[Said]:
    """Every error with a text of its own, by module and line."""
    return (site.said for site in sites())


def sites() -> Iterator[Site]:
    """Every place that makes such an error."""
    for path in sorted(ROOT.rglob("*.py")):
        file = path.relative_to(ROOT)
        module = ".".join(file.with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args:
                name, text = _name(node.func), _text(node.args[0])
                if name == "unknown_name":
                    name, text = (
                        "BadInput",
                        f"unknown {text or '{kind}'} {{name}}; did you mean {{near}}? known: {{all}}",
                    )
                if name in KINDS and text:
                    lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
                    yield Site(file.as_posix(), lines, Said(module, name, text))


def never_raised(executed: Callable[[str], Collection[int]]) -> list[Site]:
    """The places that no test came to. executed: the lines of a file below the package that the tests ran."""
    return [site for site in sites() if not set(site.lines) & set(executed(site.file))]


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


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
    code = " ".join(error.text.replace("`", "'").split())
    return [f"- `{code}`", f"  ({KINDS[error.kind]}; `segpatch.{error.module}`)"]


def words(text: str) -> set[str]:
    """All stretches of a few letters of a text, outside of its braces."""
    parts = [" ".join(part.split()) for part in re.split(r"\{(?:[^{}]|\{[^{}]*\})*\}", text)]
    return {part[at : at + _FEW] for part in parts for at in range(len(part) - _FEW + 1)}


def said_in(error: Said) -> list[str]:
    """The tests that have words of an error, by file: those that no other error has, if it has such words."""
    own = {part for part in words(error.text) if _uses()[part] == 1} or words(error.text)
    return [name for name, text in _tests().items() if any(part in text for part in own)]


@functools.cache
def _uses() -> Counter[str]:
    return Counter(part for text in {error.text for error in errors()} for part in words(text))


@functools.cache
def _tests() -> dict[str, str]:
    """All texts in each file of tests but this one, where patterns are taken for what they match."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.name != Path(__file__).name:
            nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            texts = [
                node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)
            ]
            found[path.name] = "\n".join(" ".join(re.sub(r"\\(.)", r"\1", text).split()) for text in texts)
    return found


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
