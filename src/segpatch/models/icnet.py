"""ICNet: an image at three sizes, the smallest in the deepest branch, merged by a cascade.

Source: Zhao, Qi, Shen et al., "ICNet", arXiv:1704.08545. Two forms of it have published checkpoints: ICNet, as
mmsegmentation has it, with its keys; and TwoPassICNet, with those of github.com/liminn/ICNet-pytorch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segpatch.models.blocks import (
    ConvBNReLU,
    FCNHead,
    check_size,
    conv,
    conv_bn,
    initialise,
    resize,
    size_of,
    supervised_loss,
)
from segpatch.models.resnet import ResNet, resnet_d8

BINS = (1, 2, 3, 6)  # of the pyramid pooling, per side
WIDTH = 128  # of what the fusions return
AUXILIARY_WEIGHT = 0.4  # of both lower fusions, in mmsegmentation's and liminn's recipes


class ICNet(nn.Module):
    """The whole network. Input (B, 3, H, W) of any size; logits at 1/8.

    depth: of the ResNet, 18, 50 or 101; auxiliary: with the heads on the two lower branches, which only training
    needs.
    """

    size_multiple = 1
    output_align_corners = False

    def __init__(self, classes: int = 19, *, depth: int = 50, auxiliary: bool = True) -> None:
        super().__init__()
        self.auxiliary = auxiliary
        self.backbone = ImageCascade(depth)
        self.neck = Fusions()
        self.decode_head = FCNHead(WIDTH, WIDTH, classes, dropout=0.0)
        if auxiliary:
            self.auxiliary_head = nn.ModuleList([FCNHead(WIDTH, WIDTH, classes) for _ in range(2)])
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Class logits (B, K, H/8, W/8), sizes rounded up."""
        main: Tensor = self.decode_head(self.neck(*self.backbone(x))[0])
        return main

    def raw_logits(self, x: Tensor) -> Tensor:
        """Class logits (B, K, H/8, W/8): what `forward` returns."""
        return self(x)  # type: ignore[no-any-return]

    def all_outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Class logits: "main" at 1/8, of the quarter image ("sub4") at 1/16, with the half ("sub24") at 1/8."""
        fused, sub24, sub4 = self.neck(*self.backbone(x))
        outputs = {"main": self.decode_head(fused)}
        if self.auxiliary:
            of_sub4, of_sub24 = self.auxiliary_head
            outputs |= {"sub4": of_sub4(sub4), "sub24": of_sub24(sub24)}
        return outputs

    def training_loss(
        self, outputs: dict[str, Tensor], labels: Tensor, criterion: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """criterion(logits, labels) of "main" + 0.4 x that of each lower branch, a scalar.

        labels (B, H, W), IGNORE where there is no truth. Source: the cascade label guidance of arXiv:1704.08545,
        with the weights of mmsegmentation's recipe, and logits resized to the labels as there.
        """
        return supervised_loss(outputs, labels, criterion, auxiliary_weight=AUXILIARY_WEIGHT)


class ImageCascade(nn.Module):
    """The three branches: the half image's, halved, goes on as the quarter image's through the same ResNet."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.backbone = resnet_d8(depth)
        self.backbone.maxpool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)  # the weights were trained with it
        _, half, _, quarter = self.backbone.widths
        self.psp_modules = nn.ModuleList(
            [nn.Sequential(nn.AdaptiveAvgPool2d(bins), ConvBNReLU(quarter, 512, kernel=1)) for bins in BINS]
        )
        self.psp_bottleneck = ConvBNReLU(quarter + len(BINS) * 512, 512)
        self.conv_sub1 = _light_branch()
        self.conv_sub2 = ConvBNReLU(half, 256, kernel=1)
        self.conv_sub4 = ConvBNReLU(512, 256, kernel=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps of the image, its half and its quarter: at 1/8, 1/16 and 1/32, of 64, 256 and 256 channels."""
        half = self.backbone.layer2(self.backbone.layer1(self.backbone.start(_halve(x))))
        quarter = self.backbone.layer4(self.backbone.layer3(_halve(half)))
        pooled = [resize(pool(quarter), size_of(quarter)) for pool in self.psp_modules]
        quarter = self.psp_bottleneck(torch.cat([*pooled, quarter], dim=1))
        return self.conv_sub1(x), self.conv_sub2(half), self.conv_sub4(quarter)


class Fusions(nn.Module):
    """Quarter into half, and both into the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.cff_24 = _rectified_fusion(256, 256)
        self.cff_12 = _rectified_fusion(WIDTH, 64)

    def forward(self, sub1: Tensor, sub2: Tensor, sub4: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All three at the size of sub1, sub4 with sub2 at that size too, sub4 at the size of sub2."""
        fused, low4 = self.cff_24(sub4, sub2)
        fused, low24 = self.cff_12(fused, sub1)
        return fused, low24, low4


class TwoPassICNet(nn.Module):
    """The form whose ResNet sees the half and the quarter image, each from its pixels on.

    Input (B, 3, H, W), sides in multiples of 8; logits (B, K, H, W) at full size. depth: of the ResNet; dilated:
    with a deep stem and two stages dilated in place of strides, as liminn has it, else plain, as in the
    networks of arXiv:2502.16012; auxiliary: with the classifiers on the two lower branches.
    """

    size_multiple = 8
    output_align_corners = True

    def __init__(
        self, classes: int = 19, *, depth: int = 50, dilated: bool = True, auxiliary: bool = True
    ) -> None:
        super().__init__()
        self.pretrained = resnet_d8(depth, stem=(64, 64, 128)) if dilated else ResNet(depth)
        self.conv_sub1 = _light_branch()
        _, half, _, quarter = self.pretrained.widths
        self.head = TwoPassHead(half, quarter, classes, auxiliary=auxiliary)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Class logits (B, K, H, W)."""
        return resize(self.raw_logits(x), size_of(x), align_corners=True)

    def raw_logits(self, x: Tensor) -> Tensor:
        """Class logits (B, K, H/4, W/4)."""
        return self._logits(x)["sub124"]

    def all_outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Class logits: "main" at full size, the same before that resize ("sub124") at 1/4, and of the lower
        branches "sub24" at 1/8 and "sub4" at 1/16."""
        logits = self._logits(x)
        return {"main": resize(logits["sub124"], size_of(x), align_corners=True), **logits}

    def training_loss(
        self, outputs: dict[str, Tensor], labels: Tensor, criterion: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """criterion(logits, labels) of "main" + 0.4 x that of each lower branch, a scalar.

        labels (B, H, W), IGNORE where there is no truth. Source: as ICNet's. The weights are also liminn's, who
        shrinks the labels to "sub124", "sub24" and "sub4" instead, bilinearly, which mixes class numbers.
        """
        judged = {name: logits for name, logits in outputs.items() if name != "sub124"}
        return supervised_loss(
            judged, labels, criterion, auxiliary_weight=AUXILIARY_WEIGHT, align_corners=self.output_align_corners
        )

    def _logits(self, x: Tensor) -> dict[str, Tensor]:
        """Class logits of the branches, each at its own size."""
        check_size(x, self.size_multiple)
        height, width = size_of(x)
        half = resize(x, (height // 2, width // 2), align_corners=True)
        half = self.pretrained.layer2(self.pretrained.layer1(self.pretrained.start(half)))
        quarter = self.pretrained(resize(x, (height // 4, width // 4), align_corners=True))[-1]
        logits: dict[str, Tensor] = self.head(self.conv_sub1(x), half, _with_pooled(quarter))
        return logits


class TwoPassHead(nn.Module):
    """The fusions and classifiers of TwoPassICNet, from maps at 1/8, 1/16 and 1/32 (plain: 1/128)."""

    def __init__(self, half: int, quarter: int, classes: int, *, auxiliary: bool) -> None:
        super().__init__()
        self.cff_24 = self._fusion(quarter, half, classes if auxiliary else 0)
        self.cff_12 = self._fusion(WIDTH, 64, classes if auxiliary else 0)
        self.conv_cls = conv(WIDTH, classes, 1)

    def forward(self, sub1: Tensor, sub2: Tensor, sub4: Tensor) -> dict[str, Tensor]:
        """Logits "sub124" at 1/4, "sub24" at 1/8, "sub4" at 1/16."""
        fused, low4 = self.cff_24(sub4, sub2)
        fused, low24 = self.cff_12(fused, sub1)
        height, width = size_of(fused)
        logits = {"sub124": self.conv_cls(resize(fused, (2 * height, 2 * width), align_corners=True))}
        if self.cff_24.conv_low_cls and self.cff_12.conv_low_cls:
            logits |= {"sub24": self.cff_12.conv_low_cls(low24), "sub4": self.cff_24.conv_low_cls(low4)}
        return logits

    @staticmethod
    def _fusion(low: int, high: int, classes: int) -> CascadeFusion:
        conv_low = nn.Sequential(conv(low, WIDTH, 3, dilation=2), nn.BatchNorm2d(WIDTH))
        conv_low_cls = conv(WIDTH, classes, 1) if classes else None
        return CascadeFusion(conv_low, conv_bn(high, WIDTH, 1), conv_low_cls, align_corners=True)


class CascadeFusion(nn.Module):
    """A map and the next larger one, added at the size of the larger. Source: arXiv:1704.08545, figure 3.

    conv_low, conv_high: what either goes through first; conv_low_cls: a classifier for what the lower becomes.
    """

    def __init__(
        self,
        conv_low: nn.Module,
        conv_high: nn.Module,
        conv_low_cls: nn.Module | None = None,
        *,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.conv_low = conv_low
        self.conv_high = conv_high
        self.conv_low_cls = conv_low_cls
        self.align_corners = align_corners

    def forward(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The sum, and the lower map as it goes into it."""
        low = self.conv_low(resize(low, size_of(high), align_corners=self.align_corners))
        return F.relu(low + self.conv_high(high)), low


def _light_branch() -> nn.Sequential:
    """Three convolutions from the whole image to 1/8."""
    return nn.Sequential(ConvBNReLU(3, 32, stride=2), ConvBNReLU(32, 32, stride=2), ConvBNReLU(32, 64, stride=2))


def _rectified_fusion(low: int, high: int) -> CascadeFusion:
    return CascadeFusion(ConvBNReLU(low, WIDTH, dilation=2), ConvBNReLU(high, WIDTH, kernel=1))


def _halve(x: Tensor) -> Tensor:
    """x at half its size, rounded down; by factor, since resizing to a size takes other points of odd maps."""
    return F.interpolate(x, scale_factor=0.5, mode="bilinear")


def _with_pooled(x: Tensor) -> Tensor:
    """x and its means over ever finer grids, added up."""
    pooled = [resize(F.adaptive_avg_pool2d(x, bins), size_of(x), align_corners=True) for bins in BINS]
    return torch.stack([x, *pooled]).sum(dim=0)
