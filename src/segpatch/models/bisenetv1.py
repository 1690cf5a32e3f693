"""BiSeNet: a shallow spatial path and a deep context path, fused by attention over channels.

Source: Yu, Wang, Peng et al., "BiSeNet", arXiv:1808.00897. Keys are those of github.com/CoinCheung/BiSeNet.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segpatch.models.blocks import ConvBNReLU, conv, initialise, resize, size_of, supervised_loss
from segpatch.models.resnet import ResNet

AUXILIARY_WEIGHT = 1.0  # alpha of arXiv:1808.00897, equation 2


class BiSeNetV1(nn.Module):
    """The whole network. Input (B, 3, H, W) of any size; logits (B, K, H, W) at full size.

    depth: of the ResNet of the context path, 18 or 50; width: channels of either path, 128 beside ResNet-18 and
    512 beside ResNet-50; ffm_relu: whether the attention of the fusion goes through a ReLU before its sigmoid,
    as in the checkpoints of mmsegmentation; auxiliary: with the two heads on the context path, which only
    training needs. The code that the keys come from resizes by factors, and so takes multiples of 32 only; there
    it does the same.
    """

    size_multiple = 1
    output_align_corners = False

    def __init__(
        self,
        classes: int = 19,
        *,
        depth: int = 18,
        width: int = 128,
        ffm_relu: bool = False,
        auxiliary: bool = True,
    ) -> None:
        super().__init__()
        self.auxiliary = auxiliary
        self.cp = ContextPath(depth, width)
        self.sp = SpatialPath(width)
        self.ffm = FeatureFusion(2 * width, relu=ffm_relu)
        self.conv_out = Head(2 * width, 2 * width, classes)
        if auxiliary:
            self.conv_out16 = Head(width, width // 2, classes)
            self.conv_out32 = Head(width, width // 2, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Class logits (B, K, H, W)."""
        return resize(self.raw_logits(x), size_of(x))

    def raw_logits(self, x: Tensor) -> Tensor:
        """Class logits (B, K, H/8, W/8), sizes rounded up."""
        logits: Tensor = self.conv_out(self.ffm(self.sp(x), self.cp(x)[0]))
        return logits

    def all_outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Class logits (B, K, H, W): "main", and those of the context path from 1/8 ("16") and 1/16 ("32")."""
        context8, context16 = self.cp(x)
        outputs = {"main": self.conv_out(self.ffm(self.sp(x), context8))}
        if self.auxiliary:
            outputs |= {"16": self.conv_out16(context8), "32": self.conv_out32(context16)}
        return {name: resize(logits, size_of(x)) for name, logits in outputs.items()}

    def training_loss(
        self, outputs: dict[str, Tensor], labels: Tensor, criterion: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """The sum of criterion(logits, labels) over all outputs, a scalar.

        labels (B, H, W), IGNORE where there is no truth. Source: arXiv:1808.00897, equation 2.
        """
        return supervised_loss(outputs, labels, criterion, auxiliary_weight=AUXILIARY_WEIGHT)


class ContextPath(nn.Module):
    """ResNet whose last two maps are refined and brought to 1/8."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.resnet = ResNet(depth)
        _, _, wide16, wide32 = self.resnet.widths
        self.arm16 = AttentionRefinement(wide16, width)
        self.arm32 = AttentionRefinement(wide32, width)
        self.conv_head32 = ConvBNReLU(width, width)
        self.conv_head16 = ConvBNReLU(width, width)
        self.conv_avg = ConvBNReLU(wide32, width, kernel=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The context at 1/8, and at 1/16."""
        _, map8, map16, map32 = self.resnet(x)
        context = self.arm32(map32) + self.conv_avg(_mean(map32))
        context16 = self.conv_head32(F.interpolate(context, size_of(map16), mode="nearest"))
        context = self.arm16(map16) + context16
        return self.conv_head16(F.interpolate(context, size_of(map8), mode="nearest")), context16


class AttentionRefinement(nn.Module):
    """A convolution whose channels are weighed by what their means say."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.conv = ConvBNReLU(width_in, width)
        self.conv_atten = conv(width, width, 1)
        self.bn_atten = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * torch.sigmoid(self.bn_atten(self.conv_atten(_mean(x))))


class SpatialPath(nn.Module):
    """Plain convolutions down to 1/8."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = width // 2
        self.conv1 = ConvBNReLU(3, inner, kernel=7, stride=2)
        self.conv2 = ConvBNReLU(inner, inner, stride=2)
        self.conv3 = ConvBNReLU(inner, inner, stride=2)
        self.conv_out = ConvBNReLU(inner, width, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        spatial: Tensor = self.conv_out(self.conv3(self.conv2(self.conv1(x))))
        return spatial


class FeatureFusion(nn.Module):
    """Both paths mixed, and the mixture's channels weighed once more."""

    def __init__(self, width: int, *, relu: bool) -> None:
        super().__init__()
        self.convblk = ConvBNReLU(width, width, kernel=1)
        self.conv = conv(width, width, 1)
        self.bn = nn.BatchNorm2d(width)
        self.relu = relu

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        mixed: Tensor = self.convblk(torch.cat([spatial, context], dim=1))
        weights = self.bn(self.conv(_mean(mixed)))
        if self.relu:
            weights = F.relu(weights)
        return mixed + mixed * torch.sigmoid(weights)


class Head(nn.Module):
    """Logits at the size of a map: 3x3, norm, ReLU, 1x1."""

    def __init__(self, width_in: int, inner: int, classes: int) -> None:
        super().__init__()
        self.conv = ConvBNReLU(width_in, inner)
        self.conv_out = nn.Conv2d(inner, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.conv_out(self.conv(x))
        return logits


def _mean(x: Tensor) -> Tensor:
    """The mean over the whole image, (B, C, 1, 1)."""
    return x.mean(dim=(2, 3), keepdim=True)
