"""BiSeNet's layouts: CoinCheung/BiSeNet, and mmsegmentation, whose fusion has one ReLU more."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor

from segpatch.models.bisenetv1 import BiSeNetV1
from segpatch.models.layouts.layout import Layout, Rules

CLASSIFIER = "conv_out.conv_out.weight"
AUXILIARY = ("conv_out16.", "conv_out32.")

MMSEGMENTATION: Rules = (
    (r"^backbone\.context_path\.backbone\.", "cp.resnet."),
    (r"^backbone\.context_path\.gap_conv\.1\.", "cp.conv_avg."),
    (r"^backbone\.context_path\.", "cp."),
    (r"^(cp\.arm\d\d)\.conv_layer\.", r"\1.conv."),
    (r"^(cp\.arm\d\d)\.atten_conv_layer\.1\.(conv|bn)\.", r"\1.\2_atten."),
    (r"^backbone\.spatial_path\.layer4\.", "sp.conv_out."),
    (r"^backbone\.spatial_path\.layer(\d)\.", r"sp.conv\1."),
    (r"^backbone\.ffm\.conv1\.", "ffm.convblk."),
    (r"^backbone\.ffm\.conv_atten\.0\.(conv|bn)\.", r"ffm.\1."),
    (r"^decode_head\.", "conv_out."),
    (r"^auxiliary_head\.0\.", "conv_out16."),
    (r"^auxiliary_head\.1\.", "conv_out32."),
    (r"^(conv_out\d*)\.convs\.0\.", r"\1.conv."),
    (r"^(conv_out\d*)\.conv_seg\.", r"\1.conv_out."),
)


def of_old_code(state: Mapping[str, Tensor]) -> str | None:
    """Why a file of CoinCheung/BiSeNet from before July 2021 is of no use; None for a newer one."""
    shuffled = CLASSIFIER in state and len(state[CLASSIFIER]) == 19 * 8**2  # a logit for each pixel of 8x8
    if shuffled or "ffm.conv1.weight" in state:
        return (
            "it was written by the code of github.com/CoinCheung/BiSeNet from before July 2021, whose fusion and "
            "heads were others; use model_final_v1_city_new.pth of that project's releases, or train again"
        )
    return None


def _mmsegmentation(depth: int, width: int) -> Layout:
    return Layout(
        source="mmsegmentation",
        build=partial(BiSeNetV1, depth=depth, width=width, ffm_relu=True),
        classifier=CLASSIFIER,
        marks=("backbone.context_path.arm16.conv_layer.conv.weight",),
        rename=MMSEGMENTATION,
        auxiliary=AUXILIARY,
    )


COINCHEUNG = Layout(
    source="coincheung",
    build=BiSeNetV1,
    classifier=CLASSIFIER,
    marks=("cp.arm16.conv.conv.weight",),
    refuse=of_old_code,
    auxiliary=AUXILIARY,
    mean=(0.3257, 0.3690, 0.3223),
    std=(0.2112, 0.2148, 0.2115),
)
BISENETV1_R18 = (COINCHEUNG, _mmsegmentation(18, 128))
BISENETV1_R50 = (_mmsegmentation(50, 512),)
