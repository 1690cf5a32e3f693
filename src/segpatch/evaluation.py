"""Measuring patches on networks: one confusion matrix per image, clean and patched, over the same pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from segpatch.bounds import check_seed
from segpatch.clean import CleanPredictions
from segpatch.compositing import centre_region, cover, draw_region
from segpatch.eot import PLACES, generator_at
from segpatch.errors import BadInput
from segpatch.loaders import Loaded, as_batches
from segpatch.memory import in_parts_that_fit
from segpatch.metrics import (
    confusion_matrices,
    confusion_matrix,
    iou_per_class,
    miou,
    must_be_finite,
    pixel_accuracy,
)
from segpatch.models.folding import folded
from segpatch.models.victim import Victim
from segpatch.notebook import html_table, three
from segpatch.patch import Patch
from segpatch.tail import resized_prediction
from segpatch.types import IGNORE, Batch, Region

_PLACE = 0x706C6163  # "plac": an address that no training step reaches

ROWS = ("clean", "clean_outside", "patched", "of_right")
"""The raw counts of Scores."""

Place = str | Callable[[tuple[int, int], tuple[int, int]], Region]
"""Where patches lie: one of PLACES, or from the sizes (H, W) of an image and (h, w) of a patch to its region."""


@dataclass(frozen=True)
class Scores:
    """What one patch does to one network: raw counts per image, from which every score follows.

    names: of the N images; clean, clean_outside, patched (N, K, K) int32 confusion matrices [image, truth,
    prediction]: without the patch on all pixels; without and with it on the pixels outside it. of_right: as
    patched, of the pixels alone that are right without it; None where that was not counted.
    """

    names: tuple[str, ...]
    clean: Tensor
    clean_outside: Tensor
    patched: Tensor
    of_right: Tensor | None = None

    @property
    def confusion(self) -> Tensor:
        """The patched confusion matrix (K, K) of the whole split."""
        return self.patched.sum(0)

    @property
    def miou_clean(self) -> float:
        """mIoU without the patch, over all labelled pixels."""
        return float(miou(self.clean.sum(0)))

    @property
    def miou_clean_outside(self) -> float:
        """mIoU without the patch, over the pixels that it would leave uncovered."""
        return float(miou(self.clean_outside.sum(0)))

    @property
    def miou(self) -> float:
        """mIoU with the patch, over the pixels outside it."""
        return float(miou(self.confusion))

    @property
    def miou_drop(self) -> float:
        """Clean minus patched mIoU over the same pixels."""
        return self.miou_clean_outside - self.miou

    @property
    def pixel_accuracy(self) -> float:
        """Share of labelled pixels outside the patch that are right with it."""
        return float(pixel_accuracy(self.confusion))

    @property
    def iou(self) -> list[float]:
        """IoU per class with the patch; NaN for a class that never occurs."""
        return [float(v) for v in iou_per_class(self.confusion)]

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        values = {
            "mIoU, clean": self.miou_clean,
            "mIoU outside the patch, clean": self.miou_clean_outside,
            "mIoU outside the patch, with it": self.miou,
            "drop": self.miou_drop,
            "pixel accuracy with it": self.pixel_accuracy,
        }
        return html_table(f"{len(self.names)} images", [], [[name, three(v)] for name, v in values.items()])


class Picture(NamedTuple):
    """One scene for people: index maps (H, W) uint8 of labels and predictions, and where the patch lay."""

    image: str
    patch: str
    victim: str
    labels: Tensor
    clean: Tensor
    patched: Tensor
    region: Region


def evaluate(
    victim: Victim,
    batches: Iterable[Loaded],
    patch: Patch | None,
    *,
    place: str = "centre",
    seed: int = 0,
    precision: str = "fp32",
    on_image: Callable[[int], None] | None = None,
) -> Scores:
    """What a patch (None: no patch) does to a network over batches; on_image gets the images done so far.

    batches: of `segpatch.data.batches`, or a DataLoader of (images in [0, 1], labels), see `loaders.Loaded`.
    """
    scores = evaluate_all(
        [victim], batches, [patch], place=place, seed=seed, precision=precision, on_image=on_image
    )
    return scores[0][0]


def evaluate_all(
    victims: Sequence[Victim],
    batches: Iterable[Loaded],
    patches: Sequence[Patch | None],
    *,
    place: Place | Sequence[Place] = "centre",
    seed: int = 0,
    precision: str = "fp32",
    positions: Sequence[int] | None = None,
    on_image: Callable[[int], None] | None = None,
    on_picture: Callable[[Picture], None] | None = None,
    on_smaller: Callable[[int], None] | None = None,
    pictures: frozenset[str] = frozenset(),
    remembered: CleanPredictions | None = None,
) -> list[list[Scores]]:
    """Scores of every patch (outer list) on every network (inner list).

    Each image is decoded once and predicted clean once per network. place: see Place, one for all patches or one
    for each; "drawn" is the same for every patch of one size and image, addressed by `seed` and the image's
    position. positions: of the images, where they are some of a whole; 0, 1 .. if not given. on_picture gets the
    index maps of the images named in `pictures`. Where memory runs out, half as many images are predicted at once
    from then on, and on_smaller gets their number. remembered: clean predictions of batches measured before, and
    these after. Raises BadInput where a patch does not fit, or a network speaks other classes than the labels;
    SegpatchError where memory does not suffice for one image.
    """
    check_seed(seed)
    of_patches = [place] * len(patches) if isinstance(place, str) or callable(place) else place
    for one in of_patches:
        if isinstance(one, str) and one not in PLACES:
            raise BadInput(f"place must be one of {', '.join(PLACES)}; got {one!r}")
    rows: dict[tuple[int, int], list[tuple[Tensor, ...]]] = {
        (p, v): [] for p in range(len(patches)) for v in range(len(victims))
    }
    names: list[str] = []
    victims = [folded(victim) for victim in victims]
    in_parts = _InParts(precision, on_smaller)
    with torch.inference_mode():
        for batch in as_batches(batches):
            done = range(len(names), len(names) + len(batch.names))
            places = [positions[i] for i in done] if positions is not None else done
            regions = [_regions(batch, places, *of_one, seed) for of_one in zip(patches, of_patches, strict=True)]
            for v, victim in enumerate(victims):
                classes = len(victim.label_classes.names)
                _must_be_classes(batch, classes, victim)
                labels = batch.labels.to(victim.device, torch.uint8)
                x = victim.prepared(batch.images)
                anew = partial(in_parts.predict, victim, x)
                clean = remembered.of(victim, batch.names, anew) if remembered else anew()
                whole = confusion_matrix(clean, labels, classes).cpu()
                covered: tuple[Region, ...] = ()  # by the patch before, which mostly lies where this one does
                for p, patch in enumerate(patches):
                    if patch is None:
                        rows[p, v].append((whole, whole, whole, whole.diagonal(dim1=1, dim2=2).diag_embed()))
                        continue
                    if regions[p] != covered:
                        covered = regions[p]
                        truth = _covered(labels, covered)
                        outside = whole - _under(clean, labels, covered, classes)
                    patched = in_parts.predict(victim, _pasted(x, victim.prepared(patch.pixels[None]), covered))
                    attacked = confusion_matrices(patched, clean, truth, classes)
                    rows[p, v].append((whole, outside, *(part.cpu() for part in attacked)))
                    if on_picture is None:
                        continue
                    for i in (i for i, name in enumerate(batch.names) if name in pictures):
                        maps = labels[i].cpu(), clean[i].cpu(), patched[i].cpu()
                        on_picture(Picture(batch.names[i], patch.name, victim.name, *maps, covered[i]))
            names += batch.names
            if on_image:
                on_image(len(names))
    if not names:
        raise BadInput("there is no image to measure on; check the split and --images")
    return [[_gather(names, rows[p, v]) for v in range(len(victims))] for p in range(len(patches))]


def in_order(shares: Sequence[tuple[Sequence[int], list[list[Scores]] | None]]) -> list[list[Scores]]:
    """The scores of all images by position, from (positions, `evaluate_all` of them, None for no image) of each
    process."""
    grids = [grid for _, grid in shares if grid is not None]
    if len(grids) == 1:
        return grids[0]
    positions = torch.tensor([at for places, grid in shares if grid is not None for at in places])
    return [
        [_joined(cells, positions.argsort()) for cells in zip(*rows, strict=True)]
        for rows in zip(*grids, strict=True)
    ]


def _joined(parts: Sequence[Scores], order: Tensor) -> Scores:
    names = [name for part in parts for name in part.names]
    whole = (torch.cat([getattr(part, which) for part in parts])[order] for which in ROWS)
    return Scores(tuple(names[i] for i in order.tolist()), *whole)


def predict(victim: Victim, images: Tensor, precision: str = "fp32") -> Tensor:
    """Predicted class ids (B, H, W) uint8 on the CPU, of images (B, 3, H, W) in [0, 1]."""
    return predict_prepared(victim, victim.prepared(images), precision).cpu()


def predict_prepared(victim: Victim, x: Tensor, precision: str) -> Tensor:
    """Predicted class ids (B, H, W) uint8 on the victim's device, of its prepared images (B, 3, H, W)."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
        raw = victim.raw_of(x)
    if raw.logits.shape[1] != len(victim.classes):
        raise BadInput(
            f"{victim.name} returned logits of {raw.logits.shape[1]} classes, but its class set "
            f"{victim.classes.name!r} has {len(victim.classes)}; give the right classes="
        )
    must_be_finite(raw.logits, victim.name)
    return resized_prediction(
        raw.logits,
        (x.shape[-2], x.shape[-1]),
        size=raw.size,
        align_corners=victim.align_corners,
        merge=victim.merge,
    )


@dataclass
class _InParts:
    """Prediction of `part` prepared images at a time (None: all), halved for good when memory runs out."""

    precision: str
    on_smaller: Callable[[int], None] | None
    part: int | None = None

    def predict(self, victim: Victim, x: Tensor) -> Tensor:
        def whole(part: int) -> Tensor:
            return torch.cat([predict_prepared(victim, some, self.precision) for some in torch.split(x, part)])

        part = self.part or len(x)
        predicted, fitting = in_parts_that_fit(whole, part, len(x))
        if fitting < part:
            self.part = fitting
            if self.on_smaller:
                self.on_smaller(fitting)
        return predicted


def _regions(
    batch: Batch, places: Sequence[int], patch: Patch | None, place: Place, seed: int
) -> tuple[Region, ...]:
    height, width = batch.labels.shape[-2:]
    if patch is None:
        return (Region(0, 0, 0, 0),) * len(batch.names)
    if place == "centre":
        return (centre_region(height, width, *patch.size),) * len(batch.names)
    if callable(place):
        return (place((height, width), patch.size),) * len(batch.names)
    return tuple(draw_region(height, width, *patch.size, generator_at(seed, _PLACE, at)) for at in places)


def _covered(labels: Tensor, regions: Sequence[Region]) -> Tensor:
    return torch.stack([cover(label, region) for label, region in zip(labels, regions, strict=True)])


def _pasted(x: Tensor, shown: Tensor, regions: Sequence[Region]) -> Tensor:
    """Prepared images (B, 3, H, W) with a prepared patch (1, 3, h, w) in each at its region."""
    out = x.clone()
    for image, (top, left, height, width) in zip(out, regions, strict=True):
        image[:, top : top + height, left : left + width] = shown[0]
    return out


def _under(predicted: Tensor, labels: Tensor, regions: Sequence[Region], classes: int) -> Tensor:
    """The confusion matrices (B, K, K), on the CPU, of what the regions cover."""
    parts = []
    for i, (top, left, height, width) in enumerate(regions):
        at = (slice(i, i + 1), slice(top, top + height), slice(left, left + width))
        parts.append(confusion_matrix(predicted[at], labels[at], classes))
    return torch.cat(parts).cpu()


def _must_be_classes(batch: Batch, classes: int, victim: Victim) -> None:
    lowest, highest = torch.where(batch.labels == IGNORE, 0, batch.labels).aminmax()
    if int(highest) >= classes or int(lowest) < 0:
        raise BadInput(
            f"{victim.name} predicts {classes} classes, but a label of {batch.names[0]} and its batch is "
            f"{int(highest if highest >= classes else lowest)}; give a class map"
        )


def _gather(names: list[str], rows: list[tuple[Tensor, ...]]) -> Scores:
    return Scores(tuple(names), *(torch.cat(part) for part in zip(*rows, strict=True)))
