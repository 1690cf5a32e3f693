import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from reference import LAW, loss_loop
from segpatch.losses import LOSSES, Pixels, from_clean, unit
from segpatch.types import IGNORE

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(3, 4, 5, 6, generator=GENERATOR, dtype=torch.float64)
LABELS = torch.randint(4, (3, 5, 6), generator=GENERATOR)
LABELS[0, :2] = IGNORE
CLEAN = torch.where(torch.rand(3, 5, 6, generator=GENERATOR) < 0.7, LABELS, 0)
"""Predictions without the patch, most of them right."""
MIXED = [name for name, loss in LOSSES.items() if loss.mix]
EVERY = pytest.mark.parametrize("name", LOSSES)
PROGRESS = 0.6

correct_pixel, cross_entropy = LOSSES["correct-pixel"], LOSSES["cross-entropy"]


def of(name, logits, labels, clean=CLEAN):
    """(total, count) of a loss three fifths of the way through an attack."""
    return LOSSES[name](logits, labels, PROGRESS, clean[..., : labels.shape[1], : labels.shape[2]])


def four_pixels():
    """Two classes; the pixels are right, wrong, without truth, and right by a wide margin."""
    logits = torch.tensor([[[[1.0, 1.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 3.0]]]]).requires_grad_()
    return logits, torch.tensor([[[0, 1], [IGNORE, 1]]])


def divergence(p, true):
    """The Jensen-Shannon divergence of p and the one-hot truth, by its definition."""
    hot = [float(k == true) for k in range(len(p))]
    middle = [(a + b) / 2 for a, b in zip(p, hot, strict=True)]
    terms = [a * math.log(a / m) for part in (p, hot) for a, m in zip(part, middle, strict=True) if a > 0]
    return sum(terms) / 2


def pixel_losses(share_right):
    """The loss of a pixel by its definition, from (probabilities, true class, right)."""
    gammas = {f"gamma-{g}": g for g in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)} | {"gamma-dynamic": share_right}
    gammas |= {f"{name}-normalised": gamma for name, gamma in gammas.items()} | {"segpgd": 1 - PROGRESS / 2}

    def mixed(gamma):
        return lambda p, true, right: -math.log(p[true]) * (gamma if right else 1 - gamma)

    only_right = mixed(1)
    return {name: mixed(gamma) for name, gamma in gammas.items()} | {
        "correct-pixel": only_right,
        "correct-pixel-fixed": only_right,
        "correct-pixel-clean": lambda p, true, right: -math.log(p[true]),
        "correct-pixel-clean-fixed": lambda p, true, right: -math.log(p[true]),
        "cross-entropy": lambda p, true, right: -math.log(p[true]),
        "cospgd": lambda p, true, right: -math.log(p[true]) * p[true] / math.hypot(*p),
        "jensen-shannon": lambda p, true, right: divergence(p, true),
    }


def test_the_published_loss_by_hand():
    logits, labels = four_pixels()
    total, count = correct_pixel(logits, labels)
    assert float(total.detach()) == pytest.approx(math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-3)))
    assert int(count) == 2
    (gradient,) = torch.autograd.grad(total, logits)
    wrong = 1 / (1 + math.e)  # the probability of the wrong class at the first pixel
    assert gradient[0, :, 0, 0].tolist() == pytest.approx([-wrong, wrong])
    assert bool((gradient[0, :, 0, 1] == 0).all()), "a pixel that is wrong already pushes no more"
    assert bool((gradient[0, :, 1, 0] == 0).all()), "a pixel without truth pushes nothing"


def test_cross_entropy_by_hand():
    logits, labels = four_pixels()
    total, count = cross_entropy(logits, labels)
    of_wrong = math.log(1 + math.e)
    of_right = math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-3))
    assert float(total.detach()) == pytest.approx(of_right + of_wrong)
    assert int(count) == 3
    (gradient,) = torch.autograd.grad(total, logits)
    assert bool((gradient[0, :, 0, 1] != 0).all())


@EVERY
def test_losses_are_the_loop(name):
    loss = LOSSES[name]
    labels = from_clean(LABELS, CLEAN) if loss.seen == "clean" else LABELS
    share = int((LOGITS.argmax(1) == labels).sum()) / int((labels != IGNORE).sum())
    wanted, number = loss_loop(LOGITS, labels, pixel_losses(share)[name], only_right=loss.over == "right")
    total, count = of(name, LOGITS, LABELS)
    assert float(total) == pytest.approx(wanted, rel=1e-12)
    assert int(count) == (int((LABELS != IGNORE).sum()) if loss.over == "all" else number)
    assert total.ndim == count.ndim == 0


@EVERY
def test_gradients(name):
    logits, labels = LOGITS[:, :, :2, :3].clone(), LABELS[:, 2:4, :3]
    two_best = logits.topk(2, dim=1).values
    assert float((two_best[:, 0] - two_best[:, 1]).min()) > 1e-3, "away from ties, where the set of pixels jumps"
    if name != "cospgd":  # its weight is without gradient, so that a finite difference is another thing
        assert torch.autograd.gradcheck(lambda x: of(name, x, labels)[0], logits.requires_grad_())
        return
    total, _ = of(name, logits.requires_grad_(), labels)
    weight = (logits.softmax(1) / logits.softmax(1).norm(dim=1, keepdim=True)).detach()
    index = torch.where(labels == IGNORE, 0, labels)[:, None]
    plain = (-logits.log_softmax(1) * weight).gather(1, index)[:, 0][labels != IGNORE].sum()
    assert_close(torch.autograd.grad(total, logits), torch.autograd.grad(plain, logits))


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in MIXED])
def test_the_slope_is_the_derivative_by_the_cross_entropy(name):
    cross_entropy = torch.tensor([1e-9, 0.3, 1.0, 4.0, 40.0], dtype=torch.float64, requires_grad=True)
    right, labelled = torch.tensor([1.0, 1, 0, 0, 0], dtype=torch.float64), torch.ones(5, dtype=torch.float64)
    loss = LOSSES[name].rule(Pixels(right, labelled, cross_entropy, lambda: torch.full((5,), 0.8)), PROGRESS)
    (derivative,) = torch.autograd.grad(loss.value.sum(), cross_entropy)
    assert_close(loss.slope.detach(), derivative)


@pytest.mark.parametrize(
    "name", [name for name in LOSSES if not (LOSSES[name].mix and LOSSES[name].mix.gamma is None)]
)
@LAW
@given(cut=st.integers(1, 2), row=st.integers(1, 4))
def test_totals_and_counts_add_up_over_any_split(name, cut, row):
    whole = of(name, LOGITS, LABELS)
    parts = [
        LOSSES[name](LOGITS[images, :, rows], LABELS[images, rows], PROGRESS, CLEAN[images, rows])
        for images in (slice(cut), slice(cut, None))
        for rows in (slice(row), slice(row, None))
    ]
    for of_whole, of_parts in zip(whole, zip(*parts, strict=True), strict=True):
        assert_close(sum(of_parts), of_whole)


def test_no_right_pixel_gives_zero_and_zero_gradient():
    logits = (LOGITS * 30).requires_grad_()
    labels = LOGITS.argmin(1)
    total, count = correct_pixel(logits, labels)
    assert (float(total.detach()), int(count)) == (0, 0)
    (gradient,) = torch.autograd.grad(total, logits)
    assert bool((gradient == 0).all())


@EVERY
def test_no_truth_gives_zero_and_zero_gradient(name):
    logits = LOGITS.clone().requires_grad_()
    total, count = of(name, logits, torch.full_like(LABELS, IGNORE))
    assert (float(total.detach()), int(count)) == (0, 0)
    (gradient,) = torch.autograd.grad(total, logits)
    assert bool((gradient == 0).all())


def test_only_right_pixels_have_a_gradient():
    logits = LOGITS.clone().requires_grad_()
    total, count = correct_pixel(logits, LABELS)
    (gradient,) = torch.autograd.grad(total, logits)
    right = LOGITS.argmax(1) == LABELS
    assert torch.equal((gradient != 0).any(1), right)
    assert int(count) == int(right.sum()) > 0


def test_once_all_pixels_are_right_most_losses_agree():
    labels = LOGITS.argmax(1)
    wanted = cross_entropy(LOGITS, labels)
    for name in ("correct-pixel", "correct-pixel-fixed", "gamma-1.0", "gamma-dynamic"):
        assert_close(LOSSES[name](LOGITS, labels), wanted)
    for name in ("correct-pixel-clean", "correct-pixel-clean-fixed"):
        assert_close(LOSSES[name](LOGITS, labels, clean=labels), wanted)


def test_the_clean_set_over_a_fixed_number_by_hand():
    """Of three labelled pixels the first and the third are right without the patch, whatever they are with it."""
    logits, labels = four_pixels()
    clean = torch.tensor([[[0, 0], [0, 1]]])
    total, count = LOSSES["correct-pixel-clean-fixed"](logits, labels, clean=clean)
    assert float(total.detach()) == pytest.approx(math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-3)))
    assert int(count) == 3
    mean_total, right = LOSSES["correct-pixel-clean"](logits, labels, clean=clean)
    assert torch.equal(mean_total, total) and int(right) == 2


def test_relations_between_losses():
    """gamma 1 is the published loss but for what its mean is over, gamma 0.5 half the cross-entropy; SegPGD goes
    from the one to the other."""
    total, _ = cross_entropy(LOGITS, LABELS)
    right, _ = correct_pixel(LOGITS, LABELS)
    assert_close(LOSSES["gamma-1.0"](LOGITS, LABELS)[0], right)
    assert_close(LOSSES["gamma-0.5"](LOGITS, LABELS)[0], total / 2)
    assert_close(LOSSES["segpgd"](LOGITS, LABELS, 0.0)[0], right)
    assert_close(LOSSES["segpgd"](LOGITS, LABELS, 1.0)[0], total / 2)


def test_directions_of_mixed_gradients():
    right, wrong = torch.tensor([3.0, 0.0]).view(2, 1, 1), torch.tensor([0.0, 5.0]).view(2, 1, 1)
    gradients, counts = torch.stack([right, wrong]), (torch.tensor(6.0), torch.tensor(8.0))
    assert_close(LOSSES["gamma-dynamic"].direction(gradients, *counts), (0.75 * right + 0.25 * wrong) / 8)
    mixed = LOSSES["gamma-0.8-normalised"].direction(gradients, *counts)
    assert mixed.flatten().tolist() == pytest.approx([0.8 / math.hypot(0.8, 0.2), 0.2 / math.hypot(0.8, 0.2)])
    dynamic = LOSSES["gamma-dynamic-normalised"].direction(gradients, *counts)
    assert dynamic.flatten().tolist() == pytest.approx(
        [0.75 / math.hypot(0.75, 0.25), 0.25 / math.hypot(0.75, 0.25)]
    )
    one = LOSSES["correct-pixel"].direction(gradients[:1], *counts)
    fixed = LOSSES["correct-pixel-fixed"].direction(gradients[:1], *counts)
    assert_close(one, right / 6)
    assert_close(fixed, right / 8)
    assert torch.equal(one.sign(), fixed.sign()), "a sign step cannot tell the two means apart"


def test_nothing_has_no_direction():
    assert not unit(torch.zeros(3, 2, 2)).any()
    for name in MIXED:
        none = LOSSES[name].direction(torch.zeros(2, 3, 2, 2), torch.tensor(0.0), torch.tensor(0.0))
        assert not none.any()


def test_the_divergence_is_bounded_and_sure_errors_push_no_more():
    logits = torch.tensor([[[[30.0]], [[0.0]]]], dtype=torch.float64).requires_grad_()
    total, _ = LOSSES["jensen-shannon"](logits, torch.tensor([[[1]]]))
    assert float(total.detach()) == pytest.approx(math.log(2), abs=1e-10)
    assert float(torch.autograd.grad(total, logits)[0].abs().max()) < 1e-10
