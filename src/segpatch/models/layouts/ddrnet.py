"""DDRNet's layouts: ydhongHIT/DDRNet, and mmsegmentation, which has the same function under other names."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn

from segpatch.models.ddrnet import ddrnet_23, ddrnet_23_slim
from segpatch.models.layouts.aggregation import BLOCKS, POOLING, STEM, plus
from segpatch.models.layouts.layout import Layout, Rules

_BRANCH = {"context": "", "spatial": "_"}


def _branch(match: re.Match[str]) -> str:
    return f"layer{int(match[2]) + 3}{_BRANCH[match[1]]}."


MMSEGMENTATION: Rules = (
    (r"^backbone\.", ""),
    *STEM,
    (r"^(context|spatial)_branch_layers\.(\d)\.", _branch),
    *BLOCKS,
    (r"^compression_(\d)\.", plus(2, "compression{}.")),
    (r"^down_1\.", "down3."),
    (r"^down_2\.0\.", "down4."),
    (r"^down_2\.1\.conv\.", "down4.3."),
    (r"^down_2\.1\.bn\.", "down4.4."),
    (r"^((?:compression|down)\d)\.conv\.", r"\1.0."),
    (r"^((?:compression|down)\d)\.bn\.", r"\1.1."),
    *POOLING,
    (r"^decode_head\.(head|conv_seg)\.", r"final_layer.\1."),
    (r"^decode_head\.aux_(head|cls_seg)\.", r"seghead_extra.\1."),
    (r"^(final_layer|seghead_extra)\.head\.0\.bn\.", r"\1.bn1."),
    (r"^(final_layer|seghead_extra)\.head\.0\.conv\.", r"\1.conv1."),
    (r"^(final_layer|seghead_extra)\.head\.1\.", r"\1.bn2."),
    (r"^(final_layer|seghead_extra)\.\w+_seg\.", r"\1.conv2."),
)


def _layouts(build: Callable[..., nn.Module]) -> tuple[Layout, ...]:
    classifier, auxiliary = "final_layer.conv2.weight", ("seghead_extra.",)
    return (
        Layout(
            source="official",
            build=build,
            classifier=classifier,
            marks=("down4.3.weight",),
            auxiliary=auxiliary,
            unused=("loss.",),
        ),
        Layout(
            source="mmsegmentation",
            build=build,
            classifier=classifier,
            marks=("backbone.context_branch_layers.0.0.conv1.conv.weight",),
            rename=MMSEGMENTATION,
            zero_biases=("conv1.0.bias", "conv1.3.bias"),
            auxiliary=auxiliary,
        ),
    )


DDRNET_23_SLIM, DDRNET_23 = _layouts(ddrnet_23_slim), _layouts(ddrnet_23)
