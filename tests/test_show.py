from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segpatch.data import open_data
from segpatch.errors import BadInput
from segpatch.models.victim import Victim
from segpatch.patch import Patch
from segpatch.report.pictures import WRONG
from segpatch.studies.show import legend, write_scenes

H, W = 64, 128
BLACK = Patch(torch.zeros(3, 12, 16))


@pytest.fixture
def victim():
    torch.manual_seed(0)
    return Victim(torch.nn.Conv2d(3, 19, 3, padding=1))


@pytest.fixture
def streets():
    return open_data("streets", height=H, width=W)


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def has(pixels, colour):
    return bool((pixels == np.array(colour, np.uint8)).all(-1).any())


def test_one_row_without_a_patch_and_two_with(tmp_path, victim, streets):
    write_scenes(victim, streets, tmp_path / "one.png")
    one = read(tmp_path / "one.png")
    image, labels = streets.read("val", 0)
    colours = np.array(streets.classes.colours, np.uint8)
    assert (one[:H, :W] == image).all() and (one[:H, W : 2 * W] == colours[labels]).all()
    write_scenes(victim, streets, tmp_path / "two.png", patch=BLACK)
    picture = read(tmp_path / "two.png")
    assert (picture[:H] == one[:H]).all() and picture.shape[0] > one.shape[0]
    attacked = picture[H:, :W]
    assert (attacked[26:38, 56:72] == 0).all()  # the black patch in the centre of the second row
    assert (attacked[:26] == picture[:26, :W]).all()
    assert has(picture[H : 2 * H, 2 * W :], WRONG) and not has(one, WRONG)


def test_several_images_by_name_and_by_position(tmp_path, victim, streets):
    names = streets.names("val")
    write_scenes(victim, streets, tmp_path / "both.png", images=[names[3], "1"])
    both = read(tmp_path / "both.png")
    for row, index in enumerate((3, 1)):
        write_scenes(victim, streets, tmp_path / "one.png", images=[str(index)])
        assert (both[row * H : (row + 1) * H] == read(tmp_path / "one.png")[:H]).all()


def test_the_legend_names_the_classes_that_are_seen(tmp_path, victim, streets, monkeypatch):
    asked = []
    keep = lambda entries, width: asked.append(entries) or legend(entries, width)  # noqa: E731
    monkeypatch.setattr("segpatch.studies.show.legend", keep)
    write_scenes(victim, streets, tmp_path / "p.png", patch=BLACK)
    picture = read(tmp_path / "p.png")
    below = picture[2 * H :]
    (entries,) = asked
    assert {"road", "sky", "newly wrong"} <= dict(entries).keys()
    for name, colour in zip(streets.classes.names, streets.classes.colours, strict=True):
        shown = has(picture[: 2 * H, W:], colour) or has(picture[:H, W:], colour)
        assert (name in dict(entries)) == shown and has(below, colour) == shown


def test_the_legend_breaks_its_lines_within_the_width():
    entries = [(f"class {index}", (index * 20, 0, 0)) for index in range(8)]
    wide, narrow = legend(entries, 2000), legend(entries, 200)
    assert (wide.width, narrow.width) == (2000, 200) and narrow.height > 2 * wide.height
    for _, colour in entries:
        assert has(np.asarray(narrow), colour) and has(np.asarray(wide), colour)


def test_bad_requests_are_refused(tmp_path, victim, streets):
    for image in ("1000000", "-1", "streets_000001_00000"):
        with pytest.raises(BadInput, match=r"such as streets_.* or in 0\.\.99; got '"):
            write_scenes(victim, streets, tmp_path / "x.png", images=[image])
    for out in (tmp_path / "x.jpg", Path()):
        with pytest.raises(BadInput, match=r"PNG; end its name in .png, not as in"):
            write_scenes(victim, streets, out)
    assert not list(tmp_path.iterdir())
