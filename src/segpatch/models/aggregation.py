"""What DDRNet and PIDNet share: the stem, pyramid pooling by deep aggregation (DAPPM), the head.

Source: Hong, Pan, Sun, Jia, "DDRNet", arXiv:2101.06085. Keys are those of the authors' releases of both networks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segpatch.models.blocks import conv, resize, size_of


class Pyramid(nn.Module):
    """What every pyramid pooling here shares: five scales of the context, each at the size of the input."""

    def __init__(self, width_in: int, inner: int, width: int) -> None:
        super().__init__()
        self.scale0 = bn_relu_conv(width_in, inner, 1)
        self.scale1 = bn_relu_conv(width_in, inner, 1, nn.AvgPool2d(5, 2, 2))
        self.scale2 = bn_relu_conv(width_in, inner, 1, nn.AvgPool2d(9, 4, 4))
        self.scale3 = bn_relu_conv(width_in, inner, 1, nn.AvgPool2d(17, 8, 8))
        self.scale4 = bn_relu_conv(width_in, inner, 1, nn.AdaptiveAvgPool2d(1))
        self.compression = bn_relu_conv(5 * inner, width, 1)
        self.shortcut = bn_relu_conv(width_in, width, 1)

    def scales(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The unpooled scale and the four pooled ones, finest first."""
        pooled = (self.scale1, self.scale2, self.scale3, self.scale4)
        return self.scale0(x), [resize(scale(x), size_of(x)) for scale in pooled]

    def merge(self, x: Tensor, scales: list[Tensor]) -> Tensor:
        out: Tensor = self.compression(torch.cat(scales, dim=1)) + self.shortcut(x)
        return out


class DAPPM(Pyramid):
    """Deep aggregation: every scale is added to the one before it."""

    def __init__(self, width_in: int, inner: int, width: int) -> None:
        super().__init__(width_in, inner, width)
        self.process1 = bn_relu_conv(inner, inner, 3)
        self.process2 = bn_relu_conv(inner, inner, 3)
        self.process3 = bn_relu_conv(inner, inner, 3)
        self.process4 = bn_relu_conv(inner, inner, 3)

    def forward(self, x: Tensor) -> Tensor:
        fine, pooled = self.scales(x)
        merged = [fine]
        for process, scale in zip(
            (self.process1, self.process2, self.process3, self.process4), pooled, strict=True
        ):
            merged.append(process(scale + merged[-1]))
        return self.merge(x, merged)


class Head(nn.Module):
    """Logits from a map: norm, ReLU, 3x3, norm, ReLU, 1x1."""

    def __init__(self, width_in: int, inner: int, classes: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width_in)
        self.conv1 = conv(width_in, inner, 3)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(F.relu(self.bn1(x)))
        logits: Tensor = self.conv2(F.relu(self.bn2(out)))
        return logits


def stem(width: int) -> nn.Sequential:
    """From an image to a map at 1/4, in two steps. Keys: 0, 1, 3, 4."""
    return nn.Sequential(*_stem_layer(3, width), *_stem_layer(width, width))


def bn_relu_conv(
    width_in: int, width: int, kernel: int, pool: nn.Module | None = None, *, groups: int = 1
) -> nn.Sequential:
    """Norm, ReLU, convolution, in this order, after a pooling if one is given."""
    layers = (nn.BatchNorm2d(width_in), nn.ReLU(inplace=True), conv(width_in, width, kernel, groups=groups))
    return nn.Sequential(*([] if pool is None else [pool]), *layers)


def _stem_layer(width_in: int, width: int) -> tuple[nn.Module, ...]:
    """Half the size; the only convolutions of these networks with both a bias and a norm."""
    return nn.Conv2d(width_in, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
