import pytest
import torch
from torch import nn

from segpatch.errors import BadInput
from segpatch.models.blocks import (
    BasicBlock,
    Bottleneck,
    basic_stage,
    check_size,
    conv,
    initialise,
    resize,
    supervised_loss,
)


def test_the_last_block_of_a_stage_may_go_below_zero():
    torch.manual_seed(0)
    stage = basic_stage(4, 8, 3, stride=2).eval()
    out = stage(torch.randn(1, 4, 8, 12))
    assert out.shape == (1, 8, 4, 6)
    assert out.min() < 0 <= stage[:2](torch.randn(1, 4, 8, 12)).min()


def test_residual_blocks_add_their_input():
    x = torch.randn(1, 8, 5, 7, generator=torch.Generator().manual_seed(0))
    for block, last in ((BasicBlock(8, 8, final_relu=False), "bn2"), (Bottleneck(8, 4), "bn3")):
        nn.init.zeros_(block.get_submodule(last).weight)
        assert torch.equal(block.eval()(x), x)


def test_resize_keeps_what_already_fits_and_corners_when_aligned():
    x = torch.arange(4.0).view(1, 1, 2, 2)
    assert resize(x, (2, 2)) is x
    wide = resize(x, (3, 5), align_corners=True)
    assert wide[0, 0, ::2, ::4].equal(x[0, 0])


def test_a_size_that_does_not_fit_is_refused_with_one_that_does():
    check_size(torch.empty(1, 3, 64, 128), 32)
    with pytest.raises(BadInput, match=r"multiples of 32, got 60x128; pad to 64x128"):
        check_size(torch.empty(1, 3, 60, 128), 32)
    check_size(torch.empty(1, 3, 65, 129), 8, 1)
    with pytest.raises(BadInput, match=r"multiples of 8 plus 1, got 64x130; pad to 65x137"):
        check_size(torch.empty(1, 3, 64, 130), 8, 1)


def test_supervised_loss_weights_all_but_the_main_output():
    outputs = {"aux": torch.full((1, 2, 2, 2), 3.0), "main": torch.full((1, 2, 4, 4), 5.0)}
    outputs["more"] = torch.full((1, 2, 1, 1), 7.0)
    labels = torch.zeros(1, 4, 4)
    loss = supervised_loss(outputs, labels, lambda logits, y: logits.mean() * y.numel(), auxiliary_weight=0.5)
    assert float(loss) == 16 * (5 + 0.5 * 3 + 0.5 * 7)


def test_initial_weights_keep_the_spread_of_activations():
    torch.manual_seed(0)
    for groups in (1, 32):
        layer = conv(32, 64, 3, groups=groups)
        initialise(layer)
        out = layer(torch.randn(4, 32, 16, 16).relu())
        assert 0.7 < out.square().mean() < 1.3
