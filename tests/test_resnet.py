from itertools import product

import pytest
import torch
from torch import nn

from golden_recipe import keys_of, published_keys
from segpatch.models.resnet import DEEP_STEM, ResNet, resnet_d8

PARAMETERS = {18: 11_176_512, 50: 23_508_032, 101: 42_500_160}  # torchvision's, without the last layer
STRIDE_16 = {"strides": (1, 2, 2, 1), "dilations": (1, 1, 1, 2)}


@pytest.mark.parametrize("depth", PARAMETERS)
def test_a_plain_resnet_has_the_parameters_of_torchvision(depth):
    with torch.device("meta"):
        plain, dilated = ResNet(depth), resnet_d8(depth, None)
    assert sum(parameter.numel() for parameter in plain.parameters()) == PARAMETERS[depth]
    assert keys_of(dilated) == keys_of(plain)


@pytest.mark.parametrize(
    ("depth", "stem", "published", "prefix"),
    [
        (18, None, "bisenetv1.coincheung-eval", "cp.resnet."),
        (50, None, "deeplabv3plus-resnet50.vainf", "backbone."),
        (101, None, "deeplabv3plus-resnet101.vainf", "backbone."),
        (18, DEEP_STEM, "deeplabv3plus-r18.mmseg", "backbone."),
        (50, DEEP_STEM, "deeplabv3plus-r50.mmseg", "backbone."),
        (101, DEEP_STEM, "deeplabv3plus-r101.mmseg", "backbone."),
    ],
)
def test_keys_are_the_published_ones(depth, stem, published, prefix):
    with torch.device("meta"):
        network = ResNet(depth, stem=stem)
    keys = published_keys(published)
    assert keys_of(network) == {k.removeprefix(prefix): s for k, s in keys.items() if k.startswith(prefix)}


@pytest.mark.parametrize("stem", [None, DEEP_STEM])
@pytest.mark.parametrize("depth", [18, 50])
def test_the_strides_set_the_sizes_of_the_maps(depth, stem):
    with torch.device("meta"):
        plain, at_16, at_8 = (
            ResNet(depth, stem=stem),
            ResNet(depth, stem=stem, **STRIDE_16),
            resnet_d8(depth, stem),
        )
        even, odd = torch.zeros(1, 3, 64, 128), torch.zeros(1, 3, 65, 129)
    assert sizes(plain, even) == [(16, 32), (8, 16), (4, 8), (2, 4)]
    assert sizes(at_16, even) == [(16, 32), (8, 16), (4, 8), (4, 8)]
    assert sizes(at_8, even) == [(16, 32), (8, 16), (8, 16), (8, 16)]
    assert sizes(at_8, odd) == [(17, 33), (9, 17), (9, 17), (9, 17)]
    assert [c.shape[1] for c in plain(even)] == list(plain.widths)
    assert plain.widths == tuple(w * (1 if depth == 18 else 4) for w in (64, 128, 256, 512))


@pytest.mark.parametrize(
    ("depth", "contract", "stage", "wide"),
    [  # dilations of the 3x3 convolutions of a stage, in order
        (18, True, 3, (1, 1, 2, 1)),
        (18, False, 3, (2, 1, 2, 1)),
        (18, True, 4, (2, 1, 4, 1)),
        (18, False, 4, (4, 1, 4, 1)),
        (50, True, 3, (1, 2, 2, 2, 2, 2)),
        (50, True, 4, (2, 4, 4)),
        (50, False, 4, (4, 4, 4)),
    ],
)
@torch.no_grad()
def test_a_dilated_stage_sees_what_its_dilations_add_up_to(depth, contract, stage, wide):
    """Where one pixel ends up if every weight is positive."""
    network = resnet_d8(depth, None, contract=contract)
    layer = network.get_submodule(f"layer{stage}").eval()
    for module in layer.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
    pixel = torch.zeros(1, network.widths[stage - 2], 1, 41)
    pixel[..., 20] = 1
    reached = layer(pixel)[0, 0, 0].nonzero().flatten() - 20
    assert set(reached.tolist()) == {sum(steps) for steps in product(*((-d, 0, d) for d in wide))}


def test_dilation_changes_no_block_at_stride_32():
    with torch.device("meta"):
        network = ResNet(50, contract=True)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert {module.dilation for module in convolutions} == {(1, 1)}


@torch.no_grad()
def test_the_first_stage_begins_with_what_start_returns():
    torch.manual_seed(0)
    images = torch.randn(1, 3, 32, 64)
    for stem in (None, DEEP_STEM):
        network = ResNet(18, stem=stem).eval()
        begun = network.start(images)
        assert begun.shape == (1, 64, 8, 16)
        assert torch.equal(network.layer1(begun), network(images)[0])


def sizes(network, images):
    return [tuple(c.shape[-2:]) for c in network(images)]
