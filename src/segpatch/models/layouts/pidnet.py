"""PIDNet's layouts: XuJiacong/PIDNet, and mmsegmentation, which has the same function under other names."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn

from segpatch.models.layouts.layout import Layout, Rules
from segpatch.models.pidnet import pidnet_l, pidnet_m, pidnet_s

_BRANCH = {"i": "", "p": "_", "d": "_d"}


def _plus(amount: int, template: str) -> Callable[[re.Match[str]], str]:
    """A replacement with the number that the pattern's last group caught, `amount` higher, in place of {}."""
    return lambda match: match.expand(template).format(int(match[match.lastindex or 0]) + amount)


def _branch(match: re.Match[str]) -> str:
    return f"layer{int(match[2]) + 3}{_BRANCH[match[1]]}."


MMSEGMENTATION: Rules = (
    (r"^backbone\.", ""),
    (r"^stem\.0\.conv\.", "conv1.0."),
    (r"^stem\.0\.bn\.", "conv1.1."),
    (r"^stem\.1\.conv\.", "conv1.3."),
    (r"^stem\.1\.bn\.", "conv1.4."),
    (r"^stem\.2\.", "layer1."),
    (r"^stem\.4\.", "layer2."),
    (r"^([ipd])_branch_layers\.(\d)\.", _branch),
    (r"^(layer.*\.conv\d)\.conv\.", r"\1."),
    (r"^(layer.*)\.conv(\d)\.bn\.", r"\1.bn\2."),
    (r"\.downsample\.conv\.", ".downsample.0."),
    (r"\.downsample\.bn\.", ".downsample.1."),
    (r"^(compression|diff|pag)_(\d)\.", _plus(2, r"\1{}.")),
    (r"^((?:compression|diff)\d|pag\d\.f_[ip])\.conv\.", r"\1.0."),
    (r"^((?:compression|diff)\d|pag\d\.f_[ip])\.bn\.", r"\1.1."),
    (r"^(pag\d)\.f_i\.", r"\1.f_y."),
    (r"^(pag\d)\.f_p\.", r"\1.f_x."),
    (r"^spp\.scales\.0\.bn\.", "spp.scale0.0."),
    (r"^spp\.scales\.0\.conv\.", "spp.scale0.2."),
    (r"^spp\.scales\.(\d)\.1\.bn\.", r"spp.scale\1.1."),
    (r"^spp\.scales\.(\d)\.1\.conv\.", r"spp.scale\1.3."),
    (r"^spp\.processes\.(\d)\.", _plus(1, "spp.process{}.")),
    (r"^spp\.processes\.", "spp.scale_process."),
    (r"^(spp\.(?:scale_process|process\d|compression|shortcut))\.bn\.", r"\1.0."),
    (r"^(spp\.(?:scale_process|process\d|compression|shortcut))\.conv\.", r"\1.2."),
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
