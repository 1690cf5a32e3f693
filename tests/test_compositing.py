import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reference import LAW, paste_loop
from segpatch.compositing import centre_region, cover, draw_region, paste
from segpatch.errors import BadInput
from segpatch.types import IGNORE, Region

IMAGES = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))
PATCH = torch.rand(3, 2, 3, generator=torch.Generator().manual_seed(1))
REGION = Region(1, 4, 2, 3)


def test_paste_on_four_pixels():
    image = torch.tensor([[[0.1, 0.2], [0.3, 0.4]]]).expand(3, 2, 2)
    pasted = paste(image, torch.full((3, 1, 1), 0.9), Region(1, 0, 1, 1))
    assert torch.equal(pasted, torch.tensor([[[0.1, 0.2], [0.9, 0.4]]]).expand(3, 2, 2))


def test_paste_is_the_loop_for_one_image_and_for_many():
    wanted = [paste_loop(image, PATCH, REGION) for image in IMAGES]
    assert torch.equal(paste(IMAGES, PATCH, REGION), torch.stack(wanted))
    assert torch.equal(paste(IMAGES[0], PATCH, REGION), wanted[0])


def test_paste_leaves_every_other_pixel_and_its_arguments_alone():
    images, patch = IMAGES.clone(), PATCH.clone()
    pasted = paste(images, patch, REGION)
    outside = cover(torch.zeros(6, 8), REGION) != IGNORE
    assert torch.equal(pasted[..., outside], IMAGES[..., outside])
    assert torch.equal(images, IMAGES)
    assert torch.equal(patch, PATCH)


def test_paste_keeps_the_type_and_layout_of_the_images():
    images = IMAGES.double().contiguous(memory_format=torch.channels_last)
    pasted = paste(images, PATCH, REGION)
    assert pasted.dtype == torch.float64
    assert pasted.is_contiguous(memory_format=torch.channels_last)


def test_gradient_of_the_patch_is_the_sum_over_images():
    weights = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(2))
    patch = PATCH.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((paste(IMAGES, patch, REGION) * weights).sum(), patch)
    assert torch.equal(gradient, weights[:, :, 1:3, 4:7].sum(0))


def test_cover_takes_the_region_out_of_the_labels():
    labels = torch.arange(4).view(1, 2, 2)
    assert cover(labels, Region(0, 1, 2, 1)).tolist() == [[[0, IGNORE], [2, IGNORE]]]
    assert labels.tolist() == [[[0, 1], [2, 3]]]


def test_no_region_changes_nothing():
    nowhere = Region(0, 0, 0, 0)
    assert torch.equal(cover(torch.zeros(2, 2), nowhere), torch.zeros(2, 2))


@pytest.mark.parametrize("patch_size", [(3, 2), (2, 2), (1, 1)])
def test_a_patch_of_another_size_than_the_region_is_refused(patch_size):
    with pytest.raises(BadInput, match=rf"{patch_size[0]}x{patch_size[1]} patch .* region of 2x3"):
        paste(IMAGES, torch.zeros(3, *patch_size), REGION)


@pytest.mark.parametrize(
    "region", [Region(-1, 0, 2, 3), Region(0, -1, 2, 3), Region(5, 0, 2, 3), Region(0, 6, 2, 3)]
)
def test_a_region_that_leaves_the_image_is_refused(region):
    with pytest.raises(BadInput, match="leaves images of 6x8"):
        paste(IMAGES, PATCH, region)
    with pytest.raises(BadInput, match="leaves images of 6x8"):
        cover(torch.zeros(6, 8), region)


def test_centre_region_by_hand():
    assert centre_region(6, 8, 2, 4) == (2, 2, 2, 4)
    assert centre_region(5, 5, 2, 5) == (1, 0, 2, 5)


@LAW
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 99))
def test_regions_lie_inside(h, w, more_rows, more_columns, seed):
    height, width = h + more_rows, w + more_columns
    for top, left, *size in (
        centre_region(height, width, h, w),
        draw_region(height, width, h, w, np.random.default_rng(seed)),
    ):
        assert size == [h, w]
        assert 0 <= top <= more_rows
        assert 0 <= left <= more_columns


def test_every_region_is_drawn():
    generator = np.random.default_rng(0)
    drawn = {draw_region(3, 4, 2, 2, generator)[:2] for _ in range(100)}
    assert drawn == {(top, left) for top in range(2) for left in range(3)}


def test_a_patch_larger_than_the_image_is_refused():
    with pytest.raises(BadInput, match="a 7x3 patch does not fit images of 6x8"):
        centre_region(6, 8, 7, 3)
    with pytest.raises(BadInput, match="a 2x9 patch does not fit images of 6x8"):
        draw_region(6, 8, 2, 9, np.random.default_rng(0))
