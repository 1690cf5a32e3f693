"""MobileNetV2 as the backbone of segmentation networks.

Source: Sandler et al., "MobileNetV2", arXiv:1801.04381. Keys are those of github.com/VainF/DeepLabV3Plus-Pytorch.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from segpatch.models.blocks import conv_bn


class Stage(NamedTuple):
    """Blocks of one width; the first has the stride and a dilation of its own."""

    expansion: int
    width: int
    depth: int
    stride: int = 1
    first_dilation: int = 1
    dilation: int = 1


STEM = 32
STAGES = (  # arXiv:1801.04381, table 2; the last stride is exchanged for dilation, which leaves the map at 1/16
    Stage(1, 16, 1),
    Stage(6, 24, 2, stride=2),
    Stage(6, 32, 3, stride=2),
    Stage(6, 64, 4, stride=2),
    Stage(6, 96, 3),
    Stage(6, 160, 3, dilation=2),
    Stage(6, 320, 1, first_dilation=2, dilation=2),
)
LOW = 4  # layers up to the last map at 1/4


class MobileNetV2(nn.Module):
    """All layers before the classifier. `widths` holds the channels of the two maps."""

    widths = (24, 320)

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv_bn_relu6(3, STEM, 3, stride=2)]
        width_in = STEM
        for stage in STAGES:
            for k in range(stage.depth):
                stride, dilation = (1, stage.dilation) if k else (stage.stride, stage.first_dilation)
                layers.append(InvertedResidual(width_in, stage.width, stage.expansion, stride, dilation))
                width_in = stage.width
        named = [(str(k), layer) for k, layer in enumerate(layers)]
        self.low_level_features = nn.Sequential(OrderedDict(named[:LOW]))
        self.high_level_features = nn.Sequential(OrderedDict(named[LOW:]))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The maps at 1/4 and at 1/16, for images (B, 3, H, W)."""
        low = self.low_level_features(x)
        return low, self.high_level_features(low)


class InvertedResidual(nn.Module):
    """1x1 convolution to expansion x the width, depthwise 3x3 (`dilation` wide), 1x1 back; no ReLU at the end.

    The map is padded before it is widened, so that the depthwise convolution meets what norm and ReLU make of 0
    at the border, and not 0: the published weights expect this.
    """

    def __init__(self, width_in: int, width: int, expansion: int, stride: int, dilation: int) -> None:
        super().__init__()
        wide = width_in * expansion
        widen = [] if expansion == 1 else [_conv_bn_relu6(width_in, wide, 1)]
        depthwise = _conv_bn_relu6(wide, wide, 3, stride=stride, groups=wide, dilation=dilation)
        self.conv = nn.Sequential(*widen, depthwise, *conv_bn(wide, width, 1))
        self.padding = dilation
        self.residual = stride == 1 and width_in == width

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.pad(x, (self.padding,) * 4))
        return x + out if self.residual else out


def _conv_bn_relu6(
    width_in: int, width: int, kernel: int, *, stride: int = 1, groups: int = 1, dilation: int = 1
) -> nn.Sequential:
    """Unpadded convolution, norm, ReLU up to 6. Keys: 0, 1."""
    layer = nn.Conv2d(width_in, width, kernel, stride, dilation=dilation, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(width), nn.ReLU6(inplace=True))
