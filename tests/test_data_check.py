from __future__ import annotations

import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fabricate import write_cityscapes, write_folder, write_image, write_labels
from segpatch.data import open_data
from segpatch.data.check import check_data
from segpatch.errors import BadInput, Missing
from segpatch.types import IGNORE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data", {"train": 5, "val": 3})


def test_a_good_folder_is_counted(folder: Path):
    write_labels(folder / "labels/val/val2.png", [0, 0, IGNORE])
    done = []
    report = check_data(f"folder:{folder}", on_image=lambda count, total: done.append((count, total)))
    assert report.ok
    assert report.classes == ("road", "car")
    assert done == [(count, 8) for count in range(1, 9)]
    train, val = report.splits
    assert (train.name, train.images, train.labelled, train.sizes) == ("train", 5, 5, {(4, 6): 5})
    assert (train.pixels, train.images_with, train.ignored_pixels) == ((60, 60), (5, 5), 0)
    assert (val.pixels, val.images_with, val.ignored_pixels) == ((12 + 12 + 16, 24), (3, 2), 8)


def test_every_bad_file_is_named(folder: Path):
    (folder / "images/train/train0.png").write_bytes(b"broken")
    (folder / "labels/train/train0.png").write_bytes(b"broken too")
    write_labels(folder / "labels/train/train1.png", [0, 9, 12])
    write_labels(folder / "labels/train/train2.png", height=9)
    (folder / "labels/train/train3.png").unlink()
    write_labels(folder / "labels/val/nothing.png")
    shutil.copy(folder / "images/train/train4.png", folder / "images/val/val1.png")
    write_image(folder / "images/val/val2.bmp", seed=77)
    report = check_data(f"folder:{folder}")
    found = sorted(
        (Path(problem.path).relative_to(folder).as_posix(), problem.kind) for problem in report.problems
    )
    assert found == [
        ("images/train/train0.png", "image"),
        ("images/train/train2.png", "size"),
        ("images/train/train3.png", "unlabelled"),
        ("images/val/val1.png", "duplicate"),
        ("images/val/val2.png", "duplicate"),
        ("labels/train/train0.png", "label"),
        ("labels/train/train1.png", "label"),
        ("labels/val/nothing.png", "stray"),
    ]
    assert not report.ok
    assert all("\n" not in problem.message for problem in report.problems)
    assert any("label values 9, 12" in problem.message for problem in report.problems)


def test_listed_files_that_are_not_there(tmp_path: Path):
    write_image(tmp_path / "a.png")
    (tmp_path / "all.txt").write_text("a.png a_labels.png\nb.png b_labels.png\n")
    report = check_data(f"list:{tmp_path / 'all.txt'}")
    assert [(Path(p.path).name, p.kind) for p in report.problems] == [
        ("a_labels.png", "missing"),
        ("b.png", "missing"),
        ("b_labels.png", "missing"),
    ]


def test_the_public_test_labels_of_cityscapes_are_a_note(tmp_path: Path):
    write_cityscapes(tmp_path, "val", "ulm", 1)
    write_cityscapes(tmp_path, "test", "berlin", 1, "labelIds", 3)
    report = check_data(f"cityscapes:{tmp_path}")
    assert report.ok
    assert report.notes == ("all labels of split 'test' are to be ignored; it cannot be measured",)


def test_a_measured_split_without_labels_is_a_problem(folder: Path):
    shutil.rmtree(folder / "labels/val")
    assert [problem.kind for problem in check_data(f"folder:{folder}").problems] == ["unlabelled"] * 3


def test_the_same_picture_twice_in_a_split_is_a_note(folder: Path):
    shutil.copy(folder / "images/val/val0.png", folder / "images/val/val1.png")
    report = check_data(f"folder:{folder}")
    assert report.ok
    assert len(report.notes) == 1


def test_an_absent_folder_is_missing(tmp_path: Path):
    with pytest.raises(Missing):
        check_data(f"folder:{tmp_path}")


@pytest.mark.long
def test_the_real_folder_is_good(camvid: Path):
    report = check_data(f"camvid:{camvid}")
    assert report.ok
    assert [(split.name, split.images) for split in report.splits] == [("train", 367), ("val", 101), ("test", 233)]
    test = report.splits[2]
    everything = sum(test.pixels) + test.ignored_pixels
    assert everything == 233 * 360 * 480
    assert round(100 * test.pixels[3] / everything, 2) == 25.81  # road, as the folder's README counts


def _turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(path.with_suffix(".jpg"), exif=exif)
    path.unlink()


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("gone"))


def _wide(path: Path) -> None:
    """A million pixels wide by its header, and in truth a few bytes long."""
    content = bytearray(path.read_bytes())
    content[16:20] = (1_000_000).to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _deep(path: Path) -> None:
    """6 by 4 pixels of 16 bits a channel by its header, which Pillow would cut to 8."""
    about = _chunk(b"IHDR", struct.pack(">IIBBBBB", 6, 4, 16, 2, 0, 0, 0))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + about + _chunk(b"IDAT", zlib.compress(bytes(148))) + _chunk(b"IEND", b"")
    )


def _turned_late(path: Path) -> None:
    """Turned by a mark that stands behind the pixels."""
    exif, whole = Image.Exif(), path.read_bytes()
    exif[0x0112] = 6
    path.write_bytes(whole[:-12] + _chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + whole[-12:])


HEADERS = {
    "16 bits": (lambda path: Image.new("I;16", (6, 4)).save(path), "more than 8 bits"),
    "16 bits in colour": (_deep, "more than 8 bits"),
    "program": (
        lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 4\n"),
        "cannot be read",
    ),
    "turned": (_turned, "EXIF orientation 6"),
    "wide": (_wide, "not decoded"),
    "link": (_dangling, "a link to nothing"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read"),
    "size": (lambda path: Image.new("RGB", (6, 5)).save(path), "5x6 but its label"),
}
PIXELS = {
    "alpha": (lambda path: Image.new("RGBA", (6, 4), (1, 2, 3, 9)).save(path), "transparent"),
    "turned late": (_turned_late, "EXIF orientation 6"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:80]), "cannot be read"),
}


@pytest.mark.parametrize(("spoil", "words"), [*HEADERS.values(), *PIXELS.values()], ids=[*HEADERS, *PIXELS])
def test_a_spoilt_image_is_found(folder: Path, spoil: Callable[[Path], object], words: str):
    spoil(folder / "images/val/val1.png")
    (problem,) = check_data(f"folder:{folder}").problems
    assert "val1" in problem.message and words in problem.message


@pytest.mark.parametrize(("spoil", "words"), HEADERS.values(), ids=HEADERS)
def test_a_run_refuses_a_spoilt_header_before_it_starts(folder: Path, spoil: Callable[[Path], object], words: str):
    spoil(folder / "images/val/val1.png")
    with pytest.raises((BadInput, Missing), match=words):
        open_data(f"folder:{folder}").samples("val")


def test_a_run_counts_what_it_refuses(folder: Path):
    for index in (0, 2):
        _dangling(folder / f"images/val/val{index}.png")
    with pytest.raises(BadInput, match=r"2 of 3 images of split 'val'.*`segpatch data check folder:.*val0\.png"):
        open_data(f"folder:{folder}").samples("val")


def test_modes_that_hold_the_same_picture_are_read(folder: Path):
    for index, mode in enumerate(("P", "L", "RGBA")):
        Image.new(mode, (6, 4), 40 + index if mode != "RGBA" else (0, 9, 9, 255)).save(
            folder / f"images/val/val{index}.png"
        )
    labels = Image.fromarray(np.zeros((4, 6), np.uint8)).convert("P")
    labels.putpalette([200, 10, 10] * 256)
    labels.save(folder / "labels/val/val0.png")
    Image.new("CMYK", (6, 4), (9, 8, 7, 6)).save(folder / "images/train/train0.jpg")
    (folder / "images/train/train0.png").unlink()
    assert check_data(f"folder:{folder}").ok


def test_an_empty_split_is_a_problem(folder: Path):
    shutil.rmtree(folder / "images/val")
    (folder / "images/val").mkdir()
    assert "empty" in [problem.kind for problem in check_data(f"folder:{folder}").problems]
    with pytest.raises(BadInput, match=r"'val' of .* holds no image"):
        open_data(f"folder:{folder}").samples("val")


def test_odd_names_are_names(folder: Path):
    for kind in ("images", "labels"):
        (folder / f"{kind}/val/val0.png").rename(folder / f"{kind}/val/{'ü' * 60}日本 é.png")
    assert check_data(f"folder:{folder}").ok


def test_a_file_that_may_not_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch):
    path, real = folder / "images/val/val1.png", Image.open

    def image_open(file: Path, *given: Any, **more: Any) -> Any:
        if Path(file) == path:  # a stand-in, since root may read everything
            raise PermissionError(13, "Permission denied", str(path))
        return real(file, *given, **more)

    monkeypatch.setattr(Image, "open", image_open)
    with pytest.raises(BadInput, match=r"val1\.png may not be read; give yourself the permission"):
        open_data(f"folder:{folder}").samples("val")
    assert [problem.kind for problem in check_data(f"folder:{folder}").problems] == ["image"]


def test_a_folder_that_may_not_be_looked_into_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch):
    real = os.scandir

    def scandir(place: Any) -> Any:
        if Path(place) == folder / "images/val":
            raise PermissionError(13, "Permission denied", str(place))
        return real(place)

    # Only here: pytest clears the folder away with scandir, of descriptors, before it undoes a patch.
    with (
        monkeypatch.context() as patch,
        pytest.raises(BadInput, match=r"images/val cannot be looked into \(Permission denied\)"),
    ):
        patch.setattr(os, "scandir", scandir)
        open_data(f"folder:{folder}")


@pytest.mark.parametrize("kind", ["camvid", "cityscapes"])
def test_an_empty_split_of_a_known_layout_is_a_problem(tmp_path: Path, kind: str):
    if kind == "cityscapes":
        write_cityscapes(tmp_path, "train", "a", 0)
        (tmp_path / "leftImg8bit/val").mkdir()
    else:
        write_image(tmp_path / "train/a.png")
        write_labels(tmp_path / "trainannot/a.png")
        (tmp_path / "val").mkdir()
    assert "empty" in [problem.kind for problem in check_data(f"{kind}:{tmp_path}").problems]
