"""Every bad input ends in one line and exit code 1, nothing runs, and docs/errors.md says what there is."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from bad_inputs import BAD, Bad, prepare
from error_list import DOCUMENT, document, errors, said_in, words
from fabricate import write_folder
from segpatch.attack_config import AttackConfig
from segpatch.cli import main
from segpatch.cli.options import parse_seeds
from segpatch.data import CITYSCAPES
from segpatch.data.classes import CAMVID, ClassSet, class_map
from segpatch.data.drawn import check_street
from segpatch.errors import BadInput, Missing
from segpatch.models.checkpoints import canonical
from segpatch.models.layouts.layout import Layout
from segpatch.models.networks import network_spec
from segpatch.published import as_released
from segpatch.studies.paper import PaperPlan
from segpatch.studies.paper.run import _with_finished_parts
from segpatch.training import FitConfig
from segpatch.transforms import SceneEOT


def test_there_are_sixty_kinds():
    assert len({bad.name for bad in BAD}) == len(BAD) >= 60


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_bad_input_is_one_line(
    bad: Bad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    write_folder(tmp_path / "data", {"train": 1, "val": 1}, classes="\n".join(CITYSCAPES.names))
    prepare(tmp_path)
    bad.make(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["segpatch", *bad.command.replace("{}", str(tmp_path)).split(" ")])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 1
    assert said[-1].startswith("segpatch: ") and bad.words in said[-1]
    assert sum(line.startswith("segpatch: ") for line in said) == 1 and "Traceback" not in "".join(said)
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["models --json", "patch list {}", "data check nonsense"])
def test_an_output_that_takes_nothing_is_one_line(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    prepare(tmp_path)
    monkeypatch.setattr(sys, "argv", ["segpatch", *command.replace("{}", str(tmp_path)).split(" ")])
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as stop:
            main()
    said = capsys.readouterr().err.splitlines()
    assert stop.value.code == 1 and len(said) == 1 and said[0].startswith("segpatch: ")
    assert "nonsense" in said[0] or "the output cannot be used: No space left on device; make room" in said[0]


def test_a_reader_that_has_seen_enough_is_no_error_to_speak_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "argv", ["segpatch", "models", "--json"])
    with os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(SystemExit) as stop:
            main()
    assert (stop.value.code, capsys.readouterr().err) == (1, "")


def test_an_error_of_the_disk_that_may_be_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch):
    def fail(*given: object, **more: object) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr("segpatch.cli.app", fail)
    monkeypatch.setattr(sys, "argv", ["segpatch", "models"])
    with pytest.raises(OSError, match="Bad file descriptor"):
        main()


STOPPED = """
import sys

class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == "segpatch.cli":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Stop())
from segpatch.__main__ import main
main()
"""


def test_a_stop_while_all_is_still_imported_is_one_line():
    done = subprocess.run([sys.executable, "-c", STOPPED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "segpatch: stopped")


def test_a_folder_that_is_gone_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setattr(sys, "argv", ["segpatch", "models"])
    with pytest.raises(SystemExit) as stop:
        main()
    said = "segpatch: the folder that you are in has been removed; change to another\n"
    assert (stop.value.code, capsys.readouterr().err) == (1, said)


SHORT = Layout(source="x", build=nn.Module, classifier="a", convert=lambda state: {"a": state["gone"]})


def resumed_from_a_list(root: Path) -> None:
    (root / "study.json").write_text("[]")
    _with_finished_parts(PaperPlan(), root)


CALLS: dict[str, Callable[[Path], object]] = {
    "select must be 'last', or 'best' with held_out": lambda _: AttackConfig(select="best"),
    "step_size must be in (0, 1], got 2": lambda _: AttackConfig(step_size=2),
    "unknown loss 'correct'": lambda _: AttackConfig(loss="correct"),
    "unknown place 'middle'": lambda _: AttackConfig(place="middle"),
    "unknown schedule 'cosin'": lambda _: AttackConfig(schedule="cosin"),
    "unknown start 'black'": lambda _: AttackConfig(start="black"),
    "unknown stepper 'sgd'": lambda _: AttackConfig(stepper="sgd"),
    "unknown part 'matrx'": lambda _: PaperPlan(only=("matrx",)),
    "unknown family 'mlp'": lambda _: as_released("mlp"),
    "seeds are whole numbers": lambda _: parse_seeds("a"),
    "class names must be unique": lambda _: ClassSet("x", ("a", "a"), ((0, 0, 0), (1, 1, 1))),
    "no class map file": lambda root: class_map(CITYSCAPES, CAMVID, root / "none"),
    "seed must be a whole number from 0 to 4294967295, got -1": lambda _: check_street(16, 16, -1),
    "criterion must be one of": lambda _: FitConfig(criterion="none"),
    "jitter must be in [0, 1), got 1": lambda _: FitConfig(jitter=1.0),
    "flip must be in [0, 1], got 2": lambda _: SceneEOT(flip=2),
    "scales must be (low, high) or a list": lambda _: SceneEOT(scales=(2.0, 1.0)),
    "study.json is no study's result; start again": resumed_from_a_list,
    "its keys are of x, its tensors are not": lambda root: canonical(SHORT, {}, "net", root),
    "unknown checkpoint layout 'x'": lambda _: network_spec("pidnet-s").layout("x"),
}


@pytest.mark.parametrize("said", CALLS)
def test_a_bad_argument_is_one_line(said: str, tmp_path: Path):
    with pytest.raises(BadInput if said != "no class map file" else Missing) as error:
        CALLS[said](tmp_path)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_every_error_is_waited_for_by_a_test():
    assert [error for error in errors() if words(error.text) and not said_in(error)] == []


def test_the_list_of_errors_is_up_to_date():
    assert DOCUMENT.read_text(encoding="utf-8") == document(), "run `python tests/error_list.py`"
