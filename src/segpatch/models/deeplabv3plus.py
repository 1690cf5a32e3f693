"""DeepLabV3+: atrous spatial pyramid pooling, then a decoder that meets the first map of the backbone.

Source: Chen et al., "Encoder-Decoder with Atrous Separable Convolution", arXiv:1802.02611. DeepLabV3Plus is the
form and has the keys of mmsegmentation, PlainDeepLabV3Plus those of github.com/VainF/DeepLabV3Plus-Pytorch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from segpatch.models.blocks import (
    ConvBNReLU,
    FCNHead,
    conv,
    initialise,
    resize,
    size_of,
    supervised_loss,
)
from segpatch.models.mobilenetv2 import MobileNetV2
from segpatch.models.resnet import DEEP_STEM, ResNet, resnet_d8

AUXILIARY_WEIGHT = 0.4  # mmsegmentation's recipe, after arXiv:1612.01105
RATES = (12, 24, 36)  # of the dilated convolutions at 1/8; half of it at 1/16. Source: arXiv:1706.05587


class DeepLabV3Plus(nn.Module):
    """The network with separable convolutions. Input (B, 3, H, W) of any size; logits at 1/4.

    depth, stem: of the ResNet, which stays at 1/8; align_corners: of every resize; auxiliary: with the head on its
    third stage, which only training needs.
    """

    size_multiple = 1

    def __init__(
        self,
        classes: int = 19,
        *,
        depth: int = 50,
        stem: Sequence[int] | None = DEEP_STEM,
        align_corners: bool = False,
        auxiliary: bool = True,
    ) -> None:
        super().__init__()
        self.output_align_corners = align_corners
        self.auxiliary = auxiliary
        self.backbone = resnet_d8(depth, stem)
        first, _, third, last = self.backbone.widths
        self.decode_head = SeparableDecoder(first, last, classes, align_corners=align_corners)
        if auxiliary:
            self.auxiliary_head = FCNHead(third, third // 4, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Class logits (B, K, H/4, W/4), sizes rounded up."""
        c1, _, _, c4 = self.backbone(x)
        logits: Tensor = self.decode_head(c1, c4)
        return logits

    def raw_logits(self, x: Tensor) -> Tensor:
        """Class logits (B, K, H/4, W/4): what `forward` returns."""
        return self(x)  # type: ignore[no-any-return]

    def all_outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Class logits: "main" at 1/4, and "aux", of the third stage, at 1/8."""
        c1, _, c3, c4 = self.backbone(x)
        main = self.decode_head(c1, c4)
        return {"main": main, "aux": self.auxiliary_head(c3)} if self.auxiliary else {"main": main}

    def training_loss(
        self, outputs: dict[str, Tensor], labels: Tensor, criterion: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """criterion(logits, labels) of main + 0.4 aux, a scalar; labels (B, H, W). Source: mmsegmentation."""
        return supervised_loss(
            outputs,
            labels,
            criterion,
            auxiliary_weight=AUXILIARY_WEIGHT,
            align_corners=self.output_align_corners,
        )


class SeparableDecoder(nn.Module):
    """Logits from the first and the last map of the backbone, `first` and `last` channels wide.

    Keys: image_pool.1, aspp_modules.0 to 3, bottleneck, c1_bottleneck, sep_bottleneck.0 and 1, conv_seg.
    """

    def __init__(self, first: int, last: int, classes: int, *, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        inner, narrow = last // 4, first * 3 // 16
        self.image_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvBNReLU(last, inner, 1))
        self.aspp_modules = nn.ModuleList(
            [ConvBNReLU(last, inner, 1), *(SeparableConv(last, inner, dilation=rate) for rate in RATES)]
        )
        self.bottleneck = ConvBNReLU((2 + len(RATES)) * inner, inner)
        self.c1_bottleneck = ConvBNReLU(first, narrow, 1)
        self.sep_bottleneck = nn.Sequential(SeparableConv(inner + narrow, inner), SeparableConv(inner, inner))
        self.dropout = nn.Dropout2d(0.1)
        self.conv_seg = nn.Conv2d(inner, classes, 1)

    def forward(self, c1: Tensor, c4: Tensor) -> Tensor:
        pooled = resize(self.image_pool(c4), size_of(c4))
        context = self.bottleneck(torch.cat([pooled, *(module(c4) for module in self.aspp_modules)], dim=1))
        context = resize(context, size_of(c1), align_corners=self.align_corners)
        joined = torch.cat([context, self.c1_bottleneck(c1)], dim=1)
        logits: Tensor = self.conv_seg(self.dropout(self.sep_bottleneck(joined)))
        return logits


class SeparableConv(nn.Module):
    """Depthwise 3x3 (`dilation` wide), then 1x1. Keys: depthwise_conv, pointwise_conv."""

    def __init__(self, width_in: int, width: int, *, dilation: int = 1) -> None:
        super().__init__()
        self.depthwise_conv = ConvBNReLU(width_in, width_in, groups=width_in, dilation=dilation)
        self.pointwise_conv = ConvBNReLU(width_in, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pointwise_conv(self.depthwise_conv(x))
        return out


class PlainDeepLabV3Plus(nn.Module):
    """The network with full 3x3 convolutions. Input (B, 3, H, W) of any size; logits (B, K, H, W).

    backbone: of MobileNetV2 or ResNet, its maps from 1/4 to 1/16.
    """

    size_multiple = 1
    output_align_corners = False

    def __init__(self, backbone: MobileNetV2 | ResNet, classes: int = 19) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = PlainDecoder(backbone.widths[0], backbone.widths[-1], classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Class logits (B, K, H, W)."""
        return resize(self.raw_logits(x), size_of(x))

    def raw_logits(self, x: Tensor) -> Tensor:
        """Class logits at the size of the backbone's first map, about (B, K, H/4, W/4)."""
        maps = self.backbone(x)
        logits: Tensor = self.classifier(maps[0], maps[-1])
        return logits

    def all_outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Class logits at full size, as "main"; there are no auxiliary outputs."""
        return {"main": self(x)}

    def training_loss(
        self, outputs: dict[str, Tensor], labels: Tensor, criterion: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """criterion(logits, labels) at the size of the labels (B, H, W), a scalar."""
        return criterion(resize(outputs["main"].float(), size_of(labels)), labels)


class PlainDecoder(nn.Module):
    """Logits from the first and the last map of the backbone, `first` and `last` channels wide.

    Keys: project, aspp, classifier.
    """

    def __init__(self, first: int, last: int, classes: int, inner: int = 256, narrow: int = 48) -> None:
        super().__init__()
        self.project = _conv_bn_relu(first, narrow, 1)
        self.aspp = PlainASPP(last, inner)
        self.classifier = nn.Sequential(*_conv_bn_relu(narrow + inner, inner, 3), nn.Conv2d(inner, classes, 1))

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        joined = torch.cat([self.project(low), resize(self.aspp(high), size_of(low))], dim=1)
        logits: Tensor = self.classifier(joined)
        return logits


class PlainASPP(nn.Module):
    """1x1, three dilated 3x3 and the mean over the image, side by side, merged. Keys: convs.0 to 4, project."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        dilated = [_conv_bn_relu(width_in, width, 3, dilation=rate // 2) for rate in RATES]
        pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), *_conv_bn_relu(width_in, width, 1))
        self.convs = nn.ModuleList([_conv_bn_relu(width_in, width, 1), *dilated, pooled])
        self.project = nn.Sequential(*_conv_bn_relu(len(self.convs) * width, width, 1), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        merged: Tensor = self.project(torch.cat([resize(part(x), size_of(x)) for part in self.convs], dim=1))
        return merged


def plain_deeplabv3plus_mobilenet(classes: int = 19, *, auxiliary: bool = True) -> PlainDeepLabV3Plus:
    """On MobileNetV2. `auxiliary` changes nothing: it is there so that all builders are called alike."""
    return PlainDeepLabV3Plus(MobileNetV2(), classes)


def plain_deeplabv3plus_resnet(
    classes: int = 19, *, depth: int = 50, auxiliary: bool = True
) -> PlainDeepLabV3Plus:
    """On a ResNet at 1/16. `auxiliary` changes nothing: it is there so that all builders are called alike."""
    backbone = ResNet(depth, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), contract=True)
    return PlainDeepLabV3Plus(backbone, classes)


def _conv_bn_relu(width_in: int, width: int, kernel: int, *, dilation: int = 1) -> nn.Sequential:
    """Keys: 0, 1."""
    layer = conv(width_in, width, kernel, dilation=dilation)
    return nn.Sequential(layer, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
