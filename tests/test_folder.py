from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fabricate import write_folder, write_image, write_labels
from segpatch.data import CAMVID, CITYSCAPES, open_data
from segpatch.data.files import FilePair, label_table
from segpatch.errors import BadInput, Missing
from segpatch.types import IGNORE


@pytest.mark.parametrize(
    ("splits", "measured"),
    [
        (["train", "val", "test"], "test"),
        (["train", "val"], "val"),
        (["night"], "night"),
        (["day", "train"], "day"),
    ],
)
def test_what_is_measured(tmp_path: Path, splits: list[str], measured: str):
    dataset = open_data(f"folder:{write_folder(tmp_path, dict.fromkeys(splits, 1))}")
    assert dataset.eval_split == measured
    assert set(dataset.splits) == set(splits)


def test_a_folder_without_images_says_what_belongs_there(tmp_path: Path):
    (tmp_path / "classes.txt").write_text("road\ncar\n")
    with pytest.raises(Missing, match=r"expected images/SPLIT/.*; found .*; put the images and labels there"):
        open_data(f"folder:{tmp_path}")


def test_an_image_without_a_label_has_none_to_read(tmp_path: Path):
    with pytest.raises(BadInput, match=r"a\.png has no label file"):
        FilePair(tmp_path / "a.png", None, label_table(range(2))).read()


def test_images_without_split_folders_are_val(tmp_path: Path):
    write_image(tmp_path / "images/a.png")
    write_labels(tmp_path / "labels/a.png")
    (tmp_path / "classes.txt").write_text("road\n\ncar\n")
    dataset = open_data(f"folder:{tmp_path}")
    assert list(dataset.splits) == ["val"]
    assert dataset.classes.names == ("road", "car")
    with pytest.raises(Missing, match="no split 'train'; it has: val"):
        dataset.samples("train")


def test_sub_folders_are_drives(tmp_path: Path):
    write_folder(tmp_path, {"val": 1})
    for number in range(2):
        write_image(tmp_path / f"images/val/drive/{number}.png")
        write_labels(tmp_path / f"labels/val/drive/{number}.png")
    dataset = open_data(f"folder:{tmp_path}")
    assert dataset.names("val") == ("drive_0", "drive_1", "val0")
    assert dataset.groups("val") == ("drive", "drive", "val0")


def test_hidden_and_other_files_are_passed_over(tmp_path: Path):
    write_folder(tmp_path, {"val": 1})
    (tmp_path / "images/val/._val0.png").write_bytes(b"x")
    (tmp_path / "images/val/notes.md").write_text("x")
    assert len(open_data(f"folder:{tmp_path}").samples("val")) == 1


def test_classes_in_json(tmp_path: Path):
    write_folder(tmp_path, {"val": 1})
    write_labels(tmp_path / "labels/val/val0.png", [3, 5, 9, IGNORE])
    rows = [
        {"id": 9, "name": "void", "ignore": True},
        {"id": 5, "name": "car", "color": [1, 2, 3]},
        {"id": 3, "name": "road"},
    ]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": rows}))
    dataset = open_data(f"folder:{tmp_path}")
    assert dataset.classes.names == ("road", "car")
    assert dataset.classes.colours[1] == (1, 2, 3)
    assert dataset.read("val", 0)[1].ravel()[:4].tolist() == [0, 1, IGNORE, IGNORE]


@pytest.mark.parametrize("known", [CITYSCAPES, CAMVID])
def test_known_classes_are_recognised(tmp_path: Path, known):
    write_folder(tmp_path, {"val": 1}, classes="\n".join(known.names))
    assert open_data(f"folder:{tmp_path}").classes is known


def test_unnamed_colours_differ(tmp_path: Path):
    names = [f"class {number}" for number in range(60)]
    write_folder(tmp_path, {"val": 1})
    (tmp_path / "classes.json").write_text(json.dumps(names))
    colours = open_data(f"folder:{tmp_path}").classes.colours
    assert len(set(colours)) == 60
    assert np.min(colours) >= 0
    assert np.max(colours) <= 255


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "{}",
        "3",
        "[]",
        '["road", 3]',
        '["road", "road"]',
        '{"classes": [{"id": 0}]}',
        '{"classes": [{"id": 0, "name": "a"}, {"id": 0, "name": "b"}]}',
        '{"classes": [{"id": 256, "name": "a"}]}',
        '{"classes": [{"id": 255, "name": "a"}]}',
        '{"classes": [{"id": 0, "name": "a", "color": [1, 2]}]}',
        '{"classes": [{"id": 0, "name": "a", "color": [1, 2, 300]}]}',
    ],
)
def test_a_bad_class_file_is_refused_in_one_line(tmp_path: Path, text: str):
    write_folder(tmp_path, {"val": 1})
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(BadInput) as caught:
        open_data(f"folder:{tmp_path}")
    assert "\n" not in str(caught.value)


def test_no_class_file_is_missing(tmp_path: Path):
    write_folder(tmp_path, {"val": 1})
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(Missing, match=r"expected classes\.json or classes\.txt; found images, labels"):
        open_data(f"folder:{tmp_path}")


def test_images_beside_split_folders_are_refused(tmp_path: Path):
    write_folder(tmp_path, {"val": 1})
    write_image(tmp_path / "images/loose.png")
    with pytest.raises(BadInput, match=r"also images, such as loose\.png"):
        open_data(f"folder:{tmp_path}")


def test_labels_without_image_are_kept_apart(tmp_path: Path):
    write_folder(tmp_path, {"val": 1})
    write_labels(tmp_path / "labels/val/more.png")
    assert [path.name for path in open_data(f"folder:{tmp_path}").strays] == ["more.png"]
