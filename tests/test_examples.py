"""Every command has an example in its help, and the examples run, made short by options after their own."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from segpatch.cli import app, main
from segpatch.cli.examples import EXAMPLES
from segpatch.data import open_data
from segpatch.studies import demo

SMALL = "--data streets:data/streets"
STEP = f"{SMALL} --steps 1 --batch-size 1"
SHORT = {
    "data make": "--train 2 --val 2 --height 64 --width 128",
    "fit": f"{SMALL} --steps 1 --batch-size 2 --crop 64 --images 1",
    "models export": "--size 64x128",
    "attack": f"{STEP} --preset paper --images 1",
    "evaluate": f"{SMALL} --images 1",
    "transfer": f"{STEP} --images 1 --train-images 1",
    "patch show": f"{SMALL} --images 1",
    "show": SMALL,
    "bench": "--size 64 --repeats 1 --batch-size 1 --only evaluation",
    "study paper": f"{STEP} --images 1 --train-images 1 --preset paper --seeds 0 --only alignment",
}


def commands(group: typer.core.TyperGroup, before: str = "") -> Iterator[str]:
    """All that can be typed: the commands, those of groups, and groups that do something by themselves."""
    for name, command in group.commands.items():
        words = f"{before}{name}"
        if hasattr(command, "commands"):
            yield from commands(command, f"{words} ")
        if not hasattr(command, "commands") or command.invoke_without_command:
            yield words


def test_every_command_has_an_example():
    assert set(commands(typer.main.get_command(app))) == EXAMPLES.keys()


@pytest.mark.parametrize("words", EXAMPLES)
def test_help_shows_the_example(words: str):
    assert EXAMPLES[words].startswith(f"segpatch {words}")
    shown = CliRunner().invoke(app, [*words.split(), "--help"]).output
    assert f"Example: {EXAMPLES[words]}" in " ".join(shown.split())


def test_every_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    plan = replace(
        demo.PLAN, presets=("paper",), overrides={"steps": 1, "batch_size": 1}, trained=1, measured=1, pictures=1
    )
    monkeypatch.setattr(demo, "PLAN", plan)
    monkeypatch.setattr(demo, "open_data", lambda spec: open_data(spec, height=64, width=128))
    fetched = tmp_path / "weights/net.pth"
    monkeypatch.setattr("segpatch.models.download.download", lambda entry, folder, **how: fetched)
    monkeypatch.setattr("segpatch.models.download.must_be_recorded", lambda path: "0" * 64)
    for words, line in EXAMPLES.items():
        monkeypatch.setattr(sys, "argv", [*shlex.split(line), *shlex.split(SHORT.get(words, ""))])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        assert not stop.value.code and said.out, f"{words}: {said.err}"
    made = ("runs/demo/report/index.html", "runs/report/index.html", "runs/study/report/index.html", "patch.png",
            "scene.png", "pidnet-s.onnx")  # fmt: skip
    assert not [name for name in made if not (tmp_path / name).is_file()]
