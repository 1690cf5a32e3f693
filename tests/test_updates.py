import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from reference import LAW
from segpatch.updates import adam_start, adam_step, clamp_to_range, sign_step

LOW, HIGH = torch.tensor([0.0, 0.2, 0.4]), torch.tensor([1.0, 0.6, 0.5])


def column(*values):
    """One pixel (3, 1, 1)."""
    return torch.tensor(values).view(3, 1, 1)


def test_sign_step_by_hand():
    """The step is a tenth of each channel's range (1, 0.4, 0.1), whatever the size of the gradient."""
    stepped = sign_step(column(0.5, 0.4, 0.45), column(1e-9, -7.0, 0.3), 0.1, LOW, HIGH)
    assert_close(stepped, column(0.6, 0.36, 0.46))


def test_sign_step_stops_at_the_range_and_a_zero_gradient_moves_nothing():
    stepped = sign_step(column(0.95, 0.21, 0.45), column(1.0, -1.0, 0.0), 0.1, LOW, HIGH)
    assert torch.equal(stepped, column(1.0, 0.2, 0.45))


def test_clamp_holds_each_channel_in_its_own_range():
    assert torch.equal(clamp_to_range(column(-1.0, -1.0, -1.0), LOW, HIGH), LOW.view(3, 1, 1))
    assert torch.equal(clamp_to_range(column(2.0, 2.0, 2.0), LOW, HIGH), HIGH.view(3, 1, 1))


@LAW
@given(st.integers(0, 99), st.floats(0.001, 1))
def test_a_step_stays_in_the_range_and_goes_no_further_than_its_size(seed, step_size):
    generator = torch.Generator().manual_seed(seed)
    start, gradient = torch.rand(3, 2, 2, generator=generator), torch.randn(3, 2, 2, generator=generator)
    patch = LOW.view(3, 1, 1) + (HIGH - LOW).view(3, 1, 1) * start
    stepped = sign_step(patch, gradient, step_size, LOW, HIGH)
    assert torch.equal(stepped, clamp_to_range(stepped, LOW, HIGH))
    assert bool(((stepped - patch).abs() <= step_size * (HIGH - LOW).view(3, 1, 1) + 1e-6).all())
    assert bool(((stepped - patch) * gradient >= 0).all()), "uphill"


def test_adam_is_that_of_torch():
    generator = torch.Generator().manual_seed(0)
    low, high = torch.full((3,), -5.0).double(), torch.full((3,), 5.0).double()
    ours = torch.rand(3, 2, 2, generator=generator, dtype=torch.float64)
    theirs = ours.clone().requires_grad_()
    optimizer = torch.optim.Adam([theirs], lr=0.03 * 10, eps=1e-20, maximize=True)
    state = adam_start(ours)
    for _ in range(5):
        gradient = torch.randn(3, 2, 2, generator=generator, dtype=torch.float64)
        ours, state = adam_step(ours, gradient, state, 0.03, low, high)
        theirs.grad = gradient
        optimizer.step()
        assert_close(ours, theirs.detach(), rtol=0, atol=1e-12)
    assert state.steps == 5


def test_the_first_adam_step_is_a_sign_step():
    patch, gradient = column(0.5, 0.4, 0.45), column(1e-9, -7.0, 0.3)
    stepped, _ = adam_step(patch, gradient, adam_start(patch), 0.1, LOW, HIGH)
    assert_close(stepped, sign_step(patch, gradient, 0.1, LOW, HIGH))


@pytest.mark.parametrize("size", [1e-8, 1.0, 1e8])
def test_adam_does_not_depend_on_the_size_of_the_loss(size):
    patch, gradient = column(0.5, 0.4, 0.45), column(0.1, -0.2, 0.3)
    stepped, state = adam_step(patch, gradient * size, adam_start(patch), 0.01, LOW, HIGH)
    stepped, _ = adam_step(stepped, -gradient * size * 0.5, state, 0.01, LOW, HIGH)
    unscaled, state = adam_step(patch, gradient, adam_start(patch), 0.01, LOW, HIGH)
    unscaled, _ = adam_step(unscaled, -gradient * 0.5, state, 0.01, LOW, HIGH)
    assert_close(stepped, unscaled)


def test_adam_clamps_and_a_zero_gradient_moves_nothing():
    patch, gradient = column(0.95, 0.21, 0.45), column(1.0, -1.0, 0.0)
    before = patch.clone()
    stepped, state = adam_step(patch, gradient, adam_start(patch), 0.1, LOW, HIGH)
    assert torch.equal(stepped, column(1.0, 0.2, 0.45))
    assert torch.equal(patch, before)
    assert bool(state.mean.isfinite().all())
