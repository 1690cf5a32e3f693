"""The vocabulary that every floor shares.

Letters used throughout: B images, K classes, H W image height and width, h w patch height and width.
Images and patches are RGB floats in [0, 1]; labels are class ids, IGNORE where there is no truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor

IGNORE = 255
"""The label of a pixel that counts in no loss and no metric."""


class Region(NamedTuple):
    """Where a patch lies in an image: top left corner and size, in pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Batch:
    """Some labelled images of one size.

    images (B, 3, H, W) float32 RGB in [0, 1]; labels (B, H, W) int64 class ids, IGNORE where there is
    no truth; names: one per image, unique within a split.
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]


class LabelledImages(Protocol):
    """Anything to train on: a list of pairs will do, and so does a split of a data set.

    Item i is an image (3, H, W), uint8 in 0..255 or float in [0, 1], and its labels (H, W), class ids or IGNORE.
    Several threads may ask at once.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Tensor, Tensor]: ...
