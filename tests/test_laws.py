"""Laws of the mathematics that hold for all inputs, on drawn ones; more are beside the tests of each module."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from reference import LAW
from segpatch.compositing import cover, draw_region, paste
from segpatch.eot import EOT, PatchEOT, appearance, apply_placement, draw, largest_size
from segpatch.losses import LOSSES
from segpatch.metrics import confusion_matrix, iou_per_class, miou, pixel_accuracy
from segpatch.statistics import block_ids, interval, resample_counts, resampled_miou, verdict
from segpatch.transforms import SceneEOT, apply_scene, apply_scene_to_labels, draw_scene
from segpatch.types import IGNORE
from segpatch.updates import adam_start, adam_step, sign_step

SEED = st.integers(0, 2**32 - 1)
SIDE = st.integers(1, 9)


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def uniform(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(generator(seed).random(shape, dtype=np.float32))


def ids(seed: int, classes: int, *shape: int, ignored: float = 0.2) -> Tensor:
    draw = generator(seed)
    labels = torch.from_numpy(draw.integers(classes, size=shape))
    return torch.where(torch.from_numpy(draw.random(shape)) < ignored, IGNORE, labels)


# compositing


@LAW
@given(SEED, SIDE, SIDE)
def test_pasting_what_is_there_changes_nothing_and_the_last_patch_stays(seed: int, h: int, w: int):
    image = uniform(seed, 2, 3, 9, 9)
    region = draw_region(9, 9, h, w, generator(seed))
    at = np.s_[..., region.top : region.top + h, region.left : region.left + w]
    assert torch.equal(paste(image[:1], image[0][at], region), image[:1])
    patch, other = uniform(seed + 1, 3, h, w), uniform(seed + 2, 3, h, w)
    last = paste(paste(image, other, region), patch, region)
    assert torch.equal(last, paste(image, patch, region))
    assert torch.equal(last[at], patch.expand(2, 3, h, w))


@LAW
@given(SEED, SIDE, SIDE)
def test_covered_labels_are_those_whose_pixels_the_patch_changes(seed: int, h: int, w: int):
    region = draw_region(9, 9, h, w, generator(seed))
    changed = paste(torch.zeros(3, 9, 9), torch.ones(3, h, w), region)[0] == 1
    covered = cover(torch.zeros(9, 9, dtype=torch.long), region) == IGNORE
    assert torch.equal(changed, covered) and int(covered.sum()) == h * w


@LAW
@given(SEED, st.integers(1, 3))
def test_the_gradient_of_a_patch_is_the_sum_of_its_images(seed: int, count: int):
    region = draw_region(9, 9, 3, 4, generator(seed))
    patch = torch.zeros(3, 3, 4, requires_grad=True)
    weights = uniform(seed, count, 3, 9, 9)
    (gradient,) = torch.autograd.grad((paste(torch.zeros(count, 3, 9, 9), patch, region) * weights).sum(), patch)
    rows, columns = (slice(start, start + size) for start, size in zip(region[:2], region[2:], strict=True))
    assert_close(gradient, weights[..., rows, columns].sum(0))


# transforms


def drawn_scene(seed: int, h: int, w: int, low: float, more: float):
    return draw_scene(SceneEOT(scales=(low, low + more), crop=(7, 8)), h, w, generator(seed))


SCENE = (SEED, st.integers(2, 12), st.integers(2, 12), st.floats(0.3, 2.0), st.floats(0.0, 1.0))


@LAW
@given(*SCENE)
def test_a_scene_shows_values_between_those_of_the_image_and_labels_that_are_there(seed, h, w, low, more):
    scene, image, labels = drawn_scene(seed, h, w, low, more), uniform(seed, 3, h, w) + 1, ids(seed, 4, h, w)
    shown, truth = apply_scene(image, scene), apply_scene_to_labels(labels, scene)
    inside = shown[0] > 0
    assert shown.shape[1:] == truth.shape == scene.size
    assert bool((truth[~inside] == IGNORE).all())  # padding has no truth
    assert set(truth[inside].tolist()) <= set(labels.flatten().tolist())
    for channel in range(3):
        seen = shown[channel][inside]
        assert float(seen.min()) >= float(image[channel].min()) - 1e-6
        assert float(seen.max()) <= float(image[channel].max()) + 1e-6


@LAW
@given(*SCENE)
def test_a_scene_is_linear_in_the_image_and_mirrors_what_it_flips(seed, h, w, low, more):
    scene, one, other = drawn_scene(seed, h, w, low, more), uniform(seed, 3, h, w), uniform(seed + 1, 3, h, w)
    assert_close(apply_scene(one + 2 * other, scene), apply_scene(one, scene) + 2 * apply_scene(other, scene))
    flipped = scene.__class__(scene.scaled, scene.top, scene.left, scene.size, not scene.flip)
    assert torch.equal(apply_scene(one, flipped), apply_scene(one, scene).flip(-1))


# eot


PATCH_EOT = st.builds(
    PatchEOT,
    scale=st.tuples(st.floats(0.5, 1.0), st.floats(1.0, 1.5)),
    rotation=st.floats(0, 45),
    perspective=st.floats(0, 0.2),
    noise=st.sampled_from([0.0, 0.05]),
)


@LAW
@given(SEED, PATCH_EOT, st.integers(2, 9), st.integers(2, 9), st.sampled_from(["centre", "drawn"]))
def test_an_appearance_lies_inside_keeps_the_rest_and_covers_what_it_shows(seed, drawn, h, w, place):
    eot = EOT(SceneEOT(crop=(32, 36)), drawn, place)
    _, placement = draw(eot, (seed, 3, 1), (40, 40), (h, w))
    assert (_, placement) == draw(eot, (seed, 3, 1), (40, 40), (h, w))  # chance is addressed
    region = placement.region
    assert 0 <= region.top <= 32 - region.height and 0 <= region.left <= 36 - region.width
    most = largest_size(drawn, (h, w))
    assert region.height <= most[0] and region.width <= most[1]
    image, labels = uniform(seed, 3, 32, 36), torch.zeros(32, 36, dtype=torch.uint8)
    seen, truth = apply_placement(image, labels, torch.full((3, h, w), 0.5), placement)
    shown = torch.zeros(32, 36, dtype=torch.bool)
    shown[appearance(placement, (h, w)).at[1:]] = appearance(placement, (h, w)).alpha[0] > 0
    assert torch.equal(truth == IGNORE, shown)
    assert torch.equal(seen[:, ~shown], image[:, ~shown])


# losses


@pytest.mark.parametrize("name", LOSSES)
@LAW
@given(SEED, st.floats(-20, 20))
def test_a_loss_does_not_know_the_level_of_logits_nor_the_order_of_pixels(name: str, seed: int, level: float):
    logits, labels = uniform(seed, 2, 3, 4, 5).double() * 8, ids(seed, 3, 2, 4, 5)
    clean = ids(seed + 1, 3, 2, 4, 5, ignored=0)

    def of(logits: Tensor, labels: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        return LOSSES[name](logits, labels, 0.4, clean)

    total, count = of(logits, labels, clean)
    assert float(total) >= 0 and 0 <= float(count) <= float((labels != IGNORE).sum())
    assert_close(of(logits + level, labels, clean), (total, count))
    assert_close(of(logits.flip(3), labels.flip(2), clean.flip(2)), (total, count))
    others = torch.tensor([2, 0, 1])  # the new id of each class
    renamed = [torch.where(ids == IGNORE, IGNORE, others[ids.clamp(max=2)]) for ids in (labels, clean)]
    assert_close(of(logits[:, others.argsort()], *renamed), (total, count))


@pytest.mark.parametrize("name", [name for name in LOSSES if "normalised" not in name])
@LAW
@given(SEED)
def test_a_loss_moves_no_probability_out_of_a_pixel(name: str, seed: int):
    """Its gradient is a slope times softmax minus one-hot, which sums to 0 over the classes."""
    logits = (uniform(seed, 1, 3, 4, 5).double() * 8).requires_grad_()
    labels, clean = ids(seed, 3, 1, 4, 5), ids(seed + 1, 3, 1, 4, 5, ignored=0)
    (gradient,) = torch.autograd.grad(LOSSES[name](logits, labels, 0.4, clean)[0], logits)
    assert_close(gradient.sum(1), torch.zeros(1, 4, 5, dtype=torch.float64), rtol=0, atol=1e-12)
    assert bool((gradient.permute(0, 2, 3, 1)[labels == IGNORE] == 0).all())


# updates


@LAW
@given(SEED, st.integers(-15, 15), st.floats(0.001, 1.0))
def test_steps_know_the_direction_of_a_gradient_and_not_its_size(seed: int, exponent: int, size: float):
    patch, gradient = uniform(seed, 3, 4, 4), uniform(seed + 1, 3, 4, 4) - 0.5
    low, high = torch.zeros(3), torch.ones(3)
    scaled = gradient * 2.0**exponent  # a power of two keeps all bits
    assert torch.equal(sign_step(patch, gradient, size, low, high), sign_step(patch, scaled, size, low, high))
    one, _ = adam_step(patch, gradient, adam_start(patch), size, low, high)
    other, _ = adam_step(patch, scaled, adam_start(patch), size, low, high)
    assert_close(one, other)
    for moved in (one, sign_step(patch, gradient, size, low, high)):
        assert bool(((moved - patch) * gradient >= 0).all()) and 0 <= float(moved.min()) <= float(moved.max()) <= 1


# metrics


@LAW
@given(SEED, st.integers(1, 4))
def test_a_confusion_matrix_counts_each_labelled_pixel_once_in_any_order(seed: int, classes: int):
    labels = ids(seed, classes, 3, 5, 4)
    predictions = ids(seed + 1, classes, 3, 5, 4, ignored=0)
    whole = confusion_matrix(predictions, labels, classes)
    assert whole.sum((1, 2)).tolist() == (labels != IGNORE).sum((1, 2)).tolist()
    assert torch.equal(confusion_matrix(predictions.flip(1), labels.flip(1), classes), whole)
    upper, lower = (
        confusion_matrix(predictions[:, rows], labels[:, rows], classes) for rows in (np.s_[:2], np.s_[2:])
    )
    assert torch.equal(upper + lower, whole)


@LAW
@given(SEED, st.integers(1, 4))
def test_scores_lie_between_0_and_1_and_are_1_for_the_truth_alone(seed: int, classes: int):
    labels = ids(seed, classes, 3, 5, 4)
    labels[0, 0, 0] = 0
    best = confusion_matrix(torch.where(labels == IGNORE, 0, labels), labels, classes).sum(0)
    assert float(miou(best)) == float(pixel_accuracy(best)) == 1
    other = confusion_matrix(ids(seed + 1, classes, 3, 5, 4, ignored=0), labels, classes).sum(0)
    scores = iou_per_class(other)
    assert bool(((scores.isnan()) | ((scores >= 0) & (scores <= 1))).all())
    assert torch.equal(miou(other * 7), miou(other))


# statistics


@LAW
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30), st.floats(0.5, 0.9), st.floats(0, 0.09))
def test_an_interval_lies_within_its_values_and_grows_with_its_level(values, level, more):
    values = torch.tensor(values, dtype=torch.float64)
    (low, high), (lower, higher) = interval(values, level), interval(values, level + more)
    assert float(values.min()) <= lower <= low <= high <= higher <= float(values.max())
    shifted = interval(values + 3, level)
    assert shifted == pytest.approx((low + 3, high + 3))
    assert interval(-values, level) == pytest.approx((-high, -low))


@LAW
@given(SEED, st.lists(st.sampled_from("ab"), min_size=2, max_size=12), st.integers(1, 4))
def test_resamples_take_whole_blocks_as_many_as_there_are(seed: int, groups: list[str], length: int):
    blocks = block_ids(groups, length)
    counts = resample_counts(blocks, 20, generator(seed))
    firsts = torch.tensor([blocks.tolist().index(b) for b in range(int(blocks.max()) + 1)])
    assert counts[:, firsts].sum(1).tolist() == [len(firsts)] * 20
    assert torch.equal(counts, counts[:, firsts][:, blocks])


@LAW
@given(SEED, st.integers(1, 5))
def test_images_that_are_alike_have_no_spread(seed: int, count: int):
    one = torch.from_numpy(generator(seed).integers(0, 9, (3, 3))).int()
    one[0, 0] = 1
    counts = resample_counts(torch.arange(count), 20, generator(seed))
    assert_close(resampled_miou(one.expand(count, 3, 3), counts), miou(one).expand(20))


@LAW
@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0.001, 0.5))
def test_a_verdict_is_of_the_interval_alone(low: float, width: float, margin: float):
    high = low + width
    said = verdict(low, high, margin)
    assert (said == "transfers") == (low > margin)
    assert (said == "does not") == (-margin <= low and high <= margin)
