"""PIDNet's layouts: XuJiacong/PIDNet, and mmsegmentation, which has the same function under other names."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn

from segpatch.models.layouts.aggregation import BLOCKS, POOLING, STEM, plus
from segpatch.models.layouts.layout import Layout, Rules
from segpatch.models.pidnet import pidnet_l, pidnet_m, pidnet_s

_BRANCH = {"i": "", "p": "_", "d": "_d"}


def _branch(match: re.Match[str]) -> str:
    return f"layer{int(match[2]) + 3}{_BRANCH[match[1]]}."


MMSEGMENTATION: Rules = (
    (r"^backbone\.", ""),
    *STEM,
    (r"^([ipd])_branch_layers\.(\d)\.", _branch),
    *BLOCKS,
    (r"^(compression|diff|pag)_(\d)\.", plus(2, r"\1{}.")),
    (r"^((?:compression|diff)\d|pag\d\.f_[ip])\.conv\.", r"\1.0."),
    (r"^((?:compression|diff)\d|pag\d\.f_[ip])\.bn\.", r"\1.1."),
    (r"^(pag\d)\.f_i\.", r"\1.f_y."),
    (r"^(pag\d)\.f_p\.", r"\1.f_x."),
    *POOLING,
    (r"^dfm\.conv\.bn\.", "dfm.conv.0."),
    (r"^dfm\.conv\.conv\.", "dfm.conv.2."),
    (r"^dfm\.f_([ip])\.conv\.", r"dfm.conv_\1.0."),
    (r"^dfm\.f_([ip])\.bn\.", r"dfm.conv_\1.1."),
    (r"^decode_head\.(i_head|conv_seg)\b", r"decode_head.final_layer.\1"),
    (r"^decode_head\.(p_head|p_cls_seg)\b", r"decode_head.seghead_p.\1"),
    (r"^decode_head\.(d_head|d_cls_seg)\b", r"decode_head.seghead_d.\1"),
    (r"^decode_head\.(\w+)\.\w_head\.conv\.bn\.", r"\1.bn1."),
    (r"^decode_head\.(\w+)\.\w_head\.conv\.conv\.", r"\1.conv1."),
    (r"^decode_head\.(\w+)\.\w_head\.norm\.", r"\1.bn2."),
    (r"^decode_head\.(\w+)\.\w+_seg\.", r"\1.conv2."),
)


def _layouts(build: Callable[..., nn.Module]) -> tuple[Layout, ...]:
    classifier, auxiliary = "final_layer.conv2.weight", ("seghead_p.", "seghead_d.")
    return (
        Layout(
            source="official",
            build=build,
            classifier=classifier,
            marks=("pag3.f_x.0.weight",),
            auxiliary=auxiliary,
            unused=("sem_loss.", "bd_loss."),
        ),
        Layout(
            source="mmsegmentation",
            build=build,
            classifier=classifier,
            marks=("backbone.pag_1.f_i.conv.weight",),
            rename=MMSEGMENTATION,
            zero_biases=("conv1.0.bias", "conv1.3.bias"),
            auxiliary=auxiliary,
        ),
    )


PIDNET_S, PIDNET_M, PIDNET_L = _layouts(pidnet_s), _layouts(pidnet_m), _layouts(pidnet_l)
