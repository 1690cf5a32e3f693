from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fabricate import write_cityscapes, write_labels
from segpatch.data import CITYSCAPES, open_data
from segpatch.errors import BadInput, Missing
from segpatch.types import IGNORE


def test_splits_cities_and_names(tmp_path: Path):
    for split, city, index in [("train", "ulm", 1), ("val", "munster", 4), ("val", "lindau", 2)]:
        write_cityscapes(tmp_path, split, city, index)
    dataset = open_data(f"cityscapes:{tmp_path}")
    assert dataset.classes is CITYSCAPES
    assert dataset.eval_split == "val"
    assert dataset.names("val") == ("lindau_000002_000019", "munster_000004_000019")
    assert dataset.groups("val") == ("lindau", "munster")
    assert dataset.names("train") == ("ulm_000001_000019",)


def test_label_ids_become_train_ids(tmp_path: Path):
    write_cityscapes(tmp_path, "val", "ulm", 1, "labelIds", [0, 3, 7, 8, 11, 17, 26, 29, 31, 33])
    _, labels = open_data(f"cityscapes:{tmp_path}").read("val", 0)
    assert labels.ravel()[:10].tolist() == [IGNORE, IGNORE, 0, 1, 2, 5, 13, IGNORE, 16, 18]


def test_train_ids_win_over_label_ids(tmp_path: Path):
    name = write_cityscapes(tmp_path, "val", "ulm", 1, "labelIds", 7)
    write_labels(tmp_path / f"gtFine/val/ulm/{name}_gtFine_labelTrainIds.png", [18, IGNORE])
    write_labels(tmp_path / f"gtFine/val/ulm/{name}_gtFine_color.png", 1)
    dataset = open_data(f"cityscapes:{tmp_path}")
    assert np.unique(dataset.read("val", 0)[1]).tolist() == [18, IGNORE]
    assert dataset.strays == ()


def test_values_that_are_no_id_are_refused(tmp_path: Path):
    write_cityscapes(tmp_path, "train", "ulm", 1, "labelIds", [7, 34])
    write_cityscapes(tmp_path, "val", "ulm", 2, "labelTrainIds", [0, 19])
    dataset = open_data(f"cityscapes:{tmp_path}")
    with pytest.raises(BadInput, match="label value 34; expected only 0-33, 255"):
        dataset.read("train", 0)
    with pytest.raises(BadInput, match="label value 19; expected only 0-18, 255"):
        dataset.read("val", 0)


def test_the_public_test_split_is_refused(tmp_path: Path):
    write_cityscapes(tmp_path, "val", "ulm", 1)
    for index in range(3):
        write_cityscapes(tmp_path, "test", "bonn", index, "labelIds", [1, 3])
    dataset = open_data(f"cityscapes:{tmp_path}")
    assert len(dataset.samples("val")) == 1
    with pytest.raises(BadInput, match=r"'test' .*no labelled pixel"):
        dataset.samples("test")


def test_labels_without_image_are_kept_apart(tmp_path: Path):
    write_cityscapes(tmp_path, "val", "ulm", 1)
    write_labels(tmp_path / "gtFine/val/ulm/ulm_000009_000019_gtFine_labelIds.png")
    assert [path.name[:10] for path in open_data(f"cityscapes:{tmp_path}").strays] == ["ulm_000009"]


def test_another_folder_is_described(tmp_path: Path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(Missing, match=r"expected leftImg8bit/SPLIT.*; found pictures; give the folder"):
        open_data(f"cityscapes:{tmp_path}")


def test_written_streets_depend_on_no_other(tmp_path: Path):
    for index in range(2):
        write_cityscapes(tmp_path, "val", "streets", index)
    dataset = open_data(f"streets:{tmp_path}")
    assert dataset.kind == "streets"
    assert dataset.groups("val") == dataset.names("val")
