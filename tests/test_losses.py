import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from reference import LAW, cross_entropy_loop
from segpatch.losses import LOSSES, correct_pixel_loss, cross_entropy_loss
from segpatch.types import IGNORE

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(3, 4, 5, 6, generator=GENERATOR, dtype=torch.float64)
LABELS = torch.randint(4, (3, 5, 6), generator=GENERATOR)
LABELS[0, :2] = IGNORE
EITHER = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def four_pixels():
    """Two classes; the pixels are right, wrong, without truth, and right by a wide margin."""
    logits = torch.tensor([[[[1.0, 1.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 3.0]]]]).requires_grad_()
    return logits, torch.tensor([[[0, 1], [IGNORE, 1]]])


def test_correct_pixel_loss_by_hand():
    logits, labels = four_pixels()
    total, count = correct_pixel_loss(logits, labels)
    assert float(total.detach()) == pytest.approx(math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-3)))
    assert int(count) == 2
    (gradient,) = torch.autograd.grad(total, logits)
    wrong = 1 / (1 + math.e)  # the probability of the wrong class at the first pixel
    assert gradient[0, :, 0, 0].tolist() == pytest.approx([-wrong, wrong])
    assert bool((gradient[0, :, 0, 1] == 0).all()), "a pixel that is wrong already pushes no more"
    assert bool((gradient[0, :, 1, 0] == 0).all()), "a pixel without truth pushes nothing"


def test_cross_entropy_loss_by_hand():
    logits, labels = four_pixels()
    total, count = cross_entropy_loss(logits, labels)
    of_wrong = math.log(1 + math.e)
    of_right = math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-3))
    assert float(total.detach()) == pytest.approx(of_right + of_wrong)
    assert int(count) == 3
    (gradient,) = torch.autograd.grad(total, logits)
    assert bool((gradient[0, :, 0, 1] != 0).all())


@EITHER
def test_losses_are_the_loop(loss):
    total, count = loss(LOGITS, LABELS)
    wanted, number = cross_entropy_loop(LOGITS, LABELS, only_right=loss is correct_pixel_loss)
    assert float(total.detach()) == pytest.approx(wanted, rel=1e-12)
    assert int(count) == number
    assert total.ndim == count.ndim == 0


@EITHER
def test_gradients(loss):
    logits = LOGITS[:, :, :2, :3].clone()
    two_best = logits.topk(2, dim=1).values
    assert float((two_best[:, 0] - two_best[:, 1]).min()) > 1e-3, "away from ties, where the set of pixels jumps"
    assert torch.autograd.gradcheck(lambda x: loss(x, LABELS[:, 2:4, :3])[0], logits.requires_grad_())


@EITHER
@LAW
@given(cut=st.integers(1, 2), row=st.integers(1, 4))
def test_totals_and_counts_add_up_over_any_split(loss, cut, row):
    whole = loss(LOGITS, LABELS)
    parts = [
        loss(LOGITS[images, :, rows], LABELS[images, rows])
        for images in (slice(cut), slice(cut, None))
        for rows in (slice(row), slice(row, None))
    ]
    for of_whole, of_parts in zip(whole, zip(*parts, strict=True), strict=True):
        assert_close(sum(of_parts), of_whole)


def test_no_right_pixel_gives_zero_and_zero_gradient():
    logits = (LOGITS * 30).requires_grad_()
    labels = LOGITS.argmin(1)
    total, count = correct_pixel_loss(logits, labels)
    assert (float(total.detach()), int(count)) == (0, 0)
    (gradient,) = torch.autograd.grad(total, logits)
    assert bool((gradient == 0).all())


@EITHER
def test_no_truth_gives_zero_and_zero_gradient(loss):
    logits = LOGITS.clone().requires_grad_()
    total, count = loss(logits, torch.full_like(LABELS, IGNORE))
    assert (float(total.detach()), int(count)) == (0, 0)
    (gradient,) = torch.autograd.grad(total, logits)
    assert bool((gradient == 0).all())


def test_only_right_pixels_have_a_gradient():
    logits = LOGITS.clone().requires_grad_()
    total, count = correct_pixel_loss(logits, LABELS)
    (gradient,) = torch.autograd.grad(total, logits)
    right = LOGITS.argmax(1) == LABELS
    assert torch.equal((gradient != 0).any(1), right)
    assert int(count) == int(right.sum()) > 0


def test_once_all_pixels_are_right_both_losses_agree():
    labels = LOGITS.argmax(1)
    assert_close(correct_pixel_loss(LOGITS, labels), cross_entropy_loss(LOGITS, labels))
