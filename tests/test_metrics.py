import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

from reference import LAW, confusion_loop, iou_loop, miou_loop
from segpatch.errors import BadInput
from segpatch.metrics import confusion_matrices, confusion_matrix, iou_per_class, miou, pixel_accuracy
from segpatch.types import IGNORE

K = 5
GENERATOR = torch.Generator().manual_seed(0)
LABELS = torch.randint(4, (4, 6, 7), generator=GENERATOR)  # class 4 never occurs
RIGHT = torch.rand(LABELS.shape, generator=GENERATOR) < 0.6
GUESSES = torch.where(RIGHT, LABELS, torch.randint(4, LABELS.shape, generator=GENERATOR))
LABELS[:, :, 0] = IGNORE
LABELS[2] = IGNORE


def test_one_image_of_four_pixels_by_hand():
    labels, guesses = torch.tensor([[[0, 0], [1, IGNORE]]]), torch.tensor([[[0, 1], [1, 2]]])
    confusion = confusion_matrix(guesses, labels, 3)
    assert confusion.tolist() == [[[1, 1, 0], [0, 1, 0], [0, 0, 0]]]
    assert confusion.dtype == torch.int32
    iou = iou_per_class(confusion[0]).tolist()
    assert iou[:2] == [0.5, 0.5]
    assert math.isnan(iou[2])
    assert float(miou(confusion[0])) == 0.5
    assert float(pixel_accuracy(confusion[0])) == pytest.approx(2 / 3)


def test_everything_is_the_loop():
    confusion = confusion_matrix(GUESSES, LABELS, K)
    assert torch.equal(confusion, confusion_loop(GUESSES, LABELS, K))
    total = confusion.sum(0)
    assert iou_per_class(total).tolist() == pytest.approx(iou_loop(total), nan_ok=True)
    assert float(miou(total)) == pytest.approx(miou_loop(total))


def test_everything_is_torchmetrics():
    total = confusion_matrix(GUESSES, LABELS, K).sum(0)
    assert torch.equal(total.long(), MulticlassConfusionMatrix(K, ignore_index=IGNORE)(GUESSES, LABELS))
    jaccard = MulticlassJaccardIndex(K, average="none", ignore_index=IGNORE)(GUESSES, LABELS)
    assert_close(iou_per_class(total)[:4].float(), jaccard[:4])
    mean = MulticlassJaccardIndex(K, average="macro", ignore_index=IGNORE)(GUESSES, LABELS)
    assert_close(miou(total).float(), mean)


def test_where_right_pixels_go_by_hand():
    labels = torch.tensor([[[0, 0, 0], [1, IGNORE, 1]]])
    before = torch.tensor([[[0, 0, 2], [1, 1, 0]]])
    after = torch.tensor([[[0, 1, 1], [2, 1, 1]]])
    whole, of_right = confusion_matrices(after, before, labels, 3)
    assert whole.tolist() == [[[1, 2, 0], [0, 1, 1], [0, 0, 0]]]
    assert of_right.tolist() == [[[1, 1, 0], [0, 0, 1], [0, 0, 0]]]
    assert whole.dtype == of_right.dtype == torch.int32


@pytest.mark.parametrize("kind", [torch.uint8, torch.int32, torch.int64])
def test_where_right_pixels_go_is_the_loop(kind: torch.dtype):
    after = GUESSES.roll(1, 2).to(kind)
    before, labels = GUESSES.to(kind), LABELS.to(kind)
    whole, of_right = confusion_matrices(after, before, labels, K)
    assert torch.equal(labels, LABELS.to(kind)), "what is given stays as it is"
    assert torch.equal(whole, confusion_matrix(after, labels, K))
    right = torch.where(GUESSES == LABELS, LABELS, IGNORE)
    assert torch.equal(of_right, confusion_loop(after, right, K)) and of_right.any()
    clean = confusion_matrix(before, labels, K)
    assert torch.equal(of_right.sum(2), clean.diagonal(dim1=1, dim2=2)), "a row holds what was right"
    assert (of_right.diagonal(dim1=1, dim2=2) <= of_right.sum(2)).all() and (of_right <= whole).all()
    with pytest.raises(BadInput, match="below 3"):
        confusion_matrices(after, before, labels, 3)


def test_labels_and_guesses_may_be_bytes():
    as_bytes = confusion_matrix(GUESSES.byte(), LABELS.byte(), K)
    assert torch.equal(as_bytes, confusion_matrix(GUESSES, LABELS, K))


@pytest.mark.parametrize("guessed", [0, 2])
def test_a_class_without_truth_is_nan_and_out_of_the_mean_but_a_missed_one_is_zero(guessed):
    confusion = torch.tensor([[6, guessed, 2], [0, 0, 0], [4, 0, 0]])
    iou = iou_per_class(confusion)
    assert math.isnan(iou[1])
    assert float(iou[2]) == 0
    assert float(miou(confusion)) == pytest.approx((6 / (12 + guessed) + 0) / 2)


def test_without_truth_there_is_no_score():
    nothing = confusion_matrix(GUESSES, LABELS, K)[2]
    assert int(nothing.sum()) == 0
    assert math.isnan(miou(nothing))
    assert math.isnan(pixel_accuracy(nothing))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_batches_do_not_matter(size):
    parts = [confusion_matrix(g, t, K) for g, t in zip(GUESSES.split(size), LABELS.split(size), strict=True)]
    assert torch.equal(torch.cat(parts), confusion_matrix(GUESSES, LABELS, K))


def test_many_matrices_at_once_are_each_on_its_own():
    confusion = confusion_matrix(GUESSES, LABELS, K)
    for score in (iou_per_class, miou, pixel_accuracy):
        one_by_one = torch.stack([score(matrix) for matrix in confusion])
        assert_close(score(confusion), one_by_one, rtol=0, atol=0, equal_nan=True)


@LAW
@given(st.permutations(range(K)))
def test_names_of_classes_do_not_matter(order):
    table = torch.tensor([*order, *[IGNORE] * (IGNORE + 1 - K)])
    renamed = confusion_matrix(table[GUESSES], table[LABELS], K).sum(0)
    plain = confusion_matrix(GUESSES, LABELS, K).sum(0)
    assert_close(iou_per_class(renamed)[torch.tensor(order)], iou_per_class(plain), equal_nan=True)
    assert_close(miou(renamed), miou(plain))
    assert torch.equal(pixel_accuracy(renamed), pixel_accuracy(plain))


def test_perfect_and_useless_predictions():
    right = confusion_matrix(LABELS.clamp(max=K - 1), LABELS, K).sum(0)
    assert float(miou(right)) == float(pixel_accuracy(right)) == 1
    wrong = confusion_matrix((LABELS + 1) % K, LABELS, K).sum(0)
    assert float(miou(wrong)) == float(pixel_accuracy(wrong)) == 0


def test_a_label_that_is_no_class_is_refused():
    labels = torch.tensor([[[0, 4], [1, IGNORE]]])
    assert confusion_matrix(torch.zeros_like(labels), labels, 5).sum() == 3
    with pytest.raises(BadInput, match=r"no truth\); got 4"):
        confusion_matrix(torch.zeros_like(labels), labels, 4)
    for wrong in (-1, 300):
        with pytest.raises(BadInput, match=f"got {wrong}"):
            confusion_matrix(torch.zeros_like(labels), torch.where(labels == 4, wrong, labels), 5)
