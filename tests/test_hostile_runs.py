"""Run directories of strangers, made to break the report: what comes is one line, or a page."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segpatch.errors import BadInput, SegpatchError
from segpatch.report import refuse_taken, write_report
from segpatch.report.compare import write_comparison
from test_report import write_run


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run") / "run", side=12, images=2)


@pytest.fixture
def run(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "run"))


def change(run: Path, spoil: Callable[[dict[str, Any]], object]) -> None:
    """Spoils its transfer.json."""
    content = json.loads((run / "transfer.json").read_text())
    spoil(content)
    (run / "transfer.json").write_text(json.dumps(content))


def test_a_patch_in_a_file_of_5000_letters_is_one_line(run: Path, tmp_path: Path):
    change(run, lambda held: held["patches"][-1].update(file="a" * 5000))
    with pytest.raises(BadInput, match=r"holds a damaged result \(OSError.*File name too long"):
        write_report(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_drop_that_no_miou_can_have_is_one_line(run: Path, tmp_path: Path):
    change(run, lambda held: held["cells"][-1].update(miou_drop=1e308))
    for write in (
        lambda: write_report(run, tmp_path / "out"),
        lambda: write_comparison(run, run, tmp_path / "out"),
    ):
        with pytest.raises(BadInput, match=r"is no valid result \(cells\..*miou_drop: .*less than or equal to 1"):
            write()


@pytest.mark.parametrize("name", ["config.json", "environment.json", "loop"])
def test_pipes_and_links_to_themselves_end_no_report(run: Path, tmp_path: Path, name: str):
    (run / name).unlink(missing_ok=True)
    if name == "loop":
        (run / name).symlink_to(name)
    else:
        os.mkfifo(run / name)
    assert write_report(run, tmp_path / "out").is_file()


@pytest.mark.parametrize("name", ["config.json", "environment.json", "cells/{}/steps.jsonl", "cells/{}/patch.png"])
def test_files_of_100_gigabytes_are_not_read(run: Path, tmp_path: Path, name: str):
    trained = sorted(path.name for path in (run / "cells").iterdir())[0]
    os.truncate(run / name.format(trained), 100 * 1000**3)
    with pytest.raises(SegpatchError, match="bytes, more than the"):
        write_report(run, tmp_path / "out")


def test_a_patch_file_of_100_gigabytes_is_given_as_its_picture(run: Path, tmp_path: Path):
    path = min(run.glob("cells/*/patch.safetensors"))
    os.truncate(path, 100 * 1000**3)
    page = write_report(run, tmp_path / "out").read_text()
    assert page.count('.safetensors"') == given_as_files(run) - 1


def given_as_files(run: Path) -> int:
    """Patches that a page gives as files: all but the photograph."""
    return len(list(run.glob("c*/*/patch.safetensors"))) + len(list(run.glob("controls/*.safetensors"))) - 1


def test_control_codes_of_names_reach_no_page_and_no_table(run: Path, tmp_path: Path):
    text = (run / "transfer.json").read_text().replace("b<i>eta", "b\\u001b[1m<i>eta")
    (run / "transfer.json").write_text(text.replace("unicorn", "uni\\u0007corn"))
    write_report(run, tmp_path / "out")
    write_comparison(run, run, tmp_path / "two")
    files = [path for path in tmp_path.rglob("*") if path.suffix in (".html", ".csv", ".md", ".tex", ".svg")]
    written = [path for path in files if not path.is_relative_to(run)]
    assert len(written) > 10
    for path in written:
        assert not {c for c in path.read_text() if not c.isprintable() and c != "\n"}, path
    assert "b?[1m&lt;i&gt;eta" in (tmp_path / "out/index.html").read_text()


def test_only_a_page_of_ours_is_replaced_unasked(run: Path, tmp_path: Path):
    refuse_taken(tmp_path / "none")
    (tmp_path / "out").mkdir()
    refuse_taken(tmp_path / "out")
    write_report(run, tmp_path / "out")
    refuse_taken(tmp_path / "out")
    write_comparison(run, run, tmp_path / "out")
    refuse_taken(tmp_path / "out")
    (tmp_path / "out/index.html").write_text("<title>mine</title>")
    for taken in (tmp_path / "out", run):
        with pytest.raises(
            BadInput, match="holds other files than a page of segpatch; use --overwrite or another"
        ):
            refuse_taken(taken)
