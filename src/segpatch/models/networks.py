"""The networks that segpatch can build, by the names that users type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from segpatch.errors import unknown_name
from segpatch.models.layouts.bisenetv2 import BISENETV2
from segpatch.models.layouts.layout import Layout
from segpatch.models.layouts.pidnet import PIDNET_L, PIDNET_M, PIDNET_S
from segpatch.models.layouts.segformer import SEGFORMER_B0


class Network(Protocol):
    """What every network module here offers beside being an nn.Module."""

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
    "bisenetv2": NetworkSpec("cnn", BISENETV2),
    "segformer-b0": NetworkSpec("transformer", SEGFORMER_B0),
}


def network_spec(name: str) -> NetworkSpec:
    """The entry of MODELS; BadInput naming the nearest where there is none."""
    if name not in MODELS:
        raise unknown_name("network", name, MODELS)
    return MODELS[name]
