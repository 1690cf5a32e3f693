"""ICNet's layouts: mmsegmentation, liminn/ICNet-pytorch, and the latter on torchvision's plain ResNet-50."""

from __future__ import annotations

from functools import partial

from segpatch.models.icnet import ICNet, TwoPassICNet
from segpatch.models.layouts.layout import Layout, Rules

DEEP_STEM: Rules = (
    (r"^pretrained\.conv1\.", "pretrained.stem."),
    (r"^pretrained\.bn1\.", "pretrained.stem.7."),
)


def _mmsegmentation(depth: int) -> Layout:
    return Layout(
        source="mmsegmentation",
        build=partial(ICNet, depth=depth),
        classifier="decode_head.conv_seg.weight",
        marks=("neck.cff_12.conv_low.conv.weight",),
        auxiliary=("auxiliary_head.",),
    )


def _two_pass(source: str, stem: str, depth: int, *, dilated: bool) -> Layout:
    return Layout(
        source=source,
        build=partial(TwoPassICNet, depth=depth, dilated=dilated),
        classifier="head.conv_cls.weight",
        marks=(stem, "head.cff_12.conv_low.0.weight"),
        rename=DEEP_STEM if dilated else (),
        auxiliary=("head.cff_12.conv_low_cls.", "head.cff_24.conv_low_cls."),
        unused=("pretrained.fc.",),
    )


def _liminn(depth: int) -> Layout:
    return _two_pass("liminn", "pretrained.conv1.0.weight", depth, dilated=True)


ICNET_R18 = (_mmsegmentation(18),)
ICNET_R50 = (
    _mmsegmentation(50),
    _liminn(50),
    _two_pass("torchvision", "pretrained.conv1.weight", 50, dilated=False),
)
ICNET_R101 = (_mmsegmentation(101), _liminn(101))
