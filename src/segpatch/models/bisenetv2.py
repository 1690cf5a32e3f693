"""BiSeNet V2: a wide shallow detail branch and a narrow deep semantic branch, merged by guided aggregation.

Source: Yu, Gao, Wang et al., "BiSeNet V2", arXiv:2004.02147. Keys are those of github.com/CoinCheung/BiSeNet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segpatch.models.blocks import ConvBNReLU, check_size, conv_bn, initialise, resize, size_of

EXPANSION = 6  # of a gather-and-expansion layer
Upsampling = Literal["nearest", "bilinear"]


class BiSeNetV2(nn.Module):
    """The whole network. Input (B, 3, H, W), sides in multiples of 32; logits (B, K, H, W) at full size.

    auxiliary: with the four heads on the semantic branch, which only training needs. bga_upsample, bga_bias:
    how the aggregation resizes, and whether its two 1x1 convolutions have a bias; the checkpoints of
    mmsegmentation were trained with "bilinear" and True.
    """

    size_multiple = 32
    output_align_corners = False

    def __init__(
        self,
        classes: int = 19,
        *,
        auxiliary: bool = True,
        bga_upsample: Upsampling = "nearest",
        bga_bias: bool = False,
    ) -> None:
        super().__init__()
        self.auxiliary = auxiliary
        self.detail = DetailBranch()
        self.segment = SemanticBranch()
        self.bga = GuidedAggregation(128, bga_upsample, bias=bga_bias)
        self.head = Head(128, 1024, classes, 8)
        if auxiliary:
            self.aux2 = Head(16, 128, classes, 4, booster=True)
            self.aux3 = Head(32, 128, classes, 8, booster=True)
            self.aux4 = Head(64, 128, classes, 16, booster=True)
            self.aux5_4 = Head(128, 128, classes, 32, booster=True)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Class logits (B, K, H, W)."""
        return self.head.enlarge(self.raw_logits(x))

    def raw_logits(self, x: Tensor) -> Tensor:
        """Class logits (B, K, H/8, W/8)."""
        check_size(x, self.size_multiple)
        return self.head.small(self.bga(self.detail(x), self.segment(x)[-1]))

    def all_outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Class logits (B, K, H, W): "main", and those of the stages "aux2", "aux3", "aux4", "aux5_4"."""
        check_size(x, self.size_multiple)
        s2, s3, s4, s5_4, s5_5 = self.segment(x)
        main = self.head(self.bga(self.detail(x), s5_5))
        if not self.auxiliary:
            return {"main": main}
        return {
            "main": main,
            "aux2": self.aux2(s2),
            "aux3": self.aux3(s3),
            "aux4": self.aux4(s4),
            "aux5_4": self.aux5_4(s5_4),
        }

    def training_loss(
        self, outputs: dict[str, Tensor], labels: Tensor, criterion: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """The sum of criterion(logits, labels) over all outputs, a scalar.

        labels (B, H, W), IGNORE where there is no truth. Source: arXiv:2004.02147 (booster training).
        """
        size = size_of(labels)
        losses = [criterion(resize(logits.float(), size), labels) for logits in outputs.values()]
        return torch.stack(losses).sum()


class DetailBranch(nn.Module):
    """Plain 3x3 convolutions down to 1/8, 128 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.S1 = nn.Sequential(ConvBNReLU(3, 64, stride=2), ConvBNReLU(64, 64))
        self.S2 = nn.Sequential(ConvBNReLU(64, 64, stride=2), ConvBNReLU(64, 64), ConvBNReLU(64, 64))
        self.S3 = nn.Sequential(ConvBNReLU(64, 128, stride=2), ConvBNReLU(128, 128), ConvBNReLU(128, 128))

    def forward(self, x: Tensor) -> Tensor:
        detail: Tensor = self.S3(self.S2(self.S1(x)))
        return detail


class SemanticBranch(nn.Module):
    """From the stem at 1/4 to context at 1/32."""

    def __init__(self) -> None:
        super().__init__()
        self.S1S2 = Stem()
        self.S3 = nn.Sequential(GatherExpandDown(16, 32), GatherExpand(32))
        self.S4 = nn.Sequential(GatherExpandDown(32, 64), GatherExpand(64))
        self.S5_4 = nn.Sequential(
            GatherExpandDown(64, 128), GatherExpand(128), GatherExpand(128), GatherExpand(128)
        )
        self.S5_5 = ContextEmbedding(128)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Maps at 1/4, 1/8, 1/16, 1/32 and 1/32, of 16, 32, 64, 128 and 128 channels."""
        s2 = self.S1S2(x)
        s3 = self.S3(s2)
        s4 = self.S4(s3)
        s5_4 = self.S5_4(s4)
        return s2, s3, s4, s5_4, self.S5_5(s5_4)


class Stem(nn.Module):
    """Two ways down to 1/4, convolution and pooling, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = ConvBNReLU(3, 16, stride=2)
        self.left = nn.Sequential(ConvBNReLU(16, 8, kernel=1), ConvBNReLU(8, 16, stride=2))
        self.right = nn.MaxPool2d(3, 2, 1)
        self.fuse = ConvBNReLU(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        out: Tensor = self.fuse(torch.cat([self.left(x), self.right(x)], dim=1))
        return out


class GatherExpand(nn.Module):
    """Gather-and-expansion layer that keeps the size: 3x3, widening depthwise 3x3, 1x1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        wide = width * EXPANSION
        self.conv1 = ConvBNReLU(width, width)
        self.dwconv = nn.Sequential(*conv_bn(width, wide, 3, groups=width), nn.ReLU(inplace=True))
        self.conv2 = conv_bn(wide, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv2(self.dwconv(self.conv1(x))))


class GatherExpandDown(nn.Module):
    """Gather-and-expansion layer that halves the size, with a separable shortcut."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        wide = width_in * EXPANSION
        self.conv1 = ConvBNReLU(width_in, width_in)
        self.dwconv1 = conv_bn(width_in, wide, 3, stride=2, groups=width_in)
        self.dwconv2 = nn.Sequential(*conv_bn(wide, wide, 3, groups=wide), nn.ReLU(inplace=True))
        self.conv2 = conv_bn(wide, width, 1)
        self.shortcut = nn.Sequential(
            *conv_bn(width_in, width_in, 3, stride=2, groups=width_in), *conv_bn(width_in, width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.dwconv2(self.dwconv1(self.conv1(x))))
        return F.relu(out + self.shortcut(x))


class ContextEmbedding(nn.Module):
    """The mean over the whole image, added to each pixel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(width)
        self.conv_gap = ConvBNReLU(width, width, kernel=1)
        self.conv_last = ConvBNReLU(width, width)

    def forward(self, x: Tensor) -> Tensor:
        context = self.conv_gap(self.bn(x.mean(dim=(2, 3), keepdim=True)))
        out: Tensor = self.conv_last(x + context)
        return out


class GuidedAggregation(nn.Module):
    """Each branch is gated by the other, at the size of either, and both are added at 1/8."""

    def __init__(self, width: int, upsample: Upsampling, *, bias: bool) -> None:
        super().__init__()
        self.upsample = upsample
        self.left1 = nn.Sequential(*conv_bn(width, width, 3, groups=width), nn.Conv2d(width, width, 1, bias=bias))
        self.left2 = nn.Sequential(*conv_bn(width, width, 3, stride=2), nn.AvgPool2d(3, 2, 1))
        self.right1 = conv_bn(width, width, 3)
        self.right2 = nn.Sequential(*conv_bn(width, width, 3, groups=width), nn.Conv2d(width, width, 1, bias=bias))
        self.conv = nn.Sequential(*conv_bn(width, width, 3), nn.ReLU(inplace=True))

    def forward(self, detail: Tensor, semantic: Tensor) -> Tensor:
        size = size_of(detail)
        fine = self.left1(detail) * torch.sigmoid(self._enlarge(self.right1(semantic), size))
        coarse = self.left2(detail) * torch.sigmoid(self.right2(semantic))
        out: Tensor = self.conv(fine + self._enlarge(coarse, size))
        return out

    def _enlarge(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return resize(x, size) if self.upsample == "bilinear" else F.interpolate(x, size, mode="nearest")


class Head(nn.Module):
    """Logits at full size from a map at 1/stride.

    booster: doubles the map before the last layer, to stride^2 channels; as the auxiliary heads do.
    """

    def __init__(self, width_in: int, inner: int, classes: int, stride: int, *, booster: bool = False) -> None:
        super().__init__()
        self.conv = ConvBNReLU(width_in, inner)
        self.drop = nn.Dropout(0.1)
        before: nn.Module = nn.Identity()
        if booster:
            before = nn.Sequential(nn.Upsample(scale_factor=2), ConvBNReLU(inner, stride**2))
        self.conv_out = nn.Sequential(before, nn.Conv2d(stride**2 if booster else inner, classes, 1))
        self.scale = stride // 2 if booster else stride

    def forward(self, x: Tensor) -> Tensor:
        return self.enlarge(self.small(x))

    def small(self, x: Tensor) -> Tensor:
        """Logits at the size of the map."""
        logits: Tensor = self.conv_out(self.drop(self.conv(x)))
        return logits

    def enlarge(self, logits: Tensor) -> Tensor:
        """Logits at full size."""
        height, width = size_of(logits)
        return resize(logits, (height * self.scale, width * self.scale))
