import pytest
import torch
from torch import nn
from torch.testing import assert_close

from golden_recipe import keys_of, published_keys
from network_laws import CLASSES, assert_laws, pixel_loss
from segpatch.models.blocks import ConvBNReLU, FCNHead, resize
from segpatch.models.hrnet import HRBackbone, HRModule, HRNet, hrnet_w18, hrnet_w18_small, hrnet_w48
from segpatch.models.layouts.hrnet import fold_biases
from segpatch.models.victim import Victim

PUBLISHED = {"fcn-hr18s": hrnet_w18_small, "fcn-hr18": hrnet_w18, "fcn-hr48": hrnet_w48}


@pytest.mark.parametrize("name", PUBLISHED)
def test_keys_are_the_published_ones(name):
    with torch.device("meta"):
        assert keys_of(PUBLISHED[name]()) == published_keys(f"{name}.mmseg")


def test_laws():
    assert_laws(_small)
    assert_laws(lambda classes: _small(classes, align_corners=True, by_factor=False))


@torch.no_grad()
@pytest.mark.parametrize("size", [(517, 1031), (64, 96), (33, 47)])
def test_sides_need_be_no_multiple_of_anything(size):
    x = torch.rand(1, 3, *size)
    logits = _small().eval()(x)
    assert logits.shape == (1, CLASSES, -(-size[0] // 4), -(-size[1] // 4))
    assert Victim(_small(), size_multiple=HRNet.size_multiple)(x).shape == (1, CLASSES, *size)


@torch.no_grad()
def test_two_branches_are_added_to_each_other():
    # Identity blocks; the way up gives 2 x the coarse map, the way down 3 everywhere.
    module = HRModule((1, 1), 1, align_corners=False, by_factor=True).eval()
    for name, value in module.state_dict().items():
        value.fill_(float(name.endswith(("running_var", "weight")) and "conv" not in name))
    _eps_free(module)
    up, down = module.fuse_layers[0][1], module.fuse_layers[1][0][0]
    up[0].weight.fill_(2.0)
    down[0].weight.zero_()
    down[1].bias.fill_(3.0)
    fine, coarse = torch.arange(8.0).view(1, 1, 2, 4), torch.tensor([[[[1.0, 5.0]]]])
    summed_fine, summed_coarse = module([fine, coarse])
    assert_close(summed_fine, fine + resize(2 * coarse, (2, 4)))
    assert_close(summed_coarse, coarse + 3)


@torch.no_grad()
def test_maps_are_enlarged_by_their_factor_first_where_the_source_does_so():
    maps = [torch.zeros(1, 4, 3, 5), torch.randn(1, 8, 2, 3, generator=torch.Generator().manual_seed(0))]
    torch.manual_seed(0)
    by_factor = HRModule((4, 8), 1, align_corners=False, by_factor=True).eval()
    direct = HRModule((4, 8), 1, align_corners=False, by_factor=False).eval()
    direct.load_state_dict(by_factor.state_dict())
    finer = by_factor.fuse_layers[0][1](by_factor.branches[1](maps[1]))
    assert_close(by_factor(maps)[0], resize(resize(finer, (4, 6)), (3, 5)).relu())
    assert_close(direct(maps)[0], resize(finer, (3, 5)).relu())


@torch.no_grad()
def test_a_folded_bias_leaves_the_function_as_it_is():
    torch.manual_seed(0)
    biased = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()).eval()
    biased[1].running_mean.normal_()
    names = {"0": "conv", "1": "bn"}
    state = {f"head.{names[key[0]]}{key[1:]}": value for key, value in biased.state_dict().items()}
    before = {key: value.clone() for key, value in state.items()}
    plain = ConvBNReLU(3, 4).eval()
    plain.load_state_dict({key.removeprefix("head."): value for key, value in fold_biases(state).items()})
    x = torch.randn(1, 3, 6, 7)
    assert_close(plain(x), biased(x))
    assert before.keys() == state.keys()
    assert all(torch.equal(before[key], state[key]) for key in state)


def test_the_loss_is_the_criterion_at_the_size_of_the_labels():
    labels = torch.randint(CLASSES, (1, 8, 8), generator=torch.Generator().manual_seed(0))
    logits = torch.randn(1, CLASSES, 2, 2, generator=torch.Generator().manual_seed(1))
    for corners in (False, True):
        loss = _small(align_corners=corners).training_loss({"main": logits}, labels, pixel_loss)
        assert torch.equal(loss, pixel_loss(resize(logits, (8, 8), align_corners=corners), labels))


def test_the_head_can_be_of_one_pixel_and_without_dropout():
    head = FCNHead(4, 6, 5, kernel=1, dropout=0.0).train()
    assert head.convs[0].conv.weight.shape == (6, 4, 1, 1)
    x = torch.randn(2, 4, 3, 3)
    assert torch.equal(head(x), head(x))


def _small(classes=CLASSES, **resizing):
    return HRNet(HRBackbone(6, blocks=1, exchanges=(1, 1, 1), **resizing), classes)


def _eps_free(module):
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eps = 0.0
