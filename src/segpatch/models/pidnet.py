"""PIDNet: a detail (P), a context (I) and a boundary (D) branch, as the parts of a PID controller.

Source: Xu, Xiong, Bhattacharyya, "PIDNet", arXiv:2206.02066. Keys are those of the authors' release.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segpatch.models.aggregation import DAPPM, Head, Pyramid, bn_relu_conv, stem
from segpatch.models.blocks import (
    BasicBlock,
    Bottleneck,
    basic_stage,
    check_size,
    conv_bn,
    initialise,
    resize,
    size_of,
)
from segpatch.models.boundaries import boundary_loss, keep_boundaries
from segpatch.types import IGNORE

P_WEIGHT = 0.4  # loss weights of arXiv:2206.02066
BOUNDARY_WEIGHT = 20.0


class PIDNet(nn.Module):
    """The whole network. Input (B, 3, H, W), sides in multiples of 8; logits at 1/8.

    m, n: residual blocks in the shallow and in the deep stages; planes: width of the stem; ppm_planes: width
    of a scale of the pyramid pooling; head_planes: width inside the heads; auxiliary: with the P and D heads,
    which only training needs. m = 2 is the light design (PAPPM, Light-Bag), above is the large one (DAPPM, Bag).
    """

    size_multiple = 8
    output_align_corners = True

    def __init__(
        self,
        classes: int = 19,
        *,
        m: int = 2,
        n: int = 3,
        planes: int = 32,
        ppm_planes: int = 96,
        head_planes: int = 128,
        auxiliary: bool = True,
    ) -> None:
        super().__init__()
        c, large = planes, m > 2
        self.auxiliary = auxiliary
        self.conv1 = stem(c)

        self.layer1 = basic_stage(c, c, m)
        self.layer2 = basic_stage(c, 2 * c, m, stride=2)
        self.layer3 = basic_stage(2 * c, 4 * c, n, stride=2)
        self.layer4 = basic_stage(4 * c, 8 * c, n, stride=2)
        self.layer5 = nn.Sequential(Bottleneck(8 * c, 8 * c, stride=2), Bottleneck(16 * c, 8 * c))
        self.spp = (DAPPM if large else PAPPM)(16 * c, ppm_planes, 4 * c)

        self.layer3_ = basic_stage(2 * c, 2 * c, m)
        self.layer4_ = basic_stage(2 * c, 2 * c, m)
        self.layer5_ = nn.Sequential(Bottleneck(2 * c, 2 * c))
        self.compression3 = conv_bn(4 * c, 2 * c, 1)
        self.compression4 = conv_bn(8 * c, 2 * c, 1)
        self.pag3 = Pag(2 * c, c)
        self.pag4 = Pag(2 * c, c)

        d = 2 * c if large else c  # width of the D branch at its start
        self.layer3_d = BasicBlock(2 * c, d, final_relu=False)
        self.layer4_d = BasicBlock(d, 2 * c, final_relu=False) if large else nn.Sequential(Bottleneck(d, c))
        self.layer5_d = nn.Sequential(Bottleneck(2 * c, 2 * c))
        self.diff3 = conv_bn(4 * c, d, 3)
        self.diff4 = conv_bn(8 * c, 2 * c, 3)

        self.dfm = Bag(4 * c) if large else LightBag(4 * c)
        self.final_layer = Head(4 * c, head_planes, classes)
        if auxiliary:
            self.seghead_p = Head(2 * c, head_planes, classes)
            self.seghead_d = Head(2 * c, c, 1)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Class logits (B, K, H/8, W/8)."""
        fused, _, _ = self._branches(x)
        main: Tensor = self.final_layer(fused)
        return main

    def raw_logits(self, x: Tensor) -> Tensor:
        """Class logits (B, K, H/8, W/8): what `forward` returns."""
        return self(x)  # type: ignore[no-any-return]

    def all_outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Class logits of the P branch ("p") and of the whole ("main"), the "boundary" logit; all at 1/8."""
        fused, p, d = self._branches(x)
        main = self.final_layer(fused)
        if not self.auxiliary:
            return {"main": main}
        return {"p": self.seghead_p(p), "main": main, "boundary": self.seghead_d(d)}

    def training_loss(
        self, outputs: dict[str, Tensor], labels: Tensor, criterion: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """The paper's loss, a scalar: 0.4 P + main + 20 boundary + main on the boundaries that D sees.

        labels (B, H, W), IGNORE where there is no truth; criterion(logits, labels) is the pixel loss. Without
        auxiliary heads only the main term is left. Source: arXiv:2206.02066.
        """
        full = {
            name: resize(output.float(), size_of(labels), align_corners=self.output_align_corners)
            for name, output in outputs.items()
        }
        loss = criterion(full["main"], labels)
        if "boundary" not in full:
            return loss
        loss = loss + P_WEIGHT * criterion(full["p"], labels)
        loss = loss + BOUNDARY_WEIGHT * boundary_loss(full["boundary"], labels)
        near = keep_boundaries(labels, full["boundary"])
        if bool((near != IGNORE).any()):  # a mean over no pixel would be NaN
            loss = loss + criterion(full["main"], near)
        return loss

    def _branches(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The fused map, and the P and D maps that the auxiliary heads see; all at 1/8.

        The heads see both maps rectified, as the published weights expect.
        """
        check_size(x, self.size_multiple)
        size = (x.shape[-2] // 8, x.shape[-1] // 8)

        i = F.relu(self.layer1(self.conv1(x)))
        i = F.relu(self.layer2(i))
        p, d = self.layer3_(i), self.layer3_d(i)

        i = F.relu(self.layer3(i))
        p = seen_by_p = F.relu(self.pag3(p, self.compression3(i)))
        d = F.relu(d + resize(self.diff3(i), size))
        p, d = self.layer4_(p), self.layer4_d(d)

        i = F.relu(self.layer4(i))
        p = F.relu(self.pag4(p, self.compression4(i)))
        d = seen_by_d = F.relu(d + resize(self.diff4(i), size))
        p, d = self.layer5_(p), self.layer5_d(d)

        i = resize(self.spp(self.layer5(i)), size)
        return self.dfm(p, i, d), seen_by_p, seen_by_d


class Pag(nn.Module):
    """Pixel-attention-guided fusion: each pixel of P takes from I as much as the two agree."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.f_x = conv_bn(width, inner, 1)
        self.f_y = conv_bn(width, inner, 1)

    def forward(self, p: Tensor, i: Tensor) -> Tensor:
        size = size_of(p)
        agreement = (self.f_x(p) * resize(self.f_y(i), size)).sum(dim=1, keepdim=True)
        sigma = torch.sigmoid(agreement)
        return (1 - sigma) * p + sigma * resize(i, size)


class PAPPM(Pyramid):
    """Parallel aggregation: every scale meets the unpooled one, all in one grouped convolution."""

    def __init__(self, width_in: int, inner: int, width: int) -> None:
        super().__init__(width_in, inner, width)
        self.scale_process = bn_relu_conv(4 * inner, 4 * inner, 3, groups=4)

    def forward(self, x: Tensor) -> Tensor:
        fine, pooled = self.scales(x)
        processed = self.scale_process(torch.cat([scale + fine for scale in pooled], dim=1))
        return self.merge(x, [fine, processed])


class LightBag(nn.Module):
    """Boundary-attention-guided fusion with 1x1 convolutions: P decides at boundaries, I elsewhere."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_p = conv_bn(width, width, 1)
        self.conv_i = conv_bn(width, width, 1)

    def forward(self, p: Tensor, i: Tensor, d: Tensor) -> Tensor:
        edge = torch.sigmoid(d)
        out: Tensor = self.conv_p(p + (1 - edge) * i) + self.conv_i(i + edge * p)
        return out


class Bag(nn.Module):
    """Boundary-attention-guided fusion of the large network: one 3x3 convolution of the mixture."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = bn_relu_conv(width, width, 3)

    def forward(self, p: Tensor, i: Tensor, d: Tensor) -> Tensor:
        edge = torch.sigmoid(d)
        out: Tensor = self.conv(edge * p + (1 - edge) * i)
        return out


def pidnet_s(classes: int = 19, auxiliary: bool = True) -> PIDNet:
    """PIDNet-S: 7.6 million parameters at inference."""
    return PIDNet(classes, auxiliary=auxiliary)


def pidnet_m(classes: int = 19, auxiliary: bool = True) -> PIDNet:
    """PIDNet-M: twice as wide as S."""
    return PIDNet(classes, planes=64, auxiliary=auxiliary)


def pidnet_l(classes: int = 19, auxiliary: bool = True) -> PIDNet:
    """PIDNet-L: deeper than M, with the heavier fusions."""
    return PIDNet(classes, m=3, n=4, planes=64, ppm_planes=112, head_planes=256, auxiliary=auxiliary)
