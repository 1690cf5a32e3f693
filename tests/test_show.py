"""The picture of one scene."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from segpatch.data import open_data
from segpatch.errors import BadInput
from segpatch.models.victim import Victim
from segpatch.patch import Patch
from segpatch.studies.show import write_scene


@pytest.fixture
def victim():
    torch.manual_seed(0)
    return Victim(torch.nn.Conv2d(3, 19, 3, padding=1))


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_one_row_without_a_patch_and_two_with(tmp_path, victim):
    streets = open_data("streets", height=64, width=128)
    write_scene(victim, streets, tmp_path / "one.png")
    assert read(tmp_path / "one.png").shape == (64, 3 * 128, 3)
    patch = Patch(torch.zeros(3, 12, 16))
    write_scene(victim, streets, tmp_path / "two.png", patch=patch)
    picture = read(tmp_path / "two.png")
    assert picture.shape == (128, 3 * 128, 3)
    attacked = picture[64:, :128]
    assert (attacked[26:38, 56:72] == 0).all()  # the black patch in the centre of the second row
    assert (attacked[:26] == picture[:26, :128]).all()


def test_bad_requests_are_refused(tmp_path, victim):
    streets = open_data("streets", height=64, width=128)
    with pytest.raises(BadInput, match=r"--image must be in 0\.\."):
        write_scene(victim, streets, tmp_path / "x.png", image=10**6)
    with pytest.raises(BadInput, match="PNG"):
        write_scene(victim, streets, tmp_path / "x.jpg")
    assert not list(tmp_path.iterdir())
