from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from reference import LAW
from segpatch.compositing import cover, paste
from segpatch.eot import EOT, PatchEOT, Placement, apply_placement, draw, generator_at, largest_size
from segpatch.errors import BadInput
from segpatch.transforms import SceneEOT
from segpatch.types import IGNORE, Region

SCENE = SceneEOT(crop=(64, 96))
STRONG = EOT(SCENE, PatchEOT(), "drawn")
IMAGE = torch.rand(3, 12, 14, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12 * 14).view(12, 14)
PATCH = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(1)) * 0.4 + 0.3
UNTURNED = Placement(Region(2, 3, 4, 5), corners=((0, 0), (4, 0), (4, 3), (0, 3)))
TURNED = Placement(
    Region(1, 2, 9, 11),
    corners=((5.0, 0.0), (9.5, 4.5), (4.5, 8.0), (0.0, 3.8)),
    brightness=0.05,
    contrast=0.9,
    noise=0.02,
    noise_seed=7,
)


def test_a_patch_without_corners_is_pasted_as_it_is():
    images, labels = apply_placement(IMAGE, LABELS, PATCH, Placement(Region(2, 3, 4, 5)))
    assert torch.equal(images, paste(IMAGE, PATCH, Region(2, 3, 4, 5)))
    assert torch.equal(labels, cover(LABELS, Region(2, 3, 4, 5)))


def test_corners_left_in_place_give_the_patch_itself():
    image, labels = apply_placement(IMAGE, LABELS, PATCH, UNTURNED)
    assert_close(image, paste(IMAGE, PATCH, UNTURNED.region), rtol=0, atol=1e-5)
    assert torch.equal(labels, cover(LABELS, UNTURNED.region))


def test_corners_land_where_the_placement_says():
    """Moved by (2, 1), and turned by 90 degrees clockwise."""
    moved = replace(UNTURNED, region=Region(1, 1, 6, 8), corners=((2, 1), (6, 1), (6, 4), (2, 4)))
    image, labels = apply_placement(IMAGE, LABELS, PATCH, moved)
    assert_close(image, paste(IMAGE, PATCH, UNTURNED.region), rtol=0, atol=1e-5)
    assert bool((labels[2:6, 3:8] == IGNORE).all())
    turned = replace(UNTURNED, region=Region(2, 3, 5, 4), corners=((3, 0), (3, 4), (0, 4), (0, 0)))
    image, _ = apply_placement(IMAGE, LABELS, PATCH, turned)
    assert_close(image, paste(IMAGE, PATCH.rot90(-1, (1, 2)), turned.region), rtol=0, atol=1e-5)


def test_light_on_the_patch_by_hand():
    lit = replace(UNTURNED, contrast=0.5, brightness=0.1)
    image, _ = apply_placement(IMAGE, LABELS, PATCH, lit)
    assert_close(image[:, 2:6, 3:8], (PATCH - 0.5) * 0.5 + 0.5 + 0.1, rtol=0, atol=1e-5)
    image, _ = apply_placement(IMAGE, LABELS, PATCH, replace(UNTURNED, brightness=2.0))
    assert_close(image[:, 2:6, 3:8], torch.ones(3, 4, 5), rtol=0, atol=1e-5)


def test_what_the_patch_does_not_touch_keeps_its_bits_and_labels():
    before = IMAGE.clone(), LABELS.clone(), PATCH.clone()
    image, labels = apply_placement(IMAGE, LABELS, PATCH, TURNED)
    untouched = labels != IGNORE
    assert 12 * 14 - 9 * 11 < int(untouched.sum()) < 12 * 14 - 40, "the corners of the box show the image"
    assert torch.equal(image[:, untouched], IMAGE[:, untouched])
    assert torch.equal(labels[untouched], LABELS[untouched])
    assert bool((image[:, ~untouched] != IMAGE[:, ~untouched]).any(0).all()), "what is covered has changed"
    for value, unchanged in zip((IMAGE, LABELS, PATCH), before, strict=True):
        assert torch.equal(value, unchanged)


@pytest.mark.parametrize("placement", [Placement(Region(2, 3, 4, 5)), UNTURNED, TURNED])
def test_gradient_of_the_patch(placement):
    patch = PATCH.double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda pixels: apply_placement(IMAGE.double(), LABELS, pixels, placement)[0], patch
    )


def test_noise_is_replayed_from_its_seed():
    noisy = [replace(UNTURNED, noise=0.05, noise_seed=seed) for seed in (1, 1, 2)]
    first, again, other = (apply_placement(IMAGE, LABELS, PATCH, placement)[0] for placement in noisy)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    added = first - apply_placement(IMAGE, LABELS, PATCH, UNTURNED)[0]
    assert 0.02 < float(added[:, 2:6, 3:8].std()) < 0.1


def test_the_same_address_draws_the_same_and_others_do_not():
    addresses = [(seed, step, sample) for seed in range(3) for step in range(3) for sample in range(3)]
    once, again = ([draw(STRONG, address, (64, 128), (8, 12)) for address in addresses] for _ in range(2))
    assert once == again
    assert len(set(once)) == len(addresses)


def test_a_draw_leaves_global_chance_alone():
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    _, placement = draw(STRONG, (0, 0, 0), (64, 128), (8, 12))
    apply_placement(torch.zeros(3, 64, 96), torch.zeros(64, 96), torch.zeros(3, 8, 12), placement)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


def test_generators_of_an_address():
    assert generator_at(1, 2, 3).random() == generator_at(1, 2, 3).random()
    assert len({generator_at(*a).random() for a in [(1, 2, 3), (3, 2, 1), (1, 2, 4), (1, 2)]}) == 4


@LAW
@given(
    rotation=st.floats(0, 180),
    perspective=st.floats(0, 0.4),
    scale=st.floats(0.3, 1.5),
    patch_size=st.tuples(st.integers(2, 15), st.integers(2, 15)),
    place=st.sampled_from(["centre", "drawn"]),
    sample=st.integers(0, 2**31),
)
def test_every_drawn_region_lies_inside_and_holds_its_corners(
    rotation, perspective, scale, patch_size, place, sample
):
    drawn = PatchEOT(scale=(scale, scale), rotation=rotation, perspective=perspective)
    _, placement = draw(EOT(SCENE, drawn, place), (0, 0, sample), (64, 128), patch_size)
    top, left, height, width = placement.region
    assert min(top, left) >= 0
    assert top + height <= 64
    assert left + width <= 96
    x, y = np.array(placement.corners).T
    assert min(x) == min(y) == 0
    assert 0 <= width - 1 - max(x) < 1
    assert 0 <= height - 1 - max(y) < 1
    most_high, most_wide = largest_size(drawn, patch_size)
    assert height <= most_high
    assert width <= most_wide


def test_a_still_distribution_draws_the_patch_itself():
    still = PatchEOT((1, 1), rotation=0, perspective=0, brightness=0, contrast=(1, 1), noise=0)
    scene, placement = draw(EOT(SCENE, still), (0, 0, 0), (64, 128), (8, 12))
    assert scene.size == (64, 96)
    assert placement.region[2:] == largest_size(still, (8, 12)) == (8, 12)
    assert_close(torch.tensor(placement.corners), torch.tensor([[0, 0], [11, 0], [11, 7], [0, 7.0]]))
    assert (placement.brightness, placement.contrast, placement.noise) == (0, 1, 0)


def test_without_patch_eot_only_the_place_is_drawn():
    centre = {draw(EOT(SCENE), (0, 0, s), (64, 128), (8, 12))[1] for s in range(20)}
    assert centre == {Placement(Region(28, 42, 8, 12))}
    somewhere = {draw(EOT(SCENE, None, "drawn"), (0, 0, s), (64, 128), (8, 12))[1] for s in range(20)}
    assert len(somewhere) > 15
    assert all(p.corners is None and p.region[2:] == (8, 12) for p in somewhere)


def test_light_and_scale_stay_in_their_ranges():
    placements = [draw(STRONG, (0, 0, sample), (64, 128), (20, 20))[1] for sample in range(100)]
    brightness, contrast = [p.brightness for p in placements], [p.contrast for p in placements]
    assert -0.1 <= min(brightness) < -0.08
    assert 0.08 < max(brightness) <= 0.1
    assert 0.9 <= min(contrast) < 0.92
    assert 1.08 < max(contrast) <= 1.1
    assert {p.noise for p in placements} == {0.03}
    sizes = [p.region.height for p in placements]
    assert min(sizes) < 20 < max(sizes)


def test_a_patch_too_large_for_the_crop_is_refused():
    with pytest.raises(BadInput, match="does not fit images of 64x96"):
        draw(STRONG, (0, 0, 0), (64, 128), (64, 64))


def test_an_unknown_place_is_refused():
    with pytest.raises(BadInput, match="place must be one of centre, drawn; got 'left'"):
        EOT(place="left")
