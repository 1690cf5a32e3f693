import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from segpatch.models.folding import folded
from segpatch.models.networks import MODELS
from segpatch.models.victim import Victim

SMALL = ("pidnet-s", "bisenetv2", "ddrnet-23-slim", "hrnet-w18-small", "segformer-b0")


def norms(victim):
    return sum(isinstance(module, nn.BatchNorm2d) for module in victim.module.modules())


def drawn(module):
    """The module with batch norms that do something."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.uniform_(-0.1, 0.1)
            norm.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
    return module


class Shared(nn.Module):
    """The output of the convolution is used beside the norm, so folding would change the function."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.conv(x)
        return x + self.norm(x)


class Twice(Shared):
    """The convolution runs twice, and the norm once."""

    def forward(self, x):
        return self.norm(self.conv(x)) + self.conv(x.flip(-1))


@pytest.mark.parametrize("name", SMALL)
def test_the_logits_stay_and_the_norms_go(name):
    torch.manual_seed(0)
    module = drawn(MODELS[name].default.build(19, auxiliary=False)).double()
    victim = Victim(module, size_multiple=module.size_multiple, align_corners=module.output_align_corners)
    before = copy.deepcopy(module.state_dict())
    fast = folded(victim)
    images = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    assert_close(fast(images), victim(images), rtol=1e-9, atol=1e-9)
    assert norms(fast) < norms(victim) or norms(victim) == 1
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert not any(parameter.requires_grad for parameter in fast.module.parameters())


def without_statistics():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))


@pytest.mark.parametrize("module", [lambda: drawn(Shared()), lambda: drawn(Twice()), without_statistics])
def test_what_cannot_be_folded_comes_back_as_it_is(module):
    torch.manual_seed(0)
    victim = Victim(module())
    fast = folded(victim)
    images = torch.rand(1, 3, 16, 16)
    assert norms(fast) == 1
    assert_close(fast(images), victim(images))


def test_a_module_without_norms_or_that_cannot_be_copied_comes_back():
    class Stubborn(Shared):
        def __deepcopy__(self, memo):
            raise TypeError

    plain, stubborn = Victim(nn.Conv2d(3, 4, 1)), Victim(Stubborn())
    assert folded(plain) is plain
    assert folded(stubborn) is stubborn


def test_by_hand():
    conv, norm = nn.Conv2d(3, 1, 1, bias=False), nn.BatchNorm2d(1, eps=0.0)
    conv.weight.data = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    norm.running_mean.fill_(4.0)
    norm.running_var.fill_(0.25)
    norm.weight.data.fill_(3.0)
    norm.bias.data.fill_(1.0)
    fast = folded(Victim(nn.Sequential(conv, norm))).module[0]
    assert_close(fast.weight.flatten(), torch.tensor([6.0, 12.0, 18.0]))  # 3 / 0.5 times as much
    assert_close(fast.bias, torch.tensor([-23.0]))  # (0 - 4) x 6 + 1
