"""HRNet: branches at 1/4 to 1/32 side by side, every one added to every other again and again.

Source: Wang, Sun, Cheng et al., "HRNet", arXiv:1908.07919 (HRNetV2). Keys are those of mmsegmentation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segpatch.models.blocks import (
    BasicBlock,
    Bottleneck,
    FCNHead,
    conv,
    conv_bn,
    initialise,
    resize,
    size_of,
)


class Resizing(TypedDict, total=False):
    """How the maps are resized, in which published networks differ; see HRBackbone."""

    align_corners: bool
    by_factor: bool


class HRBackbone(nn.Module):
    """All four branches at 1/4, side by side in `width_out` channels. Input (B, 3, H, W) of any size.

    width: of the finest branch, each further one has twice that; blocks: residual blocks of a branch between two
    exchanges; exchanges: their number with two, three and four branches. align_corners: of every resize;
    by_factor: maps are enlarged by their ratio of strides, and only then to the size of the finer map, as
    mmsegmentation does; it changes the outcome where sides are no multiples of 32.
    """

    def __init__(
        self,
        width: int,
        *,
        blocks: int = 4,
        exchanges: tuple[int, int, int] = (1, 4, 3),
        align_corners: bool = False,
        by_factor: bool = True,
    ) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width, 8 * width)
        self.width_out = sum(widths)
        self.align_corners = align_corners

        def stage(branches: int) -> nn.Sequential:
            modules = [
                HRModule(widths[:branches], blocks, align_corners=align_corners, by_factor=by_factor)
                for _ in range(exchanges[branches - 2])
            ]
            return nn.Sequential(*modules)

        self.conv1 = conv(3, 64, 3, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = conv(64, 64, 3, 2)
        self.bn2 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(
            *(Bottleneck(256 if k else 64, 64, expansion=4, final_relu=True) for k in range(blocks))
        )
        self.transition1 = _transition((256,), widths[:2])
        self.stage2 = stage(2)
        self.transition2 = _transition(widths[:2], widths[:3])
        self.stage3 = stage(3)
        self.transition3 = _transition(widths[:3], widths)
        self.stage4 = stage(4)

    def forward(self, x: Tensor) -> Tensor:
        """A map (B, width_out, H/4, W/4), sizes rounded up; the finest branch comes first."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        maps = _widen([self.layer1(x)], self.transition1)
        maps = _widen(self.stage2(maps), self.transition2)
        maps = self.stage4(_widen(self.stage3(maps), self.transition3))
        size = size_of(maps[0])
        return torch.cat([resize(x, size, align_corners=self.align_corners) for x in maps], dim=1)


class HRModule(nn.Module):
    """Residual blocks on every branch, then the exchange: each branch becomes the sum of all, at its own size."""

    def __init__(self, widths: Sequence[int], blocks: int, *, align_corners: bool, by_factor: bool) -> None:
        super().__init__()
        self.align_corners, self.by_factor = align_corners, by_factor
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width, width, final_relu=True) for _ in range(blocks))) for width in widths
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_bridge(widths, source, target) for source in range(len(widths)))
            for target in range(len(widths))
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return [self._gather(maps, target) for target in range(len(maps))]

    def _gather(self, maps: Sequence[Tensor], target: int) -> Tensor:
        bridges = self.fuse_layers[target]
        assert isinstance(bridges, nn.ModuleList)
        size, total = size_of(maps[target]), maps[target]
        for source, (bridge, x) in enumerate(zip(bridges, maps, strict=True)):
            if source == target:
                continue
            x = bridge(x)
            if source > target and self.by_factor:
                factor = 2 ** (source - target)
                x = resize(x, (x.shape[-2] * factor, x.shape[-1] * factor), align_corners=self.align_corners)
            total = total + resize(x, size, align_corners=self.align_corners)
        return F.relu(total)


class HRNet(nn.Module):
    """The backbone with a head of two 1x1 convolutions. Input (B, 3, H, W) of any size; logits at 1/4."""

    size_multiple = 1

    def __init__(self, backbone: HRBackbone, classes: int = 19) -> None:
        super().__init__()
        self.output_align_corners = backbone.align_corners
        self.backbone = backbone
        self.decode_head = FCNHead(backbone.width_out, backbone.width_out, classes, kernel=1, dropout=0.0)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Class logits (B, K, H/4, W/4), sizes rounded up."""
        logits: Tensor = self.decode_head(self.backbone(x))
        return logits

    def raw_logits(self, x: Tensor) -> Tensor:
        """Class logits (B, K, H/4, W/4): what `forward` returns."""
        return self(x)  # type: ignore[no-any-return]

    def all_outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Class logits at 1/4, as "main"; there are no auxiliary outputs."""
        return {"main": self(x)}

    def training_loss(
        self, outputs: dict[str, Tensor], labels: Tensor, criterion: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """criterion(logits, labels) at the size of the labels (B, H, W), a scalar."""
        logits = resize(outputs["main"].float(), size_of(labels), align_corners=self.output_align_corners)
        return criterion(logits, labels)


def hrnet_w18_small(classes: int = 19, *, auxiliary: bool = True, **resizing: Unpack[Resizing]) -> HRNet:
    """HRNet-W18-Small, 3.9 million parameters. `auxiliary` changes nothing: all builders are called alike."""
    return HRNet(HRBackbone(18, blocks=2, exchanges=(1, 3, 2), **resizing), classes)


def hrnet_w18(classes: int = 19, *, auxiliary: bool = True, **resizing: Unpack[Resizing]) -> HRNet:
    """HRNet-W18, 9.6 million parameters. `auxiliary` changes nothing: all builders are called alike."""
    return HRNet(HRBackbone(18, **resizing), classes)


def hrnet_w48(classes: int = 19, *, auxiliary: bool = True, **resizing: Unpack[Resizing]) -> HRNet:
    """HRNet-W48, 66 million parameters. `auxiliary` changes nothing: all builders are called alike."""
    return HRNet(HRBackbone(48, **resizing), classes)


def _bridge(widths: Sequence[int], source: int, target: int) -> nn.Module:
    """What one branch passes before it is added to another: 1x1 to a finer one, strided 3x3 to a coarser one."""
    if source == target:
        return nn.Identity()
    if source > target:
        return conv_bn(widths[source], widths[target], 1)
    steps = [_halving(widths[source], widths[source]) for _ in range(target - source - 1)]
    return nn.Sequential(*steps, conv_bn(widths[source], widths[target], 3, stride=2))


def _transition(given: Sequence[int], wanted: Sequence[int]) -> nn.ModuleList:
    """From the branches there are to one more, made from the coarsest."""
    layers: list[nn.Module] = []
    for k, width in enumerate(wanted):
        if k >= len(given):
            layers.append(nn.Sequential(_halving(given[-1], width)))
        elif given[k] != width:
            layers.append(nn.Sequential(*conv_bn(given[k], width, 3), nn.ReLU(inplace=True)))
        else:
            layers.append(nn.Identity())
    return nn.ModuleList(layers)


def _widen(maps: Sequence[Tensor], transition: nn.ModuleList) -> list[Tensor]:
    return [layer(maps[min(k, len(maps) - 1)]) for k, layer in enumerate(transition)]


def _halving(width_in: int, width: int) -> nn.Sequential:
    return nn.Sequential(*conv_bn(width_in, width, 3, stride=2), nn.ReLU(inplace=True))
