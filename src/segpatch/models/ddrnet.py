"""DDRNet: a deep branch for context and a high-resolution one for detail, which exchange their maps twice.

Source: Hong, Pan, Sun, Jia, "DDRNet", arXiv:2101.06085. Keys are those of the authors' release.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from segpatch.models.aggregation import DAPPM, Head, stem
from segpatch.models.blocks import (
    Bottleneck,
    basic_stage,
    check_size,
    conv_bn,
    initialise,
    resize,
    size_of,
    supervised_loss,
)

AUXILIARY_WEIGHT = 0.4  # of the loss, arXiv:2101.06085


class DDRNet(nn.Module):
    """The whole network. Input (B, 3, H, W), sides in multiples of 8; logits at 1/8.

    planes: width of the stem; ppm_planes: width of a scale of the pyramid pooling; head_planes: width inside the
    heads; auxiliary: with the head on the detail branch, which only training needs.
    """

    size_multiple = 8
    output_align_corners = False

    def __init__(
        self,
        classes: int = 19,
        *,
        planes: int = 32,
        ppm_planes: int = 128,
        head_planes: int = 64,
        auxiliary: bool = True,
    ) -> None:
        super().__init__()
        c = planes
        self.auxiliary = auxiliary
        self.conv1 = stem(c)

        self.layer1 = basic_stage(c, c, 2)
        self.layer2 = basic_stage(c, 2 * c, 2, stride=2)
        self.layer3 = basic_stage(2 * c, 4 * c, 2, stride=2)
        self.layer4 = basic_stage(4 * c, 8 * c, 2, stride=2)
        self.layer5 = nn.Sequential(Bottleneck(8 * c, 8 * c, stride=2))
        self.spp = DAPPM(16 * c, ppm_planes, 4 * c)

        self.layer3_ = basic_stage(2 * c, 2 * c, 2)
        self.layer4_ = basic_stage(2 * c, 2 * c, 2)
        self.layer5_ = nn.Sequential(Bottleneck(2 * c, 2 * c))

        self.compression3 = conv_bn(4 * c, 2 * c, 1)
        self.compression4 = conv_bn(8 * c, 2 * c, 1)
        self.down3 = conv_bn(2 * c, 4 * c, 3, stride=2)
        self.down4 = nn.Sequential(
            *conv_bn(2 * c, 4 * c, 3, stride=2), nn.ReLU(inplace=True), *conv_bn(4 * c, 8 * c, 3, stride=2)
        )

        self.final_layer = Head(4 * c, head_planes, classes)
        if auxiliary:
            self.seghead_extra = Head(2 * c, head_planes, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Class logits (B, K, H/8, W/8)."""
        fused, _ = self._branches(x)
        main: Tensor = self.final_layer(fused)
        return main

    def raw_logits(self, x: Tensor) -> Tensor:
        """Class logits (B, K, H/8, W/8): what `forward` returns."""
        return self(x)  # type: ignore[no-any-return]

    def all_outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Class logits of the whole ("main") and of the detail branch after the first exchange ("aux"), at 1/8."""
        fused, detail = self._branches(x)
        main = self.final_layer(fused)
        return {"main": main, "aux": self.seghead_extra(detail)} if self.auxiliary else {"main": main}

    def training_loss(
        self, outputs: dict[str, Tensor], labels: Tensor, criterion: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """The paper's loss, a scalar: main + 0.4 auxiliary.

        labels (B, H, W), IGNORE where there is no truth; criterion(logits, labels) is the pixel loss. Without the
        auxiliary head only the main term is left. Source: arXiv:2101.06085.
        """
        return supervised_loss(outputs, labels, criterion, auxiliary_weight=AUXILIARY_WEIGHT)

    def _branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The fused map, and the detail map that the auxiliary head sees; both at 1/8."""
        check_size(x, self.size_multiple)
        shared = F.relu(self.layer2(F.relu(self.layer1(self.conv1(x)))))

        context, detail = self.layer3(shared), self.layer3_(shared)
        context, detail = exchange(context, detail, self.down3, self.compression3)
        seen_by_head = detail

        context, detail = self.layer4(F.relu(context)), self.layer4_(F.relu(detail))
        context, detail = exchange(context, detail, self.down4, self.compression4)

        context, detail = self.spp(self.layer5(F.relu(context))), self.layer5_(F.relu(detail))
        return resize(context, size_of(detail)) + detail, seen_by_head


def exchange(context: Tensor, detail: Tensor, down: nn.Module, compress: nn.Module) -> tuple[Tensor, Tensor]:
    """The context and the detail map, each plus what the other was before, rectified and brought to its size."""
    enriched = context + down(F.relu(detail))
    return enriched, detail + resize(compress(F.relu(context)), size_of(detail))


def ddrnet_23_slim(classes: int = 19, auxiliary: bool = True) -> DDRNet:
    """DDRNet-23-slim: 5.7 million parameters at inference."""
    return DDRNet(classes, auxiliary=auxiliary)


def ddrnet_23(classes: int = 19, auxiliary: bool = True) -> DDRNet:
    """DDRNet-23: twice as wide as slim."""
    return DDRNet(classes, planes=64, head_planes=128, auxiliary=auxiliary)
