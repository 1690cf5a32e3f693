from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from segpatch.cli.study import read_plan
from segpatch.data.folder import read_classes
from segpatch.errors import BadInput, Missing
from segpatch.models.tensor_files import container
from segpatch.reading import must_be_plain, read_bytes, read_text
from segpatch.results import read_transfer
from segpatch.runs import read_json
from segpatch.victims import read_victims


def test_text_is_read_as_it_is_without_its_mark(tmp_path: Path):
    for content in ("a\nbé\n".encode(), b"\xef\xbb\xbfa\nb\xc3\xa9\n"):
        (tmp_path / "a.txt").write_bytes(content)
        assert read_text(tmp_path / "a.txt") == "a\nbé\n"


def test_a_size_is_looked_at_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bytes(tmp_path / "a", 5) == b"12345"
    monkeypatch.setattr(Path, "open", None)
    with pytest.raises(BadInput, match="of 5 bytes, more than the 4 of such files"):
        read_bytes(tmp_path / "a", 4)


def test_what_is_no_plain_file_is_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name, words in {
        "pipe": "is no plain file",
        ".": "is no plain file",
        "loop": "remove the links that lead to each other",
        "x" * 300: "give a shorter name",
    }.items():
        with pytest.raises(BadInput, match=words):
            must_be_plain(tmp_path / name)
    with pytest.raises(Missing, match="none is not there"):
        read_text(tmp_path / "none")


READERS = {
    "classes.json": lambda path: read_classes(path.parent),
    "transfer.json": lambda path: read_transfer(path.parent),
    "config.json": read_json,
    "victims.toml": read_victims,
    "plan.toml": read_plan,
    "net.pth": container,
}


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_may_not_be_read_is_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Who may do everything reads such files too, so the system's refusal is a stand-in's."""
    (tmp_path / name).write_text("{}")

    def refuse(path: Path, *given: object, **more: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(
        BadInput, match=rf"{name} cannot be read \(Permission denied\); give yourself the permission"
    ):
        READERS[name](tmp_path / name)
