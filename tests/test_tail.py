import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from segpatch import tail
from segpatch.losses import LOSSES, merge_logits
from segpatch.tail import resized_loss, resized_prediction
from segpatch.types import IGNORE

SIZES = [
    ((5, 7), (40, 56), (40, 56)),
    ((5, 7), (40, 56), (37, 51)),
    ((33, 17), (260, 131), (259, 131)),
    ((9, 33), (72, 264), (72, 264)),
    ((6, 4), (6, 4), (6, 3)),
]
CORNERS = pytest.mark.parametrize("align_corners", [False, True])
MERGE = torch.tensor([0, 1, 1, 2, 0])


@pytest.fixture(params=[1, 3], autouse=True)
def threads(request):
    """Each of these tests in one piece an image, and in pieces side by side."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def draw(raw, shape, classes=5, labels=5, batch=2):
    rng = torch.Generator().manual_seed(sum(raw) + sum(shape))
    truth = torch.randint(labels, (batch, *shape), generator=rng)
    truth[:, : shape[0] // 4] = IGNORE
    return torch.randn(batch, classes, *raw, generator=rng) * 2, truth


def plain(raw, truth, loss, size, align_corners, merge=None):
    """The same, written out: resize, cut, merge, loss."""
    full = F.interpolate(raw, size, mode="bilinear", align_corners=align_corners)
    logits = full[..., : truth.shape[1], : truth.shape[2]]
    if merge is not None:
        logits = merge_logits(logits, merge)
    total, count = LOSSES[loss](logits, truth, 0.25)
    return total, count, logits.argmax(1)


RULES = [name for name, loss in LOSSES.items() if loss.seen == "patched" and loss.mix is None]
"""The losses that are one rule for pixels; the rest are made of these (tests/test_attack_step.py)."""


def fast(name):
    """The loss of pixels that a step gives to the tail, a quarter of the way through an attack."""
    return lambda pixels: LOSSES[name].rule(pixels, 0.25)


@CORNERS
@pytest.mark.parametrize("loss", RULES)
@pytest.mark.parametrize(("raw", "size", "shape"), SIZES)
@pytest.mark.parametrize("merge", [None, MERGE])
def test_loss_gradient_and_counts_are_those_of_the_plain_path(raw, size, shape, loss, merge, align_corners):
    logits, truth = draw(raw, shape, labels=5 if merge is None else 3)
    logits.requires_grad_()
    total, count, predicted = plain(logits, truth, loss, size, align_corners, merge)
    (gradient,) = torch.autograd.grad(total, logits)
    sums = resized_loss(logits, truth, fast(loss), size=size, align_corners=align_corners, merge=merge)
    (ours,) = torch.autograd.grad(sums.total, logits)
    assert_close(sums.total, total.detach(), rtol=1e-5, atol=0)
    assert float((ours - gradient).norm() / gradient.norm()) < 1e-5
    assert int(sums.right if LOSSES[loss].over == "right" else sums.labelled) == int(count)
    assert int(sums.right) == int((predicted == truth).sum())
    assert int(sums.labelled) == int((truth != IGNORE).sum())


@CORNERS
@pytest.mark.parametrize("merge", [None, MERGE])
def test_gradcheck(merge, align_corners):
    logits, truth = draw((3, 4), (17, 23), labels=3)
    logits = logits.double().requires_grad_()

    def total(x):
        loss = fast("jensen-shannon")
        return resized_loss(x, truth, loss, size=(24, 32), align_corners=align_corners, merge=merge).total

    assert torch.autograd.gradcheck(total, logits)


@CORNERS
@pytest.mark.parametrize("merge", [None, MERGE])
def test_predictions_are_those_of_the_plain_path(merge, align_corners):
    for raw, size, shape in SIZES:
        logits, truth = draw(raw, shape, labels=3)
        logits = logits.double()  # in single precision, rounding decides at the borders
        wanted = plain(logits, truth, "cross-entropy", size, align_corners, merge)[2]
        ours = resized_prediction(logits, shape, size=size, align_corners=align_corners, merge=merge)
        assert ours.dtype == torch.uint8
        assert torch.equal(ours.long(), wanted)


def test_nothing_right_gives_nothing():
    logits = torch.zeros(1, 3, 2, 2)
    logits[:, 0] = 9
    logits.requires_grad_()
    truth = torch.ones(1, 4, 4, dtype=torch.long)
    sums = resized_loss(logits, truth, fast("correct-pixel"), size=(4, 4), align_corners=False)
    (gradient,) = torch.autograd.grad(sums.total, logits)
    assert float(sums.total.detach()) == float(sums.right) == 0
    assert not gradient.any()


def test_all_ignored_gives_nothing():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    truth = torch.full((1, 4, 4), IGNORE)
    for name in RULES:
        sums = resized_loss(logits, truth, fast(name), size=(4, 4), align_corners=False)
        assert float(sums.total.detach()) == float(sums.labelled) == 0
        assert not torch.autograd.grad(sums.total, logits)[0].any()


def test_large_logits_do_not_overflow_and_half_precision_is_summed_in_single():
    logits = torch.tensor([[[[400.0]], [[-400.0]], [[0.0]]]]).bfloat16().requires_grad_()
    truth = torch.ones(1, 8, 8, dtype=torch.long)
    sums = resized_loss(logits, truth, fast("cross-entropy"), size=(8, 8), align_corners=False)
    assert sums.total.dtype == torch.float32
    assert float(sums.total.detach()) == 64 * 800
    (gradient,) = torch.autograd.grad(sums.total, logits)
    assert gradient.dtype == torch.bfloat16
    assert gradient.flatten().tolist() == pytest.approx([64, -64, 0], abs=1e-30)


def test_of_equal_logits_the_first_class_is_predicted():
    logits = torch.zeros(1, 4, 2, 2)
    logits[:, 0] = -1
    assert resized_prediction(logits, (4, 4), size=(4, 4), align_corners=False).unique().tolist() == [1]
    truth = torch.full((1, 4, 4), 2)
    sums = resized_loss(logits, truth, fast("correct-pixel"), size=(4, 4), align_corners=False)
    assert int(sums.right) == 0 == float(sums.total.detach())


@pytest.mark.parametrize("spread", [4, 40, 400])
def test_ties_and_far_logits_are_those_of_the_plain_path(spread):
    logits, truth = draw((5, 7), (37, 51))
    logits = logits.round() * spread  # many classes tie; neighbours are as far apart as logits come
    logits[:, 3] = logits[:, 1]
    logits.requires_grad_()
    for loss in ("correct-pixel", "cross-entropy", "cospgd", "jensen-shannon"):
        total, _, predicted = plain(logits, truth, loss, (40, 56), False)
        (gradient,) = torch.autograd.grad(total, logits)
        sums = resized_loss(logits, truth, fast(loss), size=(40, 56), align_corners=False)
        (ours,) = torch.autograd.grad(sums.total, logits)
        # A pixel whose highest two are a rounding apart may go either way.
        assert abs(int(sums.right) - int((predicted == truth).sum())) <= 2
        assert_close(sums.total, total.detach(), rtol=1e-5, atol=1e-5)
        assert float((ours - gradient).norm() / gradient.norm()) < 1e-5


def test_labels_cut_from_larger_ones_and_logits_that_carry_a_gradient():
    logits, truth = draw((9, 33), (72, 264), labels=5)
    whole = torch.full((2, 100, 300), IGNORE)
    whole[:, :72, :264] = truth
    logits.requires_grad_()
    how = {"size": (72, 264), "align_corners": False}
    loss = fast("cross-entropy")
    assert resized_loss(logits, whole[:, :72, :264], loss, **how) == resized_loss(logits, truth, loss, **how)
    predicted = resized_prediction(logits, (72, 264), **how)
    assert torch.equal(predicted, resized_prediction(logits.detach(), (72, 264), **how))


def test_many_classes_and_one():
    for classes in (1, 2, 150):
        logits, truth = draw((9, 33), (72, 264), classes=classes, labels=classes)
        logits.requires_grad_()
        total, _, predicted = plain(logits, truth, "cross-entropy", (72, 264), False)
        (gradient,) = torch.autograd.grad(total, logits)
        sums = resized_loss(logits, truth, fast("cross-entropy"), size=(72, 264), align_corners=False)
        (ours,) = torch.autograd.grad(sums.total, logits)
        assert_close(sums.total, total.detach(), rtol=1e-5, atol=1e-5)
        assert float((ours - gradient).norm()) <= 1e-5 * float(gradient.norm()) + 1e-5
        assert int(sums.right) == int((predicted == truth).sum())


@pytest.mark.parametrize("wrong", [5, 254, 256, -1])
def test_a_label_that_is_no_class_is_refused(wrong):
    logits, truth = draw((5, 7), (40, 56))
    truth[1, 20, 20] = wrong
    with pytest.raises(IndexError, match="labels must be below 5, or 255 where there is no truth"):
        resized_loss(logits.requires_grad_(), truth, fast("cross-entropy"), size=(40, 56), align_corners=False)


@CORNERS
@pytest.mark.parametrize("loss", RULES)
def test_what_is_not_compiled_agrees(loss, align_corners, monkeypatch):
    logits, truth = draw((33, 17), (259, 131))
    logits.requires_grad_()

    def of_both():
        how = {"size": (260, 131), "align_corners": align_corners}
        sums = resized_loss(logits, truth, fast(loss), **how)
        return sums, torch.autograd.grad(sums.total, logits)[0], resized_prediction(logits, (259, 131), **how)

    sums, gradient, predicted = of_both()
    monkeypatch.setattr(tail, "_fused", lambda raw, merge: False)
    others, other, plainly = of_both()
    assert_close(sums.total, others.total, rtol=1e-5, atol=0)
    assert sums[1:] == others[1:]
    assert float((gradient - other).norm() / other.norm()) < 1e-5
    assert (predicted != plainly).sum() <= 2, "rounding decides at a border"
