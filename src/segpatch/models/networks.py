"""The networks that segpatch can build, by the names that users type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from segpatch.errors import unknown_name
from segpatch.models.layouts.bisenetv1 import BISENETV1_R18, BISENETV1_R50
from segpatch.models.layouts.bisenetv2 import BISENETV2
from segpatch.models.layouts.ddrnet import DDRNET_23, DDRNET_23_SLIM
from segpatch.models.layouts.deeplabv3plus import (
    DEEPLABV3PLUS_MOBILENET,
    DEEPLABV3PLUS_R18,
    DEEPLABV3PLUS_R50,
    DEEPLABV3PLUS_R101,
)
from segpatch.models.layouts.hrnet import HRNET_W18, HRNET_W18_OCR, HRNET_W18_SMALL, HRNET_W48, HRNET_W48_OCR
from segpatch.models.layouts.icnet import ICNET_R18, ICNET_R50, ICNET_R101
from segpatch.models.layouts.layout import Layout
from segpatch.models.layouts.pidnet import PIDNET_L, PIDNET_M, PIDNET_S
from segpatch.models.layouts.pspnet import PSPNET_R18, PSPNET_R50
from segpatch.models.layouts.segformer import (
    SEGFORMER_B0,
    SEGFORMER_B1,
    SEGFORMER_B2,
    SEGFORMER_B3,
    SEGFORMER_B4,
    SEGFORMER_B5,
)


class Network(Protocol):
    """What every network module here offers beside being an nn.Module.

    Its sides are multiples of size_multiple, plus its size_offset where it has one.
    """

    size_multiple: int
    output_align_corners: bool

    def raw_logits(self, x: Tensor) -> Tensor:
        """The main logits before any resize that the network ends with.

        `forward`, which returns what the released network returns, is these logits, or these logits resized
        bilinearly (as output_align_corners says).
        """

    def all_outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Main and auxiliary outputs as the released network returns them, by name; "main" is `forward`'s."""

    def training_loss(
        self, outputs: dict[str, Tensor], labels: Tensor, criterion: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """The loss of the network's own recipe, a scalar."""


@dataclass(frozen=True)
class NetworkSpec:
    """A network by its family, "cnn" or "transformer", and the layouts of its checkpoints.

    The first layout is the one that `segpatch fit` builds, trains and writes.
    """

    family: str
    layouts: tuple[Layout, ...]

    @property
    def default(self) -> Layout:
        return self.layouts[0]

    def layout_of(self, state: Mapping[str, Tensor]) -> Layout | None:
        """The layout whose marks a checkpoint's keys bear, or None."""
        return next((layout for layout in self.layouts if layout.bears(state)), None)

    def layout(self, source: str) -> Layout:
        """The layout of a source; BadInput naming the nearest where there is none."""
        named = {layout.source: layout for layout in self.layouts}
        if source not in named:
            raise unknown_name("checkpoint layout", source, named)
        return named[source]


MODELS: dict[str, NetworkSpec] = {
    "pidnet-s": NetworkSpec("cnn", PIDNET_S),
    "pidnet-m": NetworkSpec("cnn", PIDNET_M),
    "pidnet-l": NetworkSpec("cnn", PIDNET_L),
    "ddrnet-23-slim": NetworkSpec("cnn", DDRNET_23_SLIM),
    "ddrnet-23": NetworkSpec("cnn", DDRNET_23),
    "bisenetv1-r18": NetworkSpec("cnn", BISENETV1_R18),
    "bisenetv1-r50": NetworkSpec("cnn", BISENETV1_R50),
    "bisenetv2": NetworkSpec("cnn", BISENETV2),
    "icnet-r18": NetworkSpec("cnn", ICNET_R18),
    "icnet-r50": NetworkSpec("cnn", ICNET_R50),
    "icnet-r101": NetworkSpec("cnn", ICNET_R101),
    "deeplabv3plus-mobilenet": NetworkSpec("cnn", DEEPLABV3PLUS_MOBILENET),
    "deeplabv3plus-r18": NetworkSpec("cnn", DEEPLABV3PLUS_R18),
    "deeplabv3plus-r50": NetworkSpec("cnn", DEEPLABV3PLUS_R50),
    "deeplabv3plus-r101": NetworkSpec("cnn", DEEPLABV3PLUS_R101),
    "pspnet-r18": NetworkSpec("cnn", PSPNET_R18),
    "pspnet-r50": NetworkSpec("cnn", PSPNET_R50),
    "hrnet-w18-small": NetworkSpec("cnn", HRNET_W18_SMALL),
    "hrnet-w18": NetworkSpec("cnn", HRNET_W18),
    "hrnet-w48": NetworkSpec("cnn", HRNET_W48),
    "hrnet-w18-ocr": NetworkSpec("cnn", HRNET_W18_OCR),
    "hrnet-w48-ocr": NetworkSpec("cnn", HRNET_W48_OCR),
    "segformer-b0": NetworkSpec("transformer", SEGFORMER_B0),
    "segformer-b1": NetworkSpec("transformer", SEGFORMER_B1),
    "segformer-b2": NetworkSpec("transformer", SEGFORMER_B2),
    "segformer-b3": NetworkSpec("transformer", SEGFORMER_B3),
    "segformer-b4": NetworkSpec("transformer", SEGFORMER_B4),
    "segformer-b5": NetworkSpec("transformer", SEGFORMER_B5),
}


ALIASES = {"bisenetv1": "bisenetv1-r18", "icnet": "icnet-r50"}


def network_spec(name: str) -> NetworkSpec:
    """The entry of MODELS that a name or an alias leads to; BadInput naming the nearest where there is none."""
    return MODELS[network_name(name)]


def network_name(typed: str) -> str:
    """The full name of a network, as it is shown and stored; BadInput naming the nearest where there is none."""
    name = ALIASES.get(typed, typed)
    if name not in MODELS:
        raise unknown_name("network", typed, MODELS)
    return name
