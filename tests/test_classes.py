from __future__ import annotations

import json
from pathlib import Path

import pytest

from segpatch.data.classes import CAMVID, CITYSCAPES, ClassSet, class_map
from segpatch.errors import BadInput, Missing

SMALL = ClassSet("small", ("road", "car", "traffic light"), ((0, 0, 0),) * 3)
PAIR = ClassSet("pair", ("ground", "thing"), ((0, 0, 0),) * 2)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_the_sets_have_the_published_sizes():
    assert (len(CITYSCAPES), len(CAMVID)) == (19, 11)
    assert CITYSCAPES.names.index("bicycle") == 18
    assert CAMVID.names.index("bicyclist") == 10


def test_equal_classes_need_no_map():
    other = ClassSet("other name", CITYSCAPES.names, ((1, 2, 3),) * 19)
    assert class_map(CITYSCAPES, other) is None


def test_cityscapes_merges_into_camvid():
    merge = class_map(CITYSCAPES, CAMVID)
    assert merge is not None
    assert merge.name == "cityscapes -> camvid"
    assert merge.table == (3, 4, 1, 1, 7, 2, 6, 6, 5, 5, 0, 9, 10, 8, 8, 8, 8, 10, 10)


def test_the_built_in_map_and_colours_are_those_of_the_folder(camvid: Path):
    facts = json.loads((camvid / "classes.json").read_text())
    merge = class_map(CITYSCAPES, CAMVID)
    assert merge is not None
    assert merge.table == tuple(row["camvid_id"] for row in facts["suggested_cityscapes_to_camvid"])
    kept = [row for row in facts["classes"] if not row.get("ignore")]
    assert CAMVID.names == tuple(row["name"] for row in kept)
    assert CAMVID.colours == tuple(tuple(row["color"]) for row in kept)


def test_no_map_names_the_classes_of_either_side():
    with pytest.raises(BadInput, match=r"sky, building.*to the 19 classes of cityscapes \(road, sidewalk"):
        class_map(CAMVID, CITYSCAPES)


@pytest.mark.parametrize("mark", [",", "\t", " , "])
def test_a_file_maps_by_name(tmp_path: Path, mark: str):
    lines = ["# source to target", f"car{mark}thing", "", f"road{mark}ground  # flat", f"traffic light{mark}thing"]
    merge = class_map(SMALL, PAIR, write(tmp_path / "map.txt", "\n".join(lines)))
    assert merge is not None
    assert merge.table == (0, 1, 1)
    assert merge.name == "small -> pair (map.txt)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("road,ground\ncar,thing\n", "no target class to 'traffic light'"),
        ("raod,ground\n", "line 1: unknown source class 'raod'; did you mean 'road'"),
        ("road,grond\n", "line 1: unknown target class 'grond'; did you mean 'ground'"),
        ("road ground\n", "line 1: expected 'source name, target name'"),
        ("road,ground\nroad,thing\n", "line 2: source class 'road' is mapped twice"),
        ("road,ground\ncar,ground\ntraffic light,ground\n", "nothing is mapped to 'thing'"),
    ],
)
def test_a_file_that_maps_badly_is_refused(tmp_path: Path, text: str, message: str):
    with pytest.raises(BadInput, match=message):
        class_map(SMALL, PAIR, write(tmp_path / "map.txt", text))


def test_an_absent_file_is_missing(tmp_path: Path):
    with pytest.raises(Missing, match=r"map\.txt"):
        class_map(SMALL, PAIR, tmp_path / "map.txt")


def test_class_sets_are_whole_and_unambiguous():
    with pytest.raises(BadInput, match="'road' twice"):
        ClassSet("x", ("road", "road"), ((0, 0, 0),) * 2)
    with pytest.raises(BadInput, match="one colour for each class"):
        ClassSet("x", ("road",), ())


def test_a_set_of_names_is_the_known_one_where_it_can_be():
    assert ClassSet.of(CITYSCAPES.names) is CITYSCAPES and ClassSet.of(list(CAMVID.names)) is CAMVID
    own = ClassSet.of(["road", "car", "sky"], "three")
    assert (own.name, own.names, len(set(own.colours))) == ("three", ("road", "car", "sky"), 3)
    assert ClassSet.of(CITYSCAPES.names[::-1]).names == CITYSCAPES.names[::-1]
    with pytest.raises(BadInput, match="twice"):
        ClassSet.of(["road", "road"])
