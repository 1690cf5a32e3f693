"""PSPNet: pyramid pooling on a dilated ResNet.

Source: Zhao et al., "Pyramid Scene Parsing Network", arXiv:1612.01105. Keys are those of mmsegmentation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from segpatch.models.blocks import (
    ConvBNReLU,
    FCNHead,
    check_size,
    initialise,
    resize,
    size_of,
    supervised_loss,
)
from segpatch.models.resnet import DEEP_STEM, resnet_d8

AUXILIARY_WEIGHT = 0.4  # arXiv:1612.01105
BINS = (1, 2, 3, 6)  # sides of the pooled maps, arXiv:1612.01105


class PSPNet(nn.Module):
    """The whole network. Input (B, 3, H, W) of any size; logits at 1/8.

    depth, stem: of the ResNet, which stays at 1/8; auxiliary: with the head on its third stage, which only
    training needs. aligned: the form of github.com/hszhao/semseg. Its resizing keeps corners on corners, so its
    sides are multiples of 8 plus 1; it returns logits at full size; and its dilated stages are dilated from
    their first block on. align_corners: of every resize, in the other form too.
    """

    def __init__(
        self,
        classes: int = 19,
        *,
        depth: int = 50,
        stem: Sequence[int] | None = DEEP_STEM,
        aligned: bool = False,
        align_corners: bool = False,
        auxiliary: bool = True,
    ) -> None:
        super().__init__()
        self.size_multiple, self.size_offset = (8, 1) if aligned else (1, 0)
        self.full_size = aligned
        self.output_align_corners = align_corners or aligned
        self.auxiliary = auxiliary
        self.backbone = resnet_d8(depth, stem, contract=not aligned)
        _, _, third, last = self.backbone.widths
        self.decode_head = PyramidPooling(last, classes, align_corners=self.output_align_corners)
        if auxiliary:
            self.auxiliary_head = FCNHead(third, third // 4, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Class logits (B, K, H/8, W/8), sizes rounded up; (B, K, H, W) of the aligned form."""
        return self._enlarge(self.raw_logits(x), x)

    def raw_logits(self, x: Tensor) -> Tensor:
        """Class logits (B, K, H/8, W/8), sizes rounded up."""
        logits: Tensor = self.decode_head(self._maps(x)[-1])
        return logits

    def all_outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Class logits: "main", and "aux", of the third stage; both at the size that `forward` returns."""
        _, _, c3, c4 = self._maps(x)
        outputs = {"main": self._enlarge(self.decode_head(c4), x)}
        if self.auxiliary:
            outputs["aux"] = self._enlarge(self.auxiliary_head(c3), x)
        return outputs

    def training_loss(
        self, outputs: dict[str, Tensor], labels: Tensor, criterion: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """criterion(logits, labels) of main + 0.4 aux, a scalar; labels (B, H, W). Source: arXiv:1612.01105."""
        return supervised_loss(
            outputs,
            labels,
            criterion,
            auxiliary_weight=AUXILIARY_WEIGHT,
            align_corners=self.output_align_corners,
        )

    def _maps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        check_size(x, self.size_multiple, self.size_offset)
        maps: tuple[Tensor, Tensor, Tensor, Tensor] = self.backbone(x)
        return maps

    def _enlarge(self, logits: Tensor, x: Tensor) -> Tensor:
        """The logits as `forward` returns them."""
        return resize(logits, size_of(x), align_corners=True) if self.full_size else logits


class PyramidPooling(nn.Module):
    """Logits from a map and its means over 1x1, 2x2, 3x3 and 6x6 fields.

    Keys: psp_modules.0.1 to 3.1, bottleneck, conv_seg.
    """

    def __init__(self, width_in: int, classes: int, *, align_corners: bool) -> None:
        super().__init__()
        inner = width_in // 4
        pooled = [nn.Sequential(nn.AdaptiveAvgPool2d(side), ConvBNReLU(width_in, inner, 1)) for side in BINS]
        self.psp_modules = nn.ModuleList(pooled)
        self.bottleneck = ConvBNReLU(width_in + len(BINS) * inner, inner)
        self.dropout = nn.Dropout2d(0.1)
        self.conv_seg = nn.Conv2d(inner, classes, 1)
        self.align_corners = align_corners

    def forward(self, x: Tensor) -> Tensor:
        size = size_of(x)
        pooled = [resize(module(x), size, align_corners=self.align_corners) for module in self.psp_modules]
        logits: Tensor = self.conv_seg(self.dropout(self.bottleneck(torch.cat([x, *pooled], dim=1))))
        return logits
