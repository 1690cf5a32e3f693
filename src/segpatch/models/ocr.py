"""OCR: a second head that describes each pixel by the regions of the classes it resembles.

Source: Yuan, Chen, Wang, "Object-Contextual Representations", arXiv:1909.11065. Keys are those of mmsegmentation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

import torch
from torch import Tensor, nn

from segpatch.models.blocks import ConvBNReLU, FCNHead, initialise, size_of, supervised_loss
from segpatch.models.hrnet import HRBackbone, Resizing

COARSE_WEIGHT = 0.4  # of the loss, arXiv:1909.11065


class OCRNet(nn.Module):
    """HRNet with two heads, a coarse one and OCR upon it. Input (B, 3, H, W) of any size; logits at 1/4.

    width: of the maps in the OCR head; inner: of its attention.
    """

    size_multiple = 1

    def __init__(self, backbone: HRBackbone, classes: int = 19, *, width: int = 512, inner: int = 256) -> None:
        super().__init__()
        wide = backbone.width_out
        self.output_align_corners = backbone.align_corners
        self.backbone = backbone
        self.decode_head = nn.ModuleList(
            [FCNHead(wide, wide, classes, kernel=1, dropout=0.0), OCRHead(wide, width, inner, classes)]
        )
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Class logits (B, K, H/4, W/4), sizes rounded up."""
        return self.all_outputs(x)["main"]

    def raw_logits(self, x: Tensor) -> Tensor:
        """Class logits (B, K, H/4, W/4): what `forward` returns."""
        return self(x)  # type: ignore[no-any-return]

    def all_outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Class logits at 1/4 of the coarse head ("aux"), which inference needs too, and of OCR ("main")."""
        features = self.backbone(x)
        coarse_head, ocr_head = self.decode_head
        coarse = coarse_head(features)
        return {"aux": coarse, "main": ocr_head(features, coarse)}

    def training_loss(
        self, outputs: dict[str, Tensor], labels: Tensor, criterion: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """The paper's loss, a scalar: main + 0.4 coarse.

        labels (B, H, W), IGNORE where there is no truth; criterion(logits, labels) is the pixel loss. Source:
        arXiv:1909.11065.
        """
        return supervised_loss(
            outputs,
            labels,
            criterion,
            auxiliary_weight=COARSE_WEIGHT,
            align_corners=self.output_align_corners,
        )


class OCRHead(nn.Module):
    """Logits from a map and from coarse logits of the same size."""

    def __init__(self, width_in: int, width: int, inner: int, classes: int) -> None:
        super().__init__()
        self.bottleneck = ConvBNReLU(width_in, width)
        self.object_context_block = ObjectContext(width, inner)
        self.conv_seg = nn.Conv2d(width, classes, 1)

    def forward(self, features: Tensor, coarse: Tensor) -> Tensor:
        pixels = self.bottleneck(features)
        logits: Tensor = self.conv_seg(self.object_context_block(pixels, gather_regions(pixels, coarse)))
        return logits


class ObjectContext(nn.Module):
    """Each pixel beside what it attends to among the regions."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.query_project = nn.Sequential(ConvBNReLU(width, inner, 1), ConvBNReLU(inner, inner, 1))
        self.key_project = nn.Sequential(ConvBNReLU(width, inner, 1), ConvBNReLU(inner, inner, 1))
        self.value_project = ConvBNReLU(width, inner, 1)
        self.out_project = ConvBNReLU(inner, width, 1)
        self.bottleneck = ConvBNReLU(2 * width, width, 1)

    def forward(self, pixels: Tensor, regions: Tensor) -> Tensor:
        """A map like `pixels` (B, C, H, W), for regions (B, C, K, 1)."""
        query = self.query_project(pixels).flatten(2)
        key, value = self.key_project(regions).flatten(2), self.value_project(regions).flatten(2)
        likeness = key.transpose(1, 2) @ query / query.shape[1] ** 0.5  # (B, K, H*W)
        context = (value @ likeness.softmax(dim=1)).unflatten(2, size_of(pixels))
        out: Tensor = self.bottleneck(torch.cat([self.out_project(context), pixels], dim=1))
        return out


def gather_regions(pixels: Tensor, coarse: Tensor) -> Tensor:
    """One vector for each class, (B, C, K, 1): the mean of pixels (B, C, H, W), weighted by a softmax of the
    class's coarse logits (B, K, H, W) over the pixels."""
    weights = coarse.flatten(2).softmax(dim=2)
    return (pixels.flatten(2) @ weights.transpose(1, 2)).unsqueeze(3)


def hrnet_w18_ocr(classes: int = 19, *, auxiliary: bool = True, **resizing: Unpack[Resizing]) -> OCRNet:
    """HRNet-W18 with OCR, 12 million parameters. `auxiliary` changes nothing: inference needs both heads."""
    return OCRNet(HRBackbone(18, **resizing), classes)


def hrnet_w48_ocr(classes: int = 19, *, auxiliary: bool = True, **resizing: Unpack[Resizing]) -> OCRNet:
    """HRNet-W48 with OCR, 70 million parameters. `auxiliary` changes nothing: inference needs both heads."""
    return OCRNet(HRBackbone(48, **resizing), classes)
