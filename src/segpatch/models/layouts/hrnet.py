"""HRNet's layouts, plain and with OCR: mmsegmentation, and HRNet/HRNet-Semantic-Segmentation for W48."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from segpatch.models.hrnet import hrnet_w18, hrnet_w18_small, hrnet_w48
from segpatch.models.layouts.layout import Layout, Rules, State
from segpatch.models.ocr import hrnet_w18_ocr, hrnet_w48_ocr

_BACKBONE = ((r"^((?:conv|bn|layer|transition|stage)\d\.)", r"backbone.\1"),)
OFFICIAL: Rules = (
    *_BACKBONE,
    (r"^last_layer\.0\.", "decode_head.convs.0.conv."),
    (r"^last_layer\.1\.", "decode_head.convs.0.bn."),
    (r"^last_layer\.3\.", "decode_head.conv_seg."),
)
OFFICIAL_OCR: Rules = (
    *_BACKBONE,
    (r"^aux_head\.0\.", "decode_head.0.convs.0.conv."),
    (r"^aux_head\.1\.", "decode_head.0.convs.0.bn."),
    (r"^aux_head\.3\.", "decode_head.0.conv_seg."),
    (r"^conv3x3_ocr\.0\.", "decode_head.1.bottleneck.conv."),
    (r"^conv3x3_ocr\.1\.", "decode_head.1.bottleneck.bn."),
    (r"^cls_head\.", "decode_head.1.conv_seg."),
    (r"^ocr_distri_head\.conv_bn_dropout\.", "ocr_distri_head.object_context_block.bottleneck."),
    (r"^ocr_distri_head\.", "decode_head.1."),
    (r"\.f_pixel\.", ".query_project."),
    (r"\.f_object\.", ".key_project."),
    (r"\.f_down\.", ".value_project."),
    (r"\.f_up\.", ".out_project."),
    (r"\.(query|key)_project\.0\.", r".\1_project.0.conv."),
    (r"\.(query|key)_project\.1\.0\.", r".\1_project.0.bn."),
    (r"\.(query|key)_project\.2\.", r".\1_project.1.conv."),
    (r"\.(query|key)_project\.3\.0\.", r".\1_project.1.bn."),
    (r"\.(value_project|out_project|object_context_block\.bottleneck)\.0\.", r".\1.conv."),
    (r"\.(value_project|out_project|object_context_block\.bottleneck)\.1\.0\.", r".\1.bn."),
)


def fold_biases(state: State) -> State:
    """The same function without biases before a batch norm: each goes into the mean that the norm subtracts.

    The official heads have such biases, mmsegmentation's do not.
    """
    state = dict(state)
    for bias in [key for key in state if key.endswith(".conv.bias")]:
        mean = f"{bias.removesuffix('conv.bias')}bn.running_mean"
        if mean in state:
            state[mean] = state[mean] - state.pop(bias)
    return state


def _plain(build: Callable[..., nn.Module]) -> Layout:
    return Layout(
        source="mmsegmentation",
        build=build,
        classifier="decode_head.conv_seg.weight",
        marks=("backbone.transition1.0.0.weight", "decode_head.convs.0.conv.weight"),
    )


def _ocr(build: Callable[..., nn.Module]) -> Layout:
    return Layout(
        source="mmsegmentation",
        build=build,
        classifier="decode_head.1.conv_seg.weight",
        marks=("backbone.transition1.0.0.weight", "decode_head.1.bottleneck.conv.weight"),
    )


HRNET_W18_SMALL = (_plain(hrnet_w18_small),)
HRNET_W18 = (_plain(hrnet_w18),)
HRNET_W48 = (
    _plain(hrnet_w48),
    Layout(
        source="official",
        build=partial(hrnet_w48, by_factor=False),
        classifier="decode_head.conv_seg.weight",
        marks=("transition1.0.0.weight", "last_layer.0.weight"),
        rename=OFFICIAL,
        convert=fold_biases,
        unused=("loss.",),
    ),
)
HRNET_W18_OCR = (_ocr(hrnet_w18_ocr),)
HRNET_W48_OCR = (
    _ocr(hrnet_w48_ocr),
    Layout(
        source="official",
        build=partial(hrnet_w48_ocr, by_factor=False, align_corners=True),
        classifier="decode_head.1.conv_seg.weight",
        marks=("transition1.0.0.weight", "conv3x3_ocr.0.weight"),
        rename=OFFICIAL_OCR,
        convert=fold_biases,
        unused=("loss.",),
    ),
)
