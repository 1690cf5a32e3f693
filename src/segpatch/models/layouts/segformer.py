"""SegFormer's layouts: NVlabs."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from segpatch.models.layouts.layout import Layout
from segpatch.models.segformer import segformer_b0


def _layouts(build: Callable[..., nn.Module]) -> tuple[Layout, ...]:
    return (
        Layout(
            source="nvlabs",
            build=build,
            classifier="decode_head.linear_pred.weight",
            marks=("backbone.patch_embed1.proj.weight",),
            unused=("decode_head.conv_seg.",),
        ),
    )


SEGFORMER_B0 = _layouts(segformer_b0)
