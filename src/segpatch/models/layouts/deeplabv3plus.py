"""DeepLabV3+'s layouts: mmsegmentation with a deep or a plain stem, and VainF/DeepLabV3Plus-Pytorch.

mmsegmentation's checkpoints for 769x769 crops resize corner on corner, and those named d16 stay at 1/16.
Nothing in their keys says so; the list of published checkpoints does, which knows them by their names.
"""

from __future__ import annotations

from functools import partial

from segpatch.models.deeplabv3plus import (
    DeepLabV3Plus,
    plain_deeplabv3plus_mobilenet,
    plain_deeplabv3plus_resnet,
)
from segpatch.models.layouts.layout import Layout

_HEAD = "decode_head.c1_bottleneck.conv.weight"
_PLAIN_HEAD = "classifier.aspp.convs.0.0.weight"


def _mmsegmentation(depth: int) -> tuple[Layout, ...]:
    classifier, auxiliary = "decode_head.conv_seg.weight", ("auxiliary_head.",)
    return (
        Layout(
            source="mmsegmentation",
            build=partial(DeepLabV3Plus, depth=depth),
            classifier=classifier,
            marks=("backbone.stem.0.weight", _HEAD),
            auxiliary=auxiliary,
        ),
        Layout(
            source="mmsegmentation-plain-stem",
            build=partial(DeepLabV3Plus, depth=depth, stem=None),
            classifier=classifier,
            marks=("backbone.conv1.weight", _HEAD),
            auxiliary=auxiliary,
        ),
    )


def _vainf(depth: int) -> Layout:
    return Layout(
        source="vainf",
        build=partial(plain_deeplabv3plus_resnet, depth=depth),
        classifier="classifier.classifier.3.weight",
        marks=("backbone.conv1.weight", _PLAIN_HEAD),
    )


DEEPLABV3PLUS_R18 = _mmsegmentation(18)
DEEPLABV3PLUS_R50 = (*_mmsegmentation(50), _vainf(50))
DEEPLABV3PLUS_R101 = (*_mmsegmentation(101), _vainf(101))
DEEPLABV3PLUS_MOBILENET = (
    Layout(
        source="vainf",
        build=plain_deeplabv3plus_mobilenet,
        classifier="classifier.classifier.3.weight",
        marks=("backbone.low_level_features.0.0.weight", _PLAIN_HEAD),
    ),
)
