"""PSPNet's layouts: mmsegmentation with a deep or a plain stem, and hszhao/semseg.

mmsegmentation's checkpoints for 769x769 crops resize corner on corner, and those named d32 go down to 1/32.
Nothing in their keys says so; the list of published checkpoints does, which knows them by their names.
"""

from __future__ import annotations

from functools import partial

from segpatch.models.layouts.layout import Layout, Rules
from segpatch.models.pspnet import PSPNet

_CLASSIFIER, _AUXILIARY = "decode_head.conv_seg.weight", ("auxiliary_head.",)
_SEMSEG_STEM = (64, 64, 128)

SEMSEG: Rules = (
    (r"^layer0\.", "backbone.stem."),
    (r"^layer([1-4])\.", r"backbone.layer\1."),
    (r"^ppm\.features\.(\d)\.1\.", r"decode_head.psp_modules.\1.1.conv."),
    (r"^ppm\.features\.(\d)\.2\.", r"decode_head.psp_modules.\1.1.bn."),
    (r"^cls\.0\.", "decode_head.bottleneck.conv."),
    (r"^cls\.1\.", "decode_head.bottleneck.bn."),
    (r"^cls\.4\.", "decode_head.conv_seg."),
    (r"^aux\.0\.", "auxiliary_head.convs.0.conv."),
    (r"^aux\.1\.", "auxiliary_head.convs.0.bn."),
    (r"^aux\.4\.", "auxiliary_head.conv_seg."),
)


def _mmsegmentation(depth: int) -> tuple[Layout, ...]:
    head = "decode_head.psp_modules.0.1.conv.weight"
    return (
        Layout(
            source="mmsegmentation",
            build=partial(PSPNet, depth=depth),
            classifier=_CLASSIFIER,
            marks=("backbone.stem.0.weight", head),
            auxiliary=_AUXILIARY,
        ),
        Layout(
            source="mmsegmentation-plain-stem",
            build=partial(PSPNet, depth=depth, stem=None),
            classifier=_CLASSIFIER,
            marks=("backbone.conv1.weight", head),
            auxiliary=_AUXILIARY,
        ),
    )


PSPNET_R18 = _mmsegmentation(18)
PSPNET_R50 = (
    *_mmsegmentation(50),
    Layout(
        source="semseg",
        build=partial(PSPNet, depth=50, stem=_SEMSEG_STEM, aligned=True),
        classifier=_CLASSIFIER,
        marks=("ppm.features.0.1.weight",),
        rename=SEMSEG,
        auxiliary=_AUXILIARY,
    ),
)
