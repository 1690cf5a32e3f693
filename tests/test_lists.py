from __future__ import annotations

from pathlib import Path

import pytest

from fabricate import write_cityscapes, write_image, write_labels
from segpatch.data import CITYSCAPES, open_data
from segpatch.errors import BadInput, Missing
from segpatch.types import IGNORE


def make(root: Path, count: int = 2) -> None:
    for number in range(count):
        write_image(root / f"pictures/{number}.png", seed=number)
        write_labels(root / f"truth/{number}.png", [0, 1])


@pytest.mark.parametrize("mark", [" ", "   ", "\t", ",", ", "])
def test_columns(tmp_path: Path, mark: str):
    make(tmp_path)
    lines = ["# images and labels", f"pictures/1.png{mark}truth/1.png", "", f"pictures/0.png{mark}truth/0.png"]
    (tmp_path / "all.txt").write_text("\n".join(lines))
    dataset = open_data(f"list:{tmp_path / 'all.txt'}")
    assert dataset.names("all") == dataset.groups("all") == ("1", "0")
    assert (dataset.train_split, dataset.select_split, dataset.eval_split) == ("all", "all", "all")
    assert dataset.classes is CITYSCAPES


def test_absolute_paths_with_blanks(tmp_path: Path):
    make(tmp_path / "my data", 1)
    file = tmp_path / "lists" / "all.txt"
    file.parent.mkdir()
    file.write_text(f"{tmp_path}/my data/pictures/0.png\t{tmp_path}/my data/truth/0.png\n")
    assert open_data(f"list:{file}").read("all", 0)[0].shape == (4, 6, 3)


def test_the_lists_of_the_paper(tmp_path: Path):
    lines = []
    for city in ("aachen", "ulm"):
        name = write_cityscapes(tmp_path, "train", city, 1, "labelIds", [7, 3, 33])
        lines.append(
            f"leftImg8bit/train/{city}/{name}_leftImg8bit.png gtFine/train/{city}/{name}_gtFine_labelIds.png"
        )
    (tmp_path / "train.lst").write_text("\n".join(lines))
    dataset = open_data(f"list:{tmp_path / 'train.lst'}")
    assert dataset.groups("all") == ("aachen", "ulm")
    assert dataset.names("all")[0] == "aachen_000001_000019"
    assert dataset.read("all", 0)[1].ravel()[:3].tolist() == [0, IGNORE, 18]


def test_a_folder_of_lists(tmp_path: Path):
    make(tmp_path, 3)
    for number, split in enumerate(("train", "val", "test")):
        (tmp_path / f"{split}.txt").write_text(f"pictures/{number}.png truth/{number}.png\n")
    (tmp_path / "classes.txt").write_text("road\ncar\n")
    dataset = open_data(f"list:{tmp_path}")
    assert [dataset.names(split) for split in ("train", "val", "test")] == [("0",), ("1",), ("2",)]
    assert (dataset.train_split, dataset.select_split, dataset.eval_split) == ("train", "val", "test")
    assert dataset.classes.names == ("road", "car")


def test_folders_tell_equal_names_apart(tmp_path: Path):
    for drive in ("a", "b"):
        make(tmp_path / drive, 1)
    (tmp_path / "all.txt").write_text("a/pictures/0.png a/truth/0.png\nb/pictures/0.png b/truth/0.png\n")
    assert open_data(f"list:{tmp_path / 'all.txt'}").names("all") == ("a_pictures_0", "b_pictures_0")


def test_a_line_that_is_there_twice_is_refused(tmp_path: Path):
    make(tmp_path, 1)
    (tmp_path / "all.txt").write_text("pictures/0.png truth/0.png\n" * 2)
    with pytest.raises(BadInput, match="twice"):
        open_data(f"list:{tmp_path / 'all.txt'}").samples("all")


def test_a_list_of_images_alone_has_no_label(tmp_path: Path):
    make(tmp_path)
    (tmp_path / "all.txt").write_text("pictures/0.png\npictures/1.png\n")
    with pytest.raises(BadInput, match="has no label; expected a line 'image label'"):
        open_data(f"list:{tmp_path / 'all.txt'}").samples("all")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "lists no image"),
        (b"a.png b.png c.png\n", "line 1: expected 'image label'"),
        (b",b.png\n", "line 1: expected 'image label'"),
        (b". b.png\n. b.png\n", "line 1: expected 'image label', got '. b.png'"),
        (b"\x89PNG\xff", "not a text file"),
    ],
)
def test_bad_lists(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "all.txt").write_bytes(content)
    with pytest.raises(BadInput, match=message):
        open_data(f"list:{tmp_path / 'all.txt'}")


def test_a_listed_file_that_is_not_there(tmp_path: Path):
    make(tmp_path)
    (tmp_path / "truth/1.png").unlink()
    (tmp_path / "all.txt").write_text("pictures/0.png truth/0.png\npictures/1.png truth/1.png\n")
    with pytest.raises(Missing, match=r"truth/1\.png is not there"):
        open_data(f"list:{tmp_path / 'all.txt'}").read("all", 1)
