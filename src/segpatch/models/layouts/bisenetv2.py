"""BiSeNet V2's layouts: CoinCheung/BiSeNet, and mmsegmentation, whose aggregation differs."""

from __future__ import annotations

from segpatch.models.bisenetv2 import BiSeNetV2
from segpatch.models.layouts.layout import Layout

COINCHEUNG = Layout(
    source="coincheung",
    build=BiSeNetV2,
    classifier="head.conv_out.1.weight",
    marks=("bga.left1.0.weight",),
    auxiliary=("aux2.", "aux3.", "aux4.", "aux5_4."),
    mean=(0.3257, 0.3690, 0.3223),
    std=(0.2112, 0.2148, 0.2115),
)
BISENETV2 = (COINCHEUNG,)
