from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from segpatch.data import open_data
from segpatch.data.check import check_data
from segpatch.data.make import make_streets
from segpatch.errors import BadInput


def draw(seed: int, split: str, index: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, len(split), index])
    labels = rng.choice(np.array([*range(19), 255], dtype=np.uint8), (height, width))
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8), labels


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segpatch.data.streets.draw_street", draw)


def test_written_streets_are_the_drawn_ones(tmp_path: Path, fake: None):
    out, done = tmp_path / "new" / "streets", []
    make_streets(
        out, train=3, val=2, height=16, width=32, seed=5, on_image=lambda count, total: done.append((count, total))
    )
    assert done == [(count, 5) for count in range(1, 6)]
    written = open_data(f"streets:{out}")
    drawn = open_data("streets", height=16, width=32, seed=5)
    assert written.names("val") == drawn.names("val")[:2]
    for split, count in (("train", 3), ("val", 2)):
        assert len(written.samples(split)) == count
        for index in range(count):
            for one, two in zip(written.read(split, index), drawn.read(split, index), strict=True):
                assert np.array_equal(one, two)
    about = json.loads((out / "streets.json").read_text())
    assert {key: about[key] for key in ("seed", "train", "val", "height", "width")} == {
        "seed": 5,
        "train": 3,
        "val": 2,
        "height": 16,
        "width": 32,
    }
    assert check_data(f"streets:{out}").ok


def test_nothing_is_overwritten(tmp_path: Path, fake: None):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(BadInput, match="there already and not an empty folder"):
        make_streets(tmp_path, train=1, val=1, height=16, width=32, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_folder_is_filled(tmp_path: Path, fake: None):
    make_streets(tmp_path / "x", train=0, val=1, height=16, width=32, seed=0)
    (tmp_path / "y").mkdir()
    make_streets(tmp_path / "y", train=0, val=1, height=16, width=32, seed=0)
    one, two = (open_data(f"streets:{tmp_path / name}").fingerprint("val") for name in "xy")
    assert one == two
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "y"]


def test_a_failure_leaves_nothing(tmp_path: Path, fake: None):
    def stop(count: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_streets(tmp_path / "x", train=2, val=1, height=16, width=32, seed=0, on_image=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"train": 0, "val": 0}, {"train": -1}, {"height": 0}, {"seed": -1}])
def test_bad_numbers_are_refused(tmp_path: Path, wrong: dict[str, int]):
    numbers = {"train": 1, "val": 1, "height": 16, "width": 32, "seed": 0} | wrong
    with pytest.raises(BadInput):
        make_streets(tmp_path / "x", **numbers)
    assert list(tmp_path.iterdir()) == []


def test_many_streets_are_drawn_by_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("segpatch.data.make._FEW", 2)
    make_streets(tmp_path / "x", train=4, val=1, height=16, width=32, seed=1)
    drawn = open_data("streets", height=16, width=32, seed=1)
    written = open_data(f"streets:{tmp_path / 'x'}")
    assert (len(written.samples("train")), len(written.samples("val"))) == (4, 1)
    assert np.array_equal(written.read("train", 3)[0], drawn.read("train", 3)[0])
