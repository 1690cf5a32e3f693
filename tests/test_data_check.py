from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fabricate import write_cityscapes, write_folder, write_image, write_labels
from segpatch.data.check import check_data
from segpatch.errors import Missing
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
