"""The README is true: its script runs, its commands and options exist, its documents are there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from rich.text import Text

from segpatch.cli import app

README = (Path(__file__).parents[1] / "README.md").read_text()
TUTORIAL = (Path(__file__).parents[1] / "docs/tutorial.md").read_text()


def commands() -> list[list[str]]:
    """The words of each `$ segpatch ...` line of the README and the tutorial."""
    lines = re.findall(r"^\s*\$ segpatch (.+?)(?<!\\)$", README + TUTORIAL, re.MULTILINE | re.DOTALL)
    return [shlex.split(line.replace("\\\n", " ")) for line in lines]


def find(words: list[str]):
    """The click command that the words lead to, and the words left for it."""
    command = typer.main.get_command(app)
    while words and hasattr(command, "commands") and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    return command, words


def test_the_readme_shows_commands():
    assert len(commands()) >= 3


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_and_option_exists(words):
    command, rest = find(list(words))
    known = {name for parameter in command.params for name in parameter.opts}
    assert command.name != "root" and {word for word in rest if word.startswith("--")} <= known


def test_help_names_every_command_of_the_contract():
    names = set(typer.main.get_command(app).commands)
    assert names == {
        "attack", "bench", "data", "demo", "evaluate", "fit", "models", "patch", "report", "show", "study",
        "transfer"
    }  # fmt: skip


def test_every_option_has_a_help_text_that_is_shown_whole():
    def walk(command):
        for child in getattr(command, "commands", {}).values():
            yield from walk(child)
        yield command

    for command in walk(typer.main.get_command(app)):
        for parameter in command.params:
            text = getattr(parameter, "help", None)
            assert text, f"{command.name} {parameter.name}"
            # A bare [name] would be taken for markup and left out.
            assert Text.from_markup(text).plain == text.replace("\\[", "["), text


def test_the_script_runs(tmp_path):
    (script,) = re.findall(r"```python\n(.+?)```", README, re.DOTALL)
    assert script.count("\n") <= 12
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "-W", "error", "script.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    before, after = re.search(r"mIoU ([\d.]+) -> ([\d.]+)", done.stdout).groups()
    assert float(after) < float(before)


def test_every_linked_document_exists():
    root = Path(__file__).parents[1]
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert links and not [link for link in links if not (root / link).exists()]
