"""Photographs of scenes: from the run that kept them, or else from the data set that it measured."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segpatch.errors import BadInput, Missing
from segpatch.patch import FULL_RANGE, random_patch
from segpatch.report import write_report
from segpatch.report.photographs import read_photographs
from segpatch.results import read_transfer
from segpatch.studies.matrix import run_matrix
from segpatch.studies.planned import MatrixPlan
from tiny import conv_victim, learnable_dataset


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run on the second and fourth image of a folder, whose photographs it did not keep."""
    plan = MatrixPlan(presets=(), pictures=2)
    given = [random_patch((4, 4), FULL_RANGE, 1)]
    run_matrix(
        [conv_victim(0, name="a")], learnable_dataset(tmp_path / "data"), plan, tmp_path / "run", given=given
    )
    return tmp_path / "run"


def picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_they_are_read_from_the_data_set_again(run: Path, tmp_path: Path):
    found = read_photographs(run, read_transfer(run))
    assert list(found) == ["val1", "val3"]
    for name, pixels in found.items():
        assert np.array_equal(pixels, picture(tmp_path / f"data/images/val/{name}.png"))
    assert "image/jpeg" not in (run / "report/index.html").read_text()
    assert write_report(run, tmp_path / "out", photographs=True).read_text().count("image/jpeg") == 4


def test_those_that_the_run_kept_come_first_and_suffice(run: Path, tmp_path: Path):
    kept = run / "scenes/val3/image.png"
    Image.fromarray(np.zeros((12, 16, 3), np.uint8)).save(kept)
    found = read_photographs(run, read_transfer(run))
    assert not found["val3"].any() and found["val1"].any()
    shutil.copy(tmp_path / "data/images/val/val1.png", run / "scenes/val1/image.png")
    shutil.rmtree(tmp_path / "data")
    again = read_photographs(run, read_transfer(run))
    assert all(np.array_equal(again[name], found[name]) for name in ("val1", "val3"))


def test_a_data_set_that_is_gone_or_another_is_named(run: Path, tmp_path: Path):
    result, said = read_transfer(run), f"the photographs of {run} are not in it; put its data set back"
    Image.fromarray(np.zeros((12, 16, 3), np.uint8)).save(tmp_path / "data/images/val/val0.png")
    with pytest.raises(Missing, match=f"^{said}.*data val is not what was measured$"):
        read_photographs(run, result)
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(Missing, match=f"^{said}, or leave out --with-images: .*data.*$"):
        write_report(run, tmp_path / "out", photographs=True)
    assert not (tmp_path / "out").exists()
    (run / "config.json").unlink()
    with pytest.raises(Missing, match=r"no config\.json says which it was"):
        read_photographs(run, result)


def test_a_run_without_scenes_has_none_to_show(run: Path):
    shutil.rmtree(run / "scenes")
    with pytest.raises(BadInput, match="kept no scene to show a photograph of; measure with --pictures"):
        read_photographs(run, read_transfer(run))
