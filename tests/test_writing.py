from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from disk import FAULTS, Disk
from segpatch import writing
from segpatch.errors import BadInput, SegpatchError
from segpatch.writing import append_line, leftovers, make_folder, refuse_links_out, remove, write_png, write_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writing_replaces_the_old_file_and_leaves_no_other(tmp_path: Path):
    for content in (b"old and longer", b"new"):
        write_whole(tmp_path / "f", content)
    assert (tmp_path / "f").read_bytes() == b"new"
    assert names(tmp_path) == ["f"]


def test_a_name_may_be_as_long_as_the_file_system_takes(tmp_path: Path):
    write_whole(tmp_path / ("n" * 251 + ".bin"), b"x")
    assert names(tmp_path) == ["n" * 251 + ".bin"]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("n", [1, 2])
def test_a_failing_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch, fault: str, n: int):
    write_whole(tmp_path / "f", b"old")
    disk = Disk(fault, n)
    with monkeypatch.context() as patched:
        patched.setattr(writing, "os", disk)
        if n == 2 and fault in ("short write", "rename fails"):  # there is one call only
            write_whole(tmp_path / "f", b"old")
        else:
            with pytest.raises(SegpatchError, match=r"cannot write to .*/f: \w.*; .*, or choose another place"):
                write_whole(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"old"
    assert names(tmp_path) == ["f"]


def test_a_line_that_does_not_fit_is_taken_out_again(tmp_path: Path, monkeypatch):
    append_line(tmp_path / "lines", "one")
    with monkeypatch.context() as patched:
        patched.setattr(writing, "os", Disk("short write", 1))
        with pytest.raises(SegpatchError, match="No space left on device"):
            append_line(tmp_path / "lines", "two")
    append_line(tmp_path / "lines", "three")
    assert (tmp_path / "lines").read_text() == "one\nthree\n"


def test_a_write_that_takes_less_is_gone_on_with(tmp_path: Path, monkeypatch):
    class Slow(Disk):
        def __getattr__(self, name: str):
            import os

            return (lambda file, content: os.write(file, content[:3])) if name == "write" else getattr(os, name)

    monkeypatch.setattr(writing, "os", Slow("no space"))
    write_whole(tmp_path / "f", b"0123456789")
    assert (tmp_path / "f").read_bytes() == b"0123456789"


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "absent" / "f", tmp_path / "file" / "f"):
        with pytest.raises(SegpatchError, match="cannot write"):
            write_whole(place, b"new")
        with pytest.raises(SegpatchError, match="cannot write"):
            append_line(place, "new")
    with pytest.raises(SegpatchError, match="cannot write"):
        make_folder(tmp_path / "file" / "folder")


def test_pictures_come_back(tmp_path: Path):
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    write_png(tmp_path / "p.png", pixels)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "p.png")), pixels)


def test_removing(tmp_path: Path):
    write_whole(make_folder(tmp_path / "a/b") / "f", b"x")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for name in ("link", "absent"):
        remove(tmp_path / name)
    assert (tmp_path / "a/b/f").exists() and not (tmp_path / "link").is_symlink()
    remove(tmp_path / "a")
    assert names(tmp_path) == []


def test_what_killed_processes_leave_is_found_but_not_that_of_runs_below(tmp_path: Path):
    wanted = make_folder(tmp_path / "scenes") / ".12-0a.unfinished"
    other = make_folder(tmp_path / "cells/one") / ".12-0b.unfinished"
    for path in (wanted, other, tmp_path / "cells/one/run.lock", tmp_path / "finished.unfinished"):
        path.touch()
    assert leftovers(tmp_path, "run.lock") == [wanted]
    assert leftovers(tmp_path / "cells/one", "run.lock") == [other]


DOORS = {
    "models/download.py": {"open", "write_text", "unlink", "mkdir"},  # a download is gone on with where it ended
    "models/onnx_export.py": {"unlink", "mkdir"},  # torch writes the file, which is then renamed
    "data/make.py": {"rename", "rmtree", "rmdir"},  # a whole folder, renamed
    "runs.py": {"rmtree", "mkdir"},
    "latency.py": {"write_text"},  # a switch of the kernel's
}
CALLS = {
    "write_text",
    "write_bytes",
    "mkdir",
    "makedirs",
    "touch",
    "rename",
    "unlink",
    "rmdir",
    "rmtree",
    "save_file",
}


def test_there_is_no_other_way_to_the_disk():
    root = Path(writing.__file__).parent
    found: dict[str, set[str]] = {}
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute | ast.Name):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            texts = [text for part in ast.walk(node) if isinstance(text := getattr(part, "value", None), str)]
            if name in CALLS or (
                name == "open" and any(re.fullmatch("[rb+]*[wax+][b+]*", text) for text in texts)
            ):
                found.setdefault(str(path.relative_to(root)), set()).add(name)
    others = {name: calls - DOORS.get(name, set()) for name, calls in found.items() if name != "writing.py"}
    assert not {name: calls for name, calls in others.items() if calls}


def test_nothing_is_written_through_a_link(tmp_path: Path):
    outside = tmp_path / "outside"
    outside.write_text("as it was")
    out = tmp_path / "out"
    out.mkdir()
    for name in ("a.json", "steps.jsonl"):
        (out / name).symlink_to(outside)
    write_whole(out / "a.json", b"new")
    with pytest.raises(SegpatchError, match=r"steps\.jsonl"):
        append_line(out / "steps.jsonl", "{}")
    assert outside.read_text() == "as it was"
    assert not (out / "a.json").is_symlink() and (out / "a.json").read_text() == "new"


def test_a_link_out_of_a_directory_is_refused(tmp_path: Path):
    out = tmp_path / "out"
    (out / "below").mkdir(parents=True)
    (out / "below/a").write_text("")
    (out / "b").symlink_to("below/a")
    refuse_links_out(out)
    (out / "below/c").symlink_to("../../elsewhere")
    with pytest.raises(BadInput, match="below/c is a link out of"):
        refuse_links_out(out)
