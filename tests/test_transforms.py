from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from reference import LAW, labels_loop, scene_loop
from segpatch.errors import BadInput
from segpatch.transforms import Scene, SceneEOT, apply_scene, apply_scene_to_labels, draw_scene
from segpatch.types import IGNORE

IMAGE = torch.rand(3, 6, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(48).view(6, 8)
SCENES = [
    Scene((6, 8), 0, 0, (6, 8), False),
    Scene((9, 12), 2, 5, (6, 6), False),
    Scene((9, 12), 2, 5, (6, 6), True),
    Scene((3, 4), 0, 0, (6, 6), False),  # smaller than the crop
    Scene((3, 4), 0, 0, (6, 6), True),
    Scene((7, 19), 1, 13, (6, 6), True),
    Scene((1, 1), 0, 0, (2, 2), False),
]


def test_bilinear_on_two_pixels_by_hand():
    image = torch.tensor([[[0.0, 1.0]]]).expand(3, 1, 2)
    wide = apply_scene(image, Scene((1, 4), 0, 0, (1, 4), False))
    assert wide[0].tolist() == [[0.0, 0.25, 0.75, 1.0]]
    labels = apply_scene_to_labels(torch.tensor([[3, 7]]), Scene((1, 4), 0, 0, (1, 5), True))
    assert labels.tolist() == [[IGNORE, 7, 7, 3, 3]]


@pytest.mark.parametrize("scene", SCENES)
def test_scene_is_the_loop(scene):
    assert_close(apply_scene(IMAGE.double(), scene), scene_loop(IMAGE.double(), scene), rtol=0, atol=1e-14)
    assert torch.equal(apply_scene_to_labels(LABELS, scene), labels_loop(LABELS, scene))


@pytest.mark.parametrize("scaled", [(9, 12), (6, 8), (13, 9), (7, 19)])
def test_scene_is_torch_interpolate_and_a_crop(scaled):
    scene = Scene(scaled, 1, 2, (5, 6), False)
    resized = F.interpolate(IMAGE[None], scaled, mode="bilinear", align_corners=False)[0]
    assert_close(apply_scene(IMAGE, scene), resized[:, 1:6, 2:8], rtol=0, atol=2e-6)
    nearest = F.interpolate(LABELS[None, None].double(), scaled, mode="nearest-exact")[0, 0].long()
    assert torch.equal(apply_scene_to_labels(LABELS, scene), nearest[1:6, 2:8])


@pytest.mark.parametrize("scene", SCENES)
def test_a_decoded_image_gives_what_its_values_do_in_either_memory_order(scene):
    decoded = IMAGE.mul(255).to(torch.uint8)
    together = decoded.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    wanted = apply_scene(decoded / 255, scene)
    assert_close(apply_scene(decoded, scene), wanted, rtol=0, atol=1e-6)
    assert torch.equal(apply_scene(together, scene), apply_scene(decoded, scene))


def test_scale_one_without_a_crop_is_the_identity_bit_for_bit():
    assert torch.equal(apply_scene(IMAGE, SCENES[0]), IMAGE)
    decoded = IMAGE.mul(255).to(torch.uint8)
    assert torch.equal(apply_scene(decoded, SCENES[0]), decoded / 255)
    assert torch.equal(apply_scene_to_labels(LABELS, SCENES[0]), LABELS)


def test_two_flips_are_the_identity_and_one_is_not():
    flip = replace(SCENES[0], flip=True)
    assert torch.equal(apply_scene(IMAGE, flip), IMAGE.flip(-1))
    assert torch.equal(apply_scene(apply_scene(IMAGE, flip), flip), IMAGE)
    assert torch.equal(apply_scene_to_labels(apply_scene_to_labels(LABELS, flip), flip), LABELS)


def test_padding_is_black_and_without_truth():
    scene = Scene((3, 4), 0, 0, (6, 6), False)
    image, labels = apply_scene(IMAGE + 0.1, scene), apply_scene_to_labels(LABELS, scene)
    padding = torch.ones(6, 6, dtype=torch.bool)
    padding[:3, :4] = False
    assert torch.equal(labels == IGNORE, padding)
    assert torch.equal((image == 0).all(0), padding)


@LAW
@given(
    scale=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    crop=st.tuples(st.integers(1, 10), st.integers(1, 10)),
    flip=st.booleans(),
)
def test_laws(scale, crop, flip):
    """No value outside the image's own, no label that is not in the image, a constant stays constant."""
    scene = Scene(scale, 0, 0, crop, flip)
    image, labels = apply_scene(IMAGE + 0.1, scene), apply_scene_to_labels(LABELS, scene)
    shown = labels != IGNORE
    assert image.shape[1:] == labels.shape == crop
    assert int(shown.sum()) == min(scale[0], crop[0]) * min(scale[1], crop[1])
    assert set(labels[shown].tolist()) <= set(range(48))
    assert image[:, shown].min() >= IMAGE.min() + 0.1 - 1e-6
    assert image[:, shown].max() <= IMAGE.max() + 0.1 + 1e-6
    constant = apply_scene(torch.full((3, 6, 8), 0.3), scene)
    assert bool((constant[:, shown] == 0.3).all())


def test_the_gradient_goes_through():
    image = IMAGE[:, :3, :3].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: apply_scene(x, Scene((5, 4), 1, 0, (3, 5), True)), image)


def test_draws_are_those_of_their_generator():
    eot = SceneEOT(crop=(32, 32))
    same = [draw_scene(eot, 64, 128, np.random.default_rng(3)) for _ in range(2)]
    others = {draw_scene(eot, 64, 128, np.random.default_rng(seed)) for seed in range(20)}
    assert same[0] == same[1]
    assert len(others) == 20


def test_draws_leave_global_chance_alone():
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    draw_scene(SceneEOT(crop=(32, 32)), 64, 128, np.random.default_rng(0))
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


def drawn(eot, count=200):
    generator = np.random.default_rng(0)
    return [draw_scene(eot, 64, 128, generator) for _ in range(count)]


def test_uniform_scales_fill_their_range_and_crops_lie_inside():
    scenes = drawn(SceneEOT(scales=(0.5, 2.0), crop=(64, 64)))
    heights = [scene.scaled[0] for scene in scenes]
    assert 32 <= min(heights) < 40
    assert 120 < max(heights) <= 128
    for scene in scenes:
        assert scene.size == (64, 64)
        assert abs(scene.scaled[1] - 2 * scene.scaled[0]) <= 1
        for start, scaled in zip((scene.top, scene.left), scene.scaled, strict=True):
            assert 0 <= start <= max(0, scaled - 64)


def test_listed_scales_are_the_only_ones():
    scenes = drawn(SceneEOT(scales=(0.5, 1.0, 2.0), crop=(64, 64)))
    assert {scene.scaled for scene in scenes} == {(32, 64), (64, 128), (128, 256)}


@pytest.mark.parametrize(("chance", "flips"), [(0.0, {False}), (0.5, {False, True}), (1.0, {True})])
def test_flip_is_a_chance(chance, flips):
    assert {scene.flip for scene in drawn(SceneEOT(flip=chance))} == flips


def test_without_a_crop_nothing_is_scaled():
    assert {(s.scaled, s.top, s.left, s.size) for s in drawn(SceneEOT())} == {((64, 128), 0, 0, (64, 128))}


@pytest.mark.parametrize(
    "wrong", [{"scales": (1.0,)}, {"scales": (0.0, 1.0)}, {"scales": (2.0, 0.5)}, {"flip": 1.1}]
)
def test_impossible_distributions_are_refused(wrong):
    with pytest.raises(BadInput, match=next(iter(wrong))):
        SceneEOT(**wrong)
