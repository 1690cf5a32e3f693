import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from golden_recipe import keys_of, published_keys
from segpatch.models.mobilenetv2 import InvertedResidual, MobileNetV2


def test_keys_are_the_published_ones():
    with torch.device("meta"):
        network = MobileNetV2()
    keys = published_keys("deeplabv3plus-mobilenet.vainf")
    assert keys_of(network) == {
        k.removeprefix("backbone."): s for k, s in keys.items() if k.startswith("backbone.")
    }


def test_parameters_are_those_of_the_paper_without_its_last_two_layers():
    with torch.device("meta"):
        network = MobileNetV2()
    whole, widening, classifier = 3_504_872, 320 * 1280 + 2 * 1280, 1280 * 1000 + 1000  # torchvision's
    assert sum(parameter.numel() for parameter in network.parameters()) == whole - widening - classifier


@pytest.mark.parametrize(("side", "low", "high"), [(128, 32, 8), (129, 32, 8), (131, 33, 9)])
def test_maps_are_at_a_quarter_and_a_sixteenth(side, low, high):
    with torch.device("meta"):
        maps = MobileNetV2()(torch.zeros(1, 3, side, side))
    assert [tuple(x.shape) for x in maps] == [(1, 24, low, low), (1, 320, high, high)]


def test_the_last_stages_are_dilated_instead_of_strided():
    with torch.device("meta"):
        layers = list(MobileNetV2().high_level_features)
    wide = [
        module.dilation[0]
        for layer in layers
        for module in layer.modules()
        if isinstance(module, nn.Conv2d) and module.groups > 1
    ]
    assert wide == [1] * 10 + [1, 2, 2] + [2]


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
@torch.no_grad()
def test_a_block_sees_black_beyond_the_border(stride, dilation):
    """Not zeros behind the first convolution: norms turn black into something else."""
    torch.manual_seed(0)
    block = InvertedResidual(4, 6, 6, stride, dilation).double().eval()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.bias, 0.5, 1)
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    framed, cut = block(F.pad(x, (4,) * 4)), 4 // stride
    assert_close(framed[..., cut:-cut, cut:-cut], block(x))


@torch.no_grad()
def test_a_block_adds_its_input_where_it_fits():
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for width, stride, expected in ((4, 1, x), (6, 1, torch.zeros(1, 6, 8, 8)), (4, 2, torch.zeros(1, 4, 4, 4))):
        block = InvertedResidual(4, width, 6, stride, 1).eval()
        nn.init.zeros_(block.conv[-1].weight)
        assert torch.equal(block(x), expected)
