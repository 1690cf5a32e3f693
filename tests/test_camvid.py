from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fabricate import write_image, write_labels
from segpatch.data import CAMVID, batches, open_data
from segpatch.errors import BadInput, Missing
from segpatch.types import IGNORE


def test_the_real_folder(camvid: Path):
    dataset = open_data(f"camvid:{camvid}")
    assert {split: len(dataset.samples(split)) for split in dataset.splits} == {
        "train": 367,
        "val": 101,
        "test": 233,
    }
    assert dataset.eval_split == "test"
    assert dataset.size("test") == (360, 480)
    groups = dataset.groups("test")
    assert {group: groups.count(group) for group in groups} == {"Seq05VD": 171, "0001TP": 62}
    (batch,) = batches(dataset, "test", batch_size=2, indices=[0, 232])
    assert batch.images.shape == (2, 3, 360, 480)
    assert set(np.unique(batch.labels)) <= {*range(11), IGNORE}
    assert len(dataset.fingerprint("val")) == 64


def test_void_is_ignored_in_both_forms(tmp_path: Path):
    pixels = write_image(tmp_path / "folder/images/test/Seq05VD_f00000.png")
    write_labels(tmp_path / "folder/labels/test/Seq05VD_f00000.png", [0, 10, 11])
    write_image(tmp_path / "segnet/test/Seq05VD_f00000.png")
    write_labels(tmp_path / "segnet/testannot/Seq05VD_f00000.png", [0, 10, 11])
    for form in ("folder", "segnet"):
        dataset = open_data(f"camvid:{tmp_path / form}")
        image, labels = dataset.read("test", 0)
        assert np.array_equal(image, pixels)
        assert np.unique(labels).tolist() == [0, 10, IGNORE]
        assert dataset.groups("test") == ("Seq05VD",)
        assert dataset.classes is CAMVID


def test_a_list_of_the_tutorial_chooses_and_orders(tmp_path: Path):
    for number in range(3):
        write_image(tmp_path / f"val/0016E5_0{number}.png", seed=number)
        write_labels(tmp_path / f"valannot/0016E5_0{number}.png")
    write_labels(tmp_path / "valannot/0016E5_77.png")
    lines = [
        f"/SegNet/CamVid/val/{name}.png /SegNet/CamVid/valannot/{name}.png" for name in ("0016E5_02", "0016E5_00")
    ]
    (tmp_path / "val.txt").write_text("\n".join(lines) + "\n")
    dataset = open_data(f"camvid:{tmp_path}")
    assert dataset.names("val") == ("0016E5_02", "0016E5_00")
    assert [path.name for path in dataset.strays] == ["0016E5_77.png"]
    (tmp_path / "val/0016E5_02.png").unlink()
    with pytest.raises(Missing, match=r"0016E5_02\.png is not there"):
        open_data(f"camvid:{tmp_path}").read("val", 0)


def test_other_classes_are_refused(tmp_path: Path):
    write_image(tmp_path / "images/test/a.png")
    (tmp_path / "classes.json").write_text('["road", "car"]')
    with pytest.raises(BadInput, match=r"other classes than the 11 of CamVid \(road, car\); open it as folder:"):
        open_data(f"camvid:{tmp_path}")


def test_another_folder_is_described(tmp_path: Path):
    with pytest.raises(Missing, match="found an empty folder"):
        open_data(f"camvid:{tmp_path}")
