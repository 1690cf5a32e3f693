"""Procedural streets: bits, classes, geometry, speed, and that colour alone does not solve them."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from segpatch.data.streets import draw_street
from segpatch.data.streets.canvas import clip_near, locate
from segpatch.data.streets.plan import draw_scene
from segpatch.data.streets.render import render
from segpatch.data.streets.scene import Dice, Item, new_item
from segpatch.types import IGNORE

CLASSES = 19
SKY = 10
Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]

# For numpy 2.4 and Pillow 13: another version may round or rasterise differently; then look, and pin anew.
PINNED = {  # (seed, split, index, height, width): SHA-256 of the image's bytes followed by the labels'
    (0, "train", 0, 256, 512): "137db64e766951105ca8591e9b09919e234e7ef04041277559492252318b6761",
    (7, "val", 3, 128, 256): "5e02e0f032f3b4956ead59062b3c7afd1d8854a2e63b41f2e2a5a9d649f65bde",
    (1, "test", 11, 360, 480): "1a887651bdb540be7e0f75e0eea9ec079f4b170601ebd5a1056bb688d84fc57a",
}


@pytest.fixture(scope="module")
def streets() -> list[Pair]:
    return [draw_street(5, "train", i, 256, 512) for i in range(200)]


@pytest.fixture(scope="module")
def unseen() -> list[Pair]:
    return [draw_street(5, "val", i, 256, 512) for i in range(60)]


def digest(pair: Pair) -> str:
    return hashlib.sha256(pair[0].tobytes() + pair[1].tobytes()).hexdigest()


@pytest.mark.parametrize("size", [(256, 512), (360, 480), (128, 256), (37, 61), (64, 40)])
def test_an_image_and_its_labels_have_the_size_asked_for(size):
    image, labels = draw_street(0, "train", 4, *size)
    assert image.shape == (*size, 3)
    assert labels.shape == size
    assert image.dtype == labels.dtype == np.uint8
    assert image.flags.writeable and labels.flags.writeable
    assert set(np.unique(labels)) <= {*range(CLASSES), IGNORE}


def test_the_largest_size_is_drawn():
    image, labels = draw_street(0, "val", 1, 1024, 2048)
    assert image.shape == (1024, 2048, 3)
    assert labels.shape == (1024, 2048)


@pytest.mark.parametrize("key", PINNED)
def test_the_same_address_gives_the_same_bits(key):
    assert digest(draw_street(*key)) == digest(draw_street(*key)) == PINNED[key]


def test_another_seed_split_or_index_gives_another_street():
    addresses = [(0, "train", 0), (1, "train", 0), (0, "val", 0), (0, "test", 0), (0, "train", 1)]
    assert len({digest(draw_street(*a, 64, 128)) for a in addresses}) == len(addresses)


def test_a_larger_picture_shows_the_same_scene():
    shares = []
    for i in range(12):
        small, large = (draw_street(3, "train", i, h, 2 * h)[1] for h in (128, 256))
        shares.append((small == large[1::2, 1::2]).mean())
    assert np.mean(shares) > 0.9


def test_a_narrower_picture_is_the_middle_of_the_wider_one():
    wide, narrow = (draw_street(3, "train", 5, 256, w)[1] for w in (512, 320))
    assert (wide[:, 96:416] == narrow).mean() > 0.99


def test_every_class_is_common_enough(streets):
    present = np.stack([np.bincount(labels.ravel(), minlength=256)[:CLASSES] > 0 for _, labels in streets])
    assert present.mean(axis=0).min() >= 0.05
    assert present.mean(axis=0)[[3, 4, 6, 12, 14, 15, 16, 17, 18]].min() >= 0.15


def test_every_class_has_pixels_to_learn_from(streets):
    counts = sum(np.bincount(labels.ravel(), minlength=256)[:CLASSES] for _, labels in streets)
    assert (counts / counts.sum()).min() >= 0.002


def test_unlabelled_pixels_are_rare(streets):
    assert 0 < np.mean([(labels == IGNORE).mean() for _, labels in streets]) < 0.03


def test_there_is_no_sky_below_the_horizon():
    for i in range(10):
        scene = draw_scene(np.random.Generator(np.random.PCG64(i)))
        _, labels = render(scene, 128, 256, 0)
        below = int(np.ceil(scene.camera.horizon * 128 + 1))
        assert not (labels[below:] == SKY).any()


def empty_scene(items: tuple[Item, ...]):
    scene = draw_scene(np.random.Generator(np.random.PCG64(1)))
    camera = replace(scene.camera, yaw=0.0, lateral=0.0, bend=0.0)
    return replace(scene, camera=camera, items=items)


def test_the_nearer_of_two_things_hides_the_other():
    d = Dice(np.random.Generator(np.random.PCG64(2)))
    bus, person = new_item(d, "bus", 30.0, 0.0), new_item(d, "person", 12.0, 0.0)
    _, alone = render(empty_scene((person,)), 256, 512, 0)
    for items in ((bus, person), (person, bus)):
        _, labels = render(empty_scene(items), 256, 512, 0)
        assert (labels[alone == 11] == 11).all()
        assert (labels == 15).sum() > 100
    _, labels = render(empty_scene((replace(person, s=60.0), replace(bus, s=15.0))), 256, 512, 0)
    assert not (labels == 11).any()


def test_a_thing_twice_as_far_is_half_as_tall():
    d = Dice(np.random.Generator(np.random.PCG64(2)))
    person = new_item(d, "person", 8.0, 0.0)
    heights = []
    for s in (8.0, 16.0):
        _, labels = render(empty_scene((replace(person, s=s),)), 512, 1024, 0)
        heights.append(np.ptp(np.nonzero((labels == 11).any(axis=1))[0]) + 1)
    assert heights[0] / heights[1] == pytest.approx(2, rel=0.06)


def test_clipping_keeps_what_is_in_front():
    square = [(-1.0, 0.0, -1.0), (-1.0, 0.0, 3.0), (1.0, 0.0, 3.0), (1.0, 0.0, -1.0)]
    assert sorted(clip_near(square)) == [(-1.0, 0.0, 0.5), (-1.0, 0.0, 3.0), (1.0, 0.0, 0.5), (1.0, 0.0, 3.0)]
    assert clip_near([(0.0, 0.0, -1.0), (1.0, 0.0, -1.0), (0.0, 1.0, 0.0)]) == []


def test_a_place_on_a_bent_road_is_beside_its_tangent():
    camera = replace(empty_scene(()).camera, bend=0.01)
    assert locate(camera, 20.0, 1.0).x == pytest.approx(1.0 + 0.01 * 200)


def lookup_miou(train: list[Pair], test: list[Pair], bins: int, rows: int) -> float:
    """The best mIoU of a table from (colour bin, row band) to a class: plain or class-balanced posterior."""

    def codes(image: NDArray[np.uint8]) -> NDArray[np.int64]:
        b = image.astype(np.int64) * bins // 256
        band = np.arange(image.shape[0])[:, None] * rows // image.shape[0]
        return (((b[..., 0] * bins + b[..., 1]) * bins + b[..., 2]) * rows + band).ravel()

    def count(pairs: list[Pair], row_of, size: int) -> NDArray[np.float64]:
        table = np.zeros((size, CLASSES))
        for image, labels in pairs:
            truth = labels.ravel()
            known = truth < CLASSES
            cells = row_of(image, truth)[known] * CLASSES + truth[known]
            table += np.bincount(cells, minlength=size * CLASSES).reshape(size, CLASSES)
        return table

    seen = count(train, lambda image, _: codes(image), bins**3 * rows)
    prior = seen.sum(axis=0) / seen.sum()
    scores = []
    for power in (0.0, 0.5, 1.0):
        answer = ((seen + prior) / prior**power).argmax(axis=1)
        confusion = count(test, lambda image, _, a=answer: a[codes(image)], CLASSES)
        right = np.diag(confusion)
        scores.append(float((right / (confusion.sum(0) + confusion.sum(1) - right)).mean()))
    return max(scores)


def test_colour_alone_does_not_give_the_class(streets, unseen):
    assert lookup_miou(streets, unseen, 16, 1) <= 0.25


def test_colour_and_row_do_not_give_the_class(streets, unseen):
    assert lookup_miou(streets, unseen, 12, 16) <= 0.40


def test_drawing_is_quick_enough_to_train_on():
    draw_street(0, "train", 0, 512, 1024)
    best = []
    for i in range(4):
        times = []
        for _ in range(3):
            start = time.process_time()
            draw_street(0, "train", i, 512, 1024)
            times.append(time.process_time() - start)
        best.append(min(times))
    assert max(best) <= 0.25
