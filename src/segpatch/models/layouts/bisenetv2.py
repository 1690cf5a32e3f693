"""BiSeNet V2's layouts: CoinCheung/BiSeNet, and mmsegmentation, whose aggregation and auxiliary heads differ."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor

from segpatch.models.bisenetv2 import BiSeNetV2
from segpatch.models.layouts.layout import Layout, Rules

CLASSIFIER = "head.conv_out.1.weight"

MMSEGMENTATION: Rules = (
    (r"^backbone\.", ""),
    (r"^detail\.detail_branch\.(\d)\.", lambda match: f"detail.S{int(match[1]) + 1}."),
    (r"^semantic\.stage1\.conv_first\.", "segment.S1S2.conv."),
    (r"^semantic\.stage1\.convs\.", "segment.S1S2.left."),
    (r"^semantic\.stage1\.fuse_last\.", "segment.S1S2.fuse."),
    (r"^semantic\.stage2\.", "segment.S3."),
    (r"^semantic\.stage3\.", "segment.S4."),
    (r"^semantic\.stage4\.", "segment.S5_4."),
    (r"^semantic\.stage4_CEBlock\.gap\.1\.", "segment.S5_5.bn."),
    (r"^semantic\.stage4_CEBlock\.", "segment.S5_5."),
    (r"^(segment\.\w+\.0)\.dwconv\.0\.", r"\1.dwconv1."),  # a stage's first layer has two
    (r"^(segment\.\w+\.0)\.dwconv\.1\.", r"\1.dwconv2."),
    (r"\.(dwconv|conv2|shortcut)\.0\.", r".\1."),
    (r"^bga\.detail_dwconv\.0\.", "bga.left1."),
    (r"^bga\.detail_down\.0\.", "bga.left2."),
    (r"^bga\.semantic_conv\.0\.", "bga.right1."),
    (r"^bga\.semantic_dwconv\.0\.", "bga.right2."),
    (r"\.depthwise_conv\.conv\.", ".0."),
    (r"\.depthwise_conv\.bn\.", ".1."),
    (r"\.pointwise_conv\.conv\.", ".2."),
    (r"\.pointwise_conv\.bn\.", ".3."),
    (r"(\.dwconv[12]?|\.\d\.conv2|^bga\.\w+)\.conv\.", r"\1.0."),
    (r"(\.dwconv[12]?|\.\d\.conv2|^bga\.\w+)\.bn\.", r"\1.1."),
    (r"^decode_head\.convs\.0\.", "head.conv."),
    (r"^decode_head\.conv_seg\.", "head.conv_out.1."),
)


def of_old_code(state: Mapping[str, Tensor]) -> str | None:
    """Why a file of CoinCheung/BiSeNet from before July 2021 is of no use; None for a newer one."""
    if "head.conv_out.0.weight" in state or "head.conv_out.weight" in state:
        return (
            "it was written by the code of github.com/CoinCheung/BiSeNet from before July 2021, whose heads were "
            "others; use model_final_v2_city.pth of that project's releases, or train again"
        )
    return None


COINCHEUNG = Layout(
    source="coincheung",
    build=BiSeNetV2,
    classifier=CLASSIFIER,
    marks=("bga.left1.0.weight",),
    refuse=of_old_code,
    auxiliary=("aux2.", "aux3.", "aux4.", "aux5_4."),
    mean=(0.3257, 0.3690, 0.3223),
    std=(0.2112, 0.2148, 0.2115),
)
BISENETV2 = (
    COINCHEUNG,
    Layout(
        source="mmsegmentation",
        build=partial(BiSeNetV2, bga_upsample="bilinear", bga_bias=True),
        classifier=CLASSIFIER,
        marks=("backbone.bga.detail_dwconv.0.depthwise_conv.conv.weight",),
        rename=MMSEGMENTATION,
        unused=("auxiliary_head.",),
    ),
)
