from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from segpatch.clean import CleanPredictions
from segpatch.data import CITYSCAPES
from segpatch.errors import BadInput, SegpatchError
from segpatch.evaluation import ROWS, Picture, Scores, evaluate, evaluate_all, predict
from segpatch.metrics import confusion_matrix
from segpatch.patch import FULL_RANGE, Patch, grey_patch, random_patch, random_pixels
from segpatch.types import IGNORE, Batch, Region
from tiny import conv_victim, in_batches, pictures, plain

PATCH = Patch(random_pixels((4, 6), FULL_RANGE, 0), name="trained")


def test_confusion_does_not_depend_on_the_batches():
    images, victim = pictures(6), conv_victim()
    one = evaluate(victim, in_batches(images, 1), PATCH, place="drawn")
    for size in (2, 4, 6):
        other = evaluate(victim, in_batches(images, size), PATCH, place="drawn")
        assert one.names == other.names
        for which in ROWS:
            assert torch.equal(getattr(one, which), getattr(other, which))


def test_counts_are_those_of_the_predictions():
    images, victim = pictures(2), conv_victim()
    scores = evaluate(victim, in_batches(images, 2), PATCH)
    (batch,) = in_batches(images, 2)
    outside = batch.labels.clone()
    outside[:, 4:8, 5:11] = IGNORE  # a 4x6 patch in the middle of 12x16
    patched = batch.images.clone()
    patched[:, :, 4:8, 5:11] = PATCH.pixels
    assert torch.equal(scores.clean, confusion_matrix(predict(victim, batch.images), batch.labels, 3))
    assert torch.equal(scores.clean_outside, confusion_matrix(predict(victim, batch.images), outside, 3))
    assert torch.equal(scores.patched, confusion_matrix(predict(victim, patched), outside, 3))
    right = torch.where(predict(victim, batch.images) == outside, outside, IGNORE)
    assert torch.equal(scores.of_right, confusion_matrix(predict(victim, patched), right, 3))
    assert scores.clean.sum() == 2 * 12 * 16
    assert scores.clean_outside.sum() == scores.patched.sum() == 2 * (12 * 16 - 4 * 6)


def test_logits_of_other_classes_are_refused():
    victim = replace(conv_victim(), classes=CITYSCAPES)
    with pytest.raises(BadInput, match=r"returned logits of 3 classes, but its class set 'cityscapes' has 19"):
        predict(victim, torch.rand(1, 3, 8, 8))


class Crowded(nn.Module):
    """A convolution that has room for some images at a time."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.convolution, self.room = conv_victim().module, room
        self.given: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.given.append(len(x))
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.convolution(x)


def test_out_of_memory_goes_on_with_less_at_a_time():
    crowded, smaller = Crowded(1), []
    grid = evaluate_all(
        [plain(crowded, "crowded")], in_batches(pictures(), 4), [None, PATCH], on_smaller=smaller.append
    )
    whole = evaluate(conv_victim(), in_batches(pictures(), 4), PATCH)
    assert torch.equal(grid[1][0].patched, whole.patched) and torch.equal(grid[1][0].clean, whole.clean)
    assert smaller == [1]
    assert crowded.given[:3] == [4, 2, 1] and set(crowded.given[3:]) == {1}
    with pytest.raises(SegpatchError, match="out of memory with a single image"):
        evaluate(plain(Crowded(0)), in_batches(pictures(), 4), PATCH)


def test_no_patch_drops_nothing():
    scores = evaluate(conv_victim(), in_batches(pictures(), 2), None)
    assert scores.miou_drop == 0
    assert torch.equal(scores.clean, scores.patched) and torch.equal(scores.clean, scores.clean_outside)
    assert torch.equal(scores.of_right, torch.diag_embed(scores.clean.diagonal(dim1=1, dim2=2)))


def test_all_at_once_is_one_by_one():
    victims = [conv_victim(0), conv_victim(1)]
    patches = [None, PATCH, grey_patch((3, 3))]
    grid = evaluate_all(victims, in_batches(pictures(), 2), patches, place="drawn", seed=3)
    for row, patch in zip(grid, patches, strict=True):
        for scores, victim in zip(row, victims, strict=True):
            alone = evaluate(victim, in_batches(pictures(), 5), patch, place="drawn", seed=3)
            assert torch.equal(scores.patched, alone.patched) and torch.equal(scores.clean, alone.clean)


def test_each_patch_may_have_a_place_of_its_own():
    def left(image: tuple[int, int], patch: tuple[int, int]) -> Region:
        return Region(0, 1, *patch)

    patches = [None, PATCH, grey_patch((4, 6)), PATCH, PATCH]
    places = ["centre", left, left, "centre", "drawn"]
    together = evaluate_all([conv_victim()], in_batches(pictures(), 2), patches, place=places, seed=3)
    for (scores,), patch, place in zip(together, patches, places, strict=True):
        ((alone,),) = evaluate_all([conv_victim()], in_batches(pictures(), 2), [patch], place=place, seed=3)
        for which in ROWS:
            assert torch.equal(getattr(scores, which), getattr(alone, which))


def test_clean_predictions_are_remembered_and_the_same():
    counting = Crowded(9)
    victims = [plain(counting, "a"), conv_victim(1, name="b")]
    alone = evaluate_all(victims, in_batches(pictures(), 2), [PATCH])
    for budget, made in (
        (1 << 20, 3),
        (2 * 12 * 16, 5),
    ):  # of three batches: all kept, or the first of one network
        kept = CleanPredictions(budget)
        for patch in (grey_patch((3, 3)), PATCH):
            counting.given.clear()
            again = evaluate_all(victims, in_batches(pictures(), 2), [patch], remembered=kept)
        assert len(counting.given) == made
        for ours, theirs in zip(again[0], alone[0], strict=True):
            assert all(torch.equal(getattr(ours, which), getattr(theirs, which)) for which in ROWS)


def regions_of(patches: list[Patch], seed: int) -> dict[str, list]:
    shown: dict[str, list] = {}
    names = frozenset(f"picture{i}" for i in range(5))

    def keep(picture: Picture) -> None:
        shown.setdefault(picture.patch, []).append(picture.region)

    batches = in_batches(pictures(), 2)
    evaluate_all([conv_victim()], batches, patches, place="drawn", seed=seed, on_picture=keep, pictures=names)
    return shown


def test_patches_of_one_size_lie_at_the_same_drawn_places():
    same = [PATCH, random_patch((4, 6), FULL_RANGE, 1)]
    first = regions_of(same, seed=0)
    assert first["trained"] == first["random/full/s1"] == regions_of(same, seed=0)["trained"]
    assert len(set(first["trained"])) > 1
    assert first["trained"] != regions_of(same, seed=1)["trained"]


def test_only_named_images_are_shown():
    seen: list[Picture] = []
    batches = in_batches(pictures(), 2)
    victims = [conv_victim(0, name="a"), conv_victim(1, name="b")]
    evaluate_all(victims, batches, [None, PATCH], on_picture=seen.append, pictures=frozenset({"picture3"}))
    assert [(p.image, p.patch, p.victim) for p in seen] == [("picture3", "trained", n) for n in ("a", "b")]
    assert seen[0].region == (4, 5, 4, 6)
    assert torch.equal(seen[0].labels, pictures()[3][1])
    assert torch.equal(seen[0].clean, predict(victims[0], batches[1].images)[1])
    assert seen[0].patched.shape == (12, 16) and not torch.equal(seen[0].patched, seen[0].clean)


def test_progress_counts_images():
    done: list[int] = []
    evaluate(conv_victim(), in_batches(pictures(), 2), None, on_image=done.append)
    assert done == [2, 4, 5]


def test_labels_beyond_the_classes_are_refused():
    images, labels = pictures(1)[0]
    labels = labels.clone()
    labels[0, 0], labels[0, 1] = 3, IGNORE
    with pytest.raises(BadInput, match=r"conv predicts 3 classes, but a label of picture0 .* is 3"):
        evaluate(conv_victim(), in_batches([(images, labels)], 1), None)


@pytest.mark.parametrize(
    ("batches", "patch", "place", "message"),
    [
        ([], None, "centre", "no image to measure"),
        (in_batches(pictures(1), 1), grey_patch((13, 2)), "centre", "13x2 patch does not fit images of 12x16"),
        (in_batches(pictures(1), 1), grey_patch((2, 17)), "drawn", "2x17 patch does not fit images of 12x16"),
        (in_batches(pictures(1), 1), None, "middle", "place must be one of centre, drawn"),
    ],
)
def test_what_cannot_be_measured_is_refused(batches: list[Batch], patch: Patch | None, place: str, message: str):
    with pytest.raises(BadInput, match=message):
        evaluate(conv_victim(), batches, patch, place=place)


def test_scores_by_hand():
    # Truth in rows: two images of 10 pixels; class 2 never occurs.
    clean = torch.tensor([[[6, 0, 0], [0, 4, 0], [0, 0, 0]], [[5, 1, 0], [0, 4, 0], [0, 0, 0]]])
    outside = torch.tensor([[[4, 0, 0], [0, 4, 0], [0, 0, 0]], [[4, 0, 0], [0, 4, 0], [0, 0, 0]]])
    patched = torch.tensor([[[2, 2, 0], [0, 4, 0], [0, 0, 0]], [[2, 2, 0], [0, 4, 0], [0, 0, 0]]])
    scores = Scores(("a", "b"), clean.int(), outside.int(), patched.int())
    assert scores.miou_clean == pytest.approx((11 / 12 + 8 / 9) / 2)
    assert scores.miou_clean_outside == 1
    assert scores.confusion.tolist() == [[4, 4, 0], [0, 8, 0], [0, 0, 0]]
    assert scores.iou[:2] == pytest.approx([4 / 8, 8 / 12]) and math.isnan(scores.iou[2])
    assert scores.miou == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert scores.miou_drop == pytest.approx(1 - 7 / 12)
    assert scores.pixel_accuracy == 12 / 16


def test_bfloat16_predicts():
    batch = in_batches(pictures(), 5)[0]
    agree = predict(conv_victim(), batch.images, "bf16") == predict(conv_victim(), batch.images)
    assert 0.9 < agree.float().mean() <= 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_refused(value: float):
    victim = conv_victim()
    victim.module.weight.data[1, 0, 1, 1] = value
    with pytest.raises(SegpatchError, match="conv returned logits that are not finite"):
        evaluate(victim, in_batches(pictures(), 2), PATCH)


def test_a_negative_label_is_refused():
    batch = in_batches(pictures(), 2)[0]
    batch.labels[0, 0, 0] = -1
    with pytest.raises(BadInput, match="is -1; give a class map"):
        evaluate(conv_victim(), [batch], PATCH)
