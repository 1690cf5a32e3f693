"""The networks that segpatch can build, by the names that users type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from segpatch.errors import unknown_name
from segpatch.models.bisenetv2 import BiSeNetV2
from segpatch.models.pidnet import pidnet_l, pidnet_m, pidnet_s
from segpatch.models.segformer import segformer_b0
from segpatch.models.victim import IMAGENET_MEAN, IMAGENET_STD


class Network(Protocol):
    """What every network module here offers beside being an nn.Module."""

    size_multiple: int
    output_align_corners: bool

    def all_outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Main and auxiliary outputs, raw, by name."""

    def training_loss(
        self, outputs: dict[str, Tensor], labels: Tensor, criterion: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """The loss of the network's own recipe, a scalar."""


@dataclass(frozen=True)
class NetworkSpec:
    """How a network is built, and what its published checkpoints go with.

    build(classes, auxiliary=...): the module, random weights. mean, std: of the published Cityscapes
    checkpoint. classifier: the key whose first axis is the number of classes. droppable: key prefixes of a
    published file that inference does not need.
    """

    build: Callable[..., nn.Module]
    family: str
    classifier: str
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    droppable: tuple[str, ...] = ()


_PIDNET_CLASSIFIER = "final_layer.conv2.weight"
_PIDNET_EXTRAS = ("seghead_p.", "seghead_d.", "sem_loss.", "bd_loss.")

MODELS: dict[str, NetworkSpec] = {
    "pidnet-s": NetworkSpec(pidnet_s, "cnn", _PIDNET_CLASSIFIER, droppable=_PIDNET_EXTRAS),
    "pidnet-m": NetworkSpec(pidnet_m, "cnn", _PIDNET_CLASSIFIER, droppable=_PIDNET_EXTRAS),
    "pidnet-l": NetworkSpec(pidnet_l, "cnn", _PIDNET_CLASSIFIER, droppable=_PIDNET_EXTRAS),
    "bisenetv2": NetworkSpec(
        BiSeNetV2,
        "cnn",
        "head.conv_out.1.weight",
        mean=(0.3257, 0.3690, 0.3223),
        std=(0.2112, 0.2148, 0.2115),
        droppable=("aux2.", "aux3.", "aux4.", "aux5_4."),
    ),
    "segformer-b0": NetworkSpec(
        segformer_b0,
        "transformer",
        "decode_head.linear_pred.weight",
        droppable=("decode_head.conv_seg.",),
    ),
}


def network_spec(name: str) -> NetworkSpec:
    """The entry of MODELS; BadInput naming the nearest where there is none."""
    if name not in MODELS:
        raise unknown_name("network", name, MODELS)
    return MODELS[name]
