"""What holds for every network, whatever is inside."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from segpatch.models.blocks import resize, size_of
from segpatch.types import IGNORE

CLASSES = 5
SIZE = (64, 128)


def assert_laws(build: Callable[..., Any]) -> None:
    """All laws below, on one network with random weights from a fixed seed."""
    torch.manual_seed(0)
    network = build(CLASSES)
    forward_is_the_main_output(network)
    gradient_reaches_the_input_and_leaves_it_alone(network)
    memory_format_and_precision_change_little(network)
    training_loss_trains_every_weight(network)


def forward_is_the_main_output(network: Any) -> None:
    network.eval()
    with torch.no_grad():
        logits, outputs = network(_images()), network.all_outputs(_images())
        raw = network.raw_logits(_images())
    assert torch.equal(logits, outputs["main"])
    assert_close(resize(raw, size_of(logits), align_corners=network.output_align_corners), logits)
    assert logits.shape[:2] == (2, CLASSES)
    with torch.no_grad():
        trained = copy.deepcopy(network).train()(_images())
    assert 0.05 < trained.std() < 5, "random weights should neither vanish nor explode"


def gradient_reaches_the_input_and_leaves_it_alone(network: Any) -> None:
    network.eval()
    images = _images().requires_grad_()
    before = images.detach().clone()
    (gradient,) = torch.autograd.grad(network(images).square().mean(), images)
    assert torch.equal(images.detach(), before)
    assert gradient.isfinite().all()
    assert (gradient != 0).float().mean() > 0.9
    plain = _images()
    network(plain)
    assert torch.equal(plain, before), "without a gradient too"


@torch.no_grad()
def memory_format_and_precision_change_little(network: Any) -> None:
    network.eval()
    logits = network(_images())
    spread = float(logits.std())
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    channels_last = last(_images().contiguous(memory_format=torch.channels_last))
    exact = copy.deepcopy(network).double()(_images().double())
    # How far fp32 is from fp64 is the network's own: the memory order may add little to that.
    rounding = (logits - exact).abs().max()
    assert (channels_last - exact).abs().max() < max(4 * rounding, 1e-4 * spread)
    assert rounding < 1e-3 * spread
    with torch.autocast("cpu", torch.bfloat16):
        half = network(_images())
    assert (half.float() - logits).abs().mean() < 0.1 * spread


def training_loss_trains_every_weight(network: Any) -> None:
    network.train()
    labels = torch.randint(CLASSES, (2, *SIZE), generator=torch.Generator().manual_seed(2))
    labels[:, :8] = IGNORE
    loss = network.training_loss(network.all_outputs(_images()), labels, pixel_loss)
    loss.backward()
    assert loss.ndim == 0
    assert loss.isfinite()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    network.zero_grad()


def pixel_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, ignore_index=IGNORE)


def _images() -> Tensor:
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))
