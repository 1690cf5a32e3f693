"""Every bad input ends in one line and exit code 1, nothing runs, and docs/errors.md says what there is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bad_inputs import BAD, Bad, prepare
from error_list import DOCUMENT, document
from fabricate import write_folder
from segpatch.cli import main
from segpatch.data import CITYSCAPES


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


def test_the_list_of_errors_is_up_to_date():
    assert DOCUMENT.read_text(encoding="utf-8") == document(), "run `python tests/error_list.py`"
