import torch
from torch.testing import assert_close

from segpatch.models.aggregation import DAPPM, Head, bn_relu_conv, stem
from segpatch.models.blocks import resize


@torch.no_grad()
def test_every_scale_is_added_to_the_one_before_it():
    torch.manual_seed(0)
    pool = DAPPM(4, 3, 5).eval()
    x = torch.randn(1, 4, 18, 20)
    merged = [pool.scale0(x)]
    for k in range(1, 5):
        scale = resize(getattr(pool, f"scale{k}")(x), (18, 20))
        merged.append(getattr(pool, f"process{k}")(scale + merged[-1]))
    expected = pool.compression(torch.cat(merged, dim=1)) + pool.shortcut(x)
    assert_close(pool(x), expected)
    assert expected.shape == (1, 5, 18, 20)


@torch.no_grad()
def test_the_coarsest_scale_is_the_mean_of_the_image():
    pool = DAPPM(2, 2, 2).eval()
    x = torch.rand(1, 2, 9, 12)
    assert_close(pool.scale4(x), pool.scale4[1:](x.mean(dim=(2, 3), keepdim=True)))
    assert pool.scale3(x).shape == (1, 2, 2, 2)


def test_a_layer_rectifies_before_it_convolves():
    layer = bn_relu_conv(1, 1, 1).eval()
    torch.nn.init.constant_(layer[2].weight, -2.0)
    assert_close(layer(torch.tensor([[[[-1.0, 3.0]]]])), torch.tensor([[[[0.0, -6.0]]]]), rtol=1e-4, atol=0)


def test_the_stem_and_the_head_keep_their_sizes():
    assert stem(8)(torch.zeros(1, 3, 17, 32)).shape == (1, 8, 5, 8)
    assert Head(4, 6, 3)(torch.zeros(1, 4, 5, 7)).shape == (1, 3, 5, 7)
