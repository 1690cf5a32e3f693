"""Steps that move a patch uphill, and the range it must stay in."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class AdamState(NamedTuple):
    """Running mean and mean square (each the patch's shape) of the gradient after `steps` steps."""

    mean: Tensor
    square: Tensor
    steps: int


def clamp_to_range(patch: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The patch (3, h, w) with each channel held inside low..high, each (3,)."""
    return torch.maximum(torch.minimum(patch, high.view(3, 1, 1)), low.view(3, 1, 1))


def sign_step(patch: Tensor, gradient: Tensor, step_size: float, low: Tensor, high: Tensor) -> Tensor:
    """The patch (3, h, w) after one uphill sign step of step_size x (high - low) per channel, clamped.

    A gradient of exactly 0 moves nothing. Source: arXiv:2502.16012, the FGSM-style update.
    """
    step = step_size * (high - low).view(3, 1, 1)
    return clamp_to_range(patch + step * gradient.sign(), low, high)


def adam_start(patch: Tensor) -> AdamState:
    """The state before the first Adam step of a patch of this shape."""
    return AdamState(torch.zeros_like(patch), torch.zeros_like(patch), 0)


def adam_step(
    patch: Tensor, gradient: Tensor, state: AdamState, step_size: float, low: Tensor, high: Tensor
) -> tuple[Tensor, AdamState]:
    """The patch (3, h, w) after one uphill Adam step, clamped, and the state for the next.

    step_size is a share of the channel's range, as in `sign_step`. Source: Kingma and Ba, arXiv:1412.6980,
    algorithm 1 with its constants (0.9, 0.999) and epsilon relative to the gradient's own size, so that
    the step does not depend on how large the loss is.
    """
    mean = 0.9 * state.mean + 0.1 * gradient
    square = 0.999 * state.square + 0.001 * gradient**2
    steps = state.steps + 1
    direction = (mean / (1 - 0.9**steps)) / ((square / (1 - 0.999**steps)).sqrt() + 1e-20)
    step = step_size * (high - low).view(3, 1, 1)
    return clamp_to_range(patch + step * direction, low, high), AdamState(mean, square, steps)
