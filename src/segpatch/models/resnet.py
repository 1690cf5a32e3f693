"""ResNet as the backbone of segmentation networks: plain or deep stem, strides exchanged for dilation.

Source: He et al., arXiv:1512.03385; the dilated form as in arXiv:1706.05587. Keys are torchvision's, those of a
deep stem mmsegmentation's.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from segpatch.models.blocks import BasicBlock, Bottleneck, conv

DEEP_STEM = (32, 32, 64)  # of mmsegmentation's ResNetV1c
DEPTHS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class ResNet(nn.Module):
    """The four stages of ResNet-18, -50 or -101.

    stem: its three widths for a stem of three 3x3 convolutions, None for one of 7x7. strides, dilations: of the
    stages; contract: whether the first block of a dilated stage has half its dilation. `widths` holds the
    channels of the four maps.
    """

    def __init__(
        self,
        depth: int,
        *,
        stem: Sequence[int] | None = None,
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        contract: bool = False,
    ) -> None:
        super().__init__()
        self.expansion = 1 if depth == 18 else 4
        self.widths = tuple(width * self.expansion for width in (64, 128, 256, 512))
        if stem is None:
            self.conv1 = conv(3, 64, 7, 2)
            self.bn1 = nn.BatchNorm2d(64)
        else:
            self.stem = _deep_stem(*stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        wide, stages = 64 if stem is None else stem[-1], []
        for k, (blocks, stride, dilation) in enumerate(zip(DEPTHS[depth], strides, dilations, strict=True)):
            first = dilation // 2 if contract and dilation > 1 else dilation
            stages.append(self._stage(wide, 64 * 2**k, blocks, stride, first, dilation))
            wide = self.widths[k]
        self.layer1, self.layer2, self.layer3, self.layer4 = stages

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The maps of the four stages, for images (B, 3, H, W); the first is at 1/4."""
        c1 = self.layer1(self.start(x))
        c2 = self.layer2(c1)
        c3 = self.layer3(c2)
        return c1, c2, c3, self.layer4(c3)

    def start(self, x: Tensor) -> Tensor:
        """The map at 1/4 that the first stage begins with."""
        x = self.stem(x) if hasattr(self, "stem") else self.relu(self.bn1(self.conv1(x)))
        pooled: Tensor = self.maxpool(x)
        return pooled

    def _stage(
        self, width_in: int, width: int, blocks: int, stride: int, first: int, dilation: int
    ) -> nn.Sequential:
        layers: list[nn.Module] = []
        for k in range(blocks):
            wide = width_in if k == 0 else width * self.expansion
            step, wider = (stride, first) if k == 0 else (1, dilation)
            block = (
                BasicBlock(wide, width, step, final_relu=True, dilation=wider)
                if self.expansion == 1
                else Bottleneck(wide, width, step, expansion=4, final_relu=True, dilation=wider)
            )
            layers.append(block)
        return nn.Sequential(*layers)


def resnet_d8(depth: int, stem: Sequence[int] | None = DEEP_STEM, *, contract: bool = True) -> ResNet:
    """A ResNet whose last two stages stay at 1/8. Source: arXiv:1612.01105, arXiv:1706.05587."""
    return ResNet(depth, stem=stem, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract=contract)


def _deep_stem(first: int, second: int, third: int) -> nn.Sequential:
    """Three 3x3 convolutions to 1/2. Keys: 0, 1, 3, 4, 6, 7."""
    layers: list[nn.Module] = []
    for width_in, width, stride in ((3, first, 2), (first, second, 1), (second, third, 1)):
        layers += [conv(width_in, width, 3, stride), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
