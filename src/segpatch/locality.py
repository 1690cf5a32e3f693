"""Where the damage of a patch lies: by distance from its edge, and by class.

Fig. 3 of arXiv:2502.16012 shows CNNs hit beside the patch and a transformer far away, on four scenes. Here the
same is counted over all images from their index maps, and every number has an interval over images. The unit of
distance that fits all image sizes is the patch width, sqrt(h w) px of an h x w patch. A random patch does some
damage too; where a control is given, what it does on the same images is subtracted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from segpatch.compositing import cover
from segpatch.errors import BadInput
from segpatch.evaluation import Picture
from segpatch.metrics import confusion_matrix, iou_per_class, pixel_accuracy
from segpatch.statistics import interval, spearman
from segpatch.types import IGNORE, Region

EDGES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Upper edges of the distance bins, in patch widths; one more bin lies beyond. A pixel on an edge is within it."""

REMOTE = 2.0  # patch widths, beyond which damage is called remote
LEAST = 1000  # labelled pixels that a class needs for its IoU to enter a mean or a ranking


@dataclass(frozen=True)
class Locality:
    """Raw rows of one patch on one network, over the labelled pixels outside the patch.

    names: of the N images; edges: as EDGES; side: the patch width in px. confusion_clean, confusion_patched
    (N, bins, K, K) int32 [image, bin, truth, prediction]. flips, gains, right (N, D) int32: pixels that only the
    clean prediction has right, that only the patched one has right, and that the clean one has right, by their
    distance in px, rounded up, so that [: r + 1] holds the pixels within r px. distance (N, K) float64: sum of
    the distances in px of each class's pixels.
    """

    patch: str
    victim: str
    names: tuple[str, ...]
    edges: tuple[float, ...]
    side: float
    confusion_clean: Tensor
    confusion_patched: Tensor
    flips: Tensor
    gains: Tensor
    right: Tensor
    distance: Tensor


@dataclass(frozen=True)
class Estimate:
    """A value over all images and its 95 % interval over resamples of them, NaN where there is none; undefined:
    the share of resamples without a value, which the interval leaves out."""

    value: float
    ci95: tuple[float, float]
    undefined: float


@dataclass(frozen=True)
class BinDrop:
    """Clean minus patched scores of the `pixels` labelled pixels of one distance bin, up to `upper` patch widths
    away; classes: how many of them have pixels enough to enter the mIoU."""

    upper: float
    pixels: int
    classes: int
    pixel_accuracy: Estimate
    miou: Estimate


@dataclass(frozen=True)
class Reach:
    """How far from the patch pixels lie: r50, r90, the least whole px within which 50 and 90 % of them lie, the
    same in patch widths, and the share of them beyond REMOTE patch widths (rounded down to whole px)."""

    r50: Estimate
    r90: Estimate
    r50_widths: Estimate
    r90_widths: Estimate
    remote: Estimate


@dataclass(frozen=True)
class BinFlips:
    """The pixels of one distance bin that are `right` without a patch: the shares of them that are wrong with the
    patch and with its control, and the one minus the other. upper: as in BinDrop, rounded down to whole px."""

    upper: float
    right: int
    patched: Estimate
    control: Estimate
    over_control: Estimate


@dataclass(frozen=True)
class ClassDamage:
    """Where classes lie and what they lose: distance (K,) mean px from the patch, share (K,) of labelled pixels,
    drop: of IoU per class; and Spearman's rho, over classes, of the drop with the share and with the distance."""

    distance: Tensor
    share: Tensor
    drop: tuple[Estimate, ...]
    rho_share: Estimate
    rho_distance: Estimate


class LocalityCounter:
    """Raw rows of every patch on every network, from pictures in any order: `add` is made to be the `on_picture`
    of `evaluate_all`, so that no prediction is made twice."""

    def __init__(self, classes: int, edges: tuple[float, ...] = EDGES) -> None:
        self.classes, self.edges = classes, edges
        self._images: dict[str, None] = {}
        self._sides: dict[str, float] = {}
        self._rows: dict[tuple[str, str, str], tuple[Tensor, ...]] = {}

    def add(self, picture: Picture) -> None:
        """Count one picture. Raises BadInput where it comes twice, or a label is no class."""
        image, patch, victim, *_, region = picture
        if (patch, victim, image) in self._rows:
            raise BadInput(
                f"image {image} of {patch} on {victim} came twice; give patches and networks their own names"
            )
        side = self._sides[patch] = math.sqrt(region.height * region.width)
        edges = torch.tensor(self.edges, dtype=torch.float64) * side
        self._rows[patch, victim, image] = _rows(picture, self.classes, edges)
        self._images[image] = None

    def of(self, patch: str, victim: str) -> Locality:
        """The rows of a patch on a network, by name; images in the order in which they first came for any patch.

        Raises BadInput where no picture of the two was counted.
        """
        names = tuple(image for image in self._images if (patch, victim, image) in self._rows)
        if not names:
            known = ", ".join(sorted({f"{p} on {v}" for p, v, _ in self._rows})) or "nothing"
            raise BadInput(f"no picture of {patch} on {victim} was counted; counted: {known}")
        of_images = zip(*(self._rows[patch, victim, name] for name in names), strict=True)
        stacked = (pad_sequence(list(rows), batch_first=True) for rows in of_images)
        return Locality(patch, victim, names, self.edges, self._sides[patch], *stacked)


def distances(height: int, width: int, region: Region) -> Tensor:
    """Euclidean distance in px (H, W) float64 from each pixel to the nearest one of the region; 0 inside it.

    Raises BadInput for an empty region.
    """
    if min(region.height, region.width) < 1:
        raise BadInput(f"there is no distance to an empty region; got {tuple(region)} (top, left, height, width)")
    y, x = np.arange(float(height)), np.arange(float(width))
    down = np.maximum(region.top - y, y - (region.top + region.height - 1)).clip(0)
    along = np.maximum(region.left - x, x - (region.left + region.width - 1)).clip(0)
    # A whole distance must stay whole: NumPy's root is rounded correctly, torch's is not everywhere.
    return torch.from_numpy(np.sqrt(down[:, None] ** 2 + along**2))


def bin_drops(trained: Locality, control: Locality | None, counts: Tensor, least: int = LEAST) -> list[BinDrop]:
    """What each distance bin loses, minus what it loses to the control (None: nothing is subtracted).

    counts (R, N) of resamples, as of `resample_counts`. The mIoU of a bin is over the classes with at least
    `least` labelled pixels in it. Raises BadInput where the two were not measured on the same pixels.
    """
    weights = _weights(trained, control, counts)
    pixels = trained.confusion_clean.sum((0, 3))
    kept = pixels >= least
    drops = _excess(lambda one: _bin_drops(one, weights, kept), trained, control)
    parts = zip((*trained.edges, math.inf), pixels.sum(1).tolist(), kept.sum(1).tolist(), drops, strict=True)
    return [BinDrop(upper, n, k, _estimate(accuracy), _estimate(miou)) for upper, n, k, (accuracy, miou) in parts]


def bin_flips(trained: Locality, control: Locality, counts: Tensor) -> list[BinFlips]:
    """The newly wrong pixels of each distance bin, as shares; counts, errors: as in `bin_drops`."""
    weights = _weights(trained, control, counts)
    ends = [int(edge * trained.side) + 1 for edge in trained.edges]
    out = []
    for upper, start, end in zip((*trained.edges, math.inf), (0, *ends), (*ends, None), strict=True):
        right = trained.right[:, start:end].sum(1)
        shares = [weights @ one.flips[:, start:end].sum(1).double() / (weights @ right.double())
                  for one in (trained, control)]  # fmt: skip
        patched, beside, more = (_estimate(values) for values in (*shares, shares[0] - shares[1]))
        out.append(BinFlips(upper, int(right.sum()), patched, beside, more))
    return out


def reach(trained: Locality, control: Locality | None, counts: Tensor) -> Reach:
    """How far from the patch its newly wrong pixels lie, after subtracting the control's at each distance.

    control, counts, errors: as in `bin_drops`. NaN where the control makes as many pixels wrong. Where it makes
    more of them wrong at some distances, a share may leave [0, 1] and a radius is the first that suffices.
    """
    weights, side = _weights(trained, control, counts), trained.side
    within = (weights @ _excess(lambda one: one.flips.double(), trained, control)).cumsum(1)
    total = torch.where(within[:, -1] > 0, within[:, -1], torch.nan)
    r50, r90 = (
        torch.where(total > 0, (within >= share * total[:, None]).byte().argmax(1).double(), torch.nan)
        for share in (0.5, 0.9)
    )
    remote = 1 - within[:, : int(REMOTE * side) + 1][:, -1] / total
    return Reach(*(_estimate(values) for values in (r50, r90, r50 / side, r90 / side, remote)))


def flip_rate(trained: Locality, control: Locality | None, counts: Tensor) -> Estimate:
    """Share of the pixels that are right without the patch and wrong with it, minus the control's share.

    control, counts, errors: as in `bin_drops`. NaN where no pixel is right.
    """
    weights = _weights(trained, control, counts)

    def rate(one: Locality) -> Tensor:
        return weights @ one.flips.sum(1).double() / (weights @ one.right.sum(1).double())

    return _estimate(_excess(rate, trained, control))


def class_distance(trained: Locality, control: Locality | None, counts: Tensor, least: int = LEAST) -> ClassDamage:
    """Mean distance, share of the labelled pixels and IoU drop of each class, minus the control's drop.

    control, counts, errors: as in `bin_drops`. Classes with fewer than `least` labelled pixels have no drop
    (NaN) and do not enter the correlations.
    """
    weights = _weights(trained, control, counts)
    pixels = trained.confusion_clean.sum((1, 3)).double()
    resampled = weights @ pixels
    distance = weights @ trained.distance / resampled
    share = resampled / resampled.sum(1, keepdim=True)
    drop = _excess(lambda one: _class_drops(one, weights), trained, control)
    drop = torch.where(pixels.sum(0) >= least, drop, torch.nan)
    drops = tuple(_estimate(of_class) for of_class in drop.T)
    rhos = (_estimate(spearman(drop, other)) for other in (share, distance))
    return ClassDamage(distance[0], share[0], drops, *rhos)


def _rows(picture: Picture, classes: int, edges: Tensor) -> tuple[Tensor, ...]:
    """One image's rows of a Locality, from confusion_clean on; edges in px."""
    labels = cover(picture.labels, picture.region)
    height, width = labels.shape
    away = distances(height, width, picture.region)
    bins = torch.bucketize(away, edges)
    parts = [bins == i for i in range(len(edges) + 1)]
    predictions = (picture.clean, picture.patched)
    confusions = (
        torch.cat([confusion_matrix(predicted[at][None], labels[at][None], classes) for at in parts])
        for predicted in predictions
    )
    counted = labels != IGNORE
    clean, patched = (counted & (predicted == labels) for predicted in predictions)
    whole, length = away.ceil().long(), math.ceil(math.hypot(height, width)) + 1
    by_distance = (
        torch.bincount(whole[at], minlength=length).to(torch.int32)
        for at in (clean & ~patched, patched & ~clean, clean)
    )
    distance = torch.bincount(labels[counted].long(), weights=away[counted], minlength=classes)
    return *confusions, *by_distance, distance


def _weights(trained: Locality, control: Locality | None, counts: Tensor) -> Tensor:
    """How often each image counts (1 + R, N): once each, then as in each resample."""
    images = len(trained.names)
    if counts.shape[1] != images:
        raise BadInput(f"the resamples are of {counts.shape[1]} images, but {images} were measured; draw anew")
    for what in ("victim", "names", "edges", "side") if control else ():
        ours, theirs = getattr(trained, what), getattr(control, what)
        if ours != theirs:
            raise BadInput(f"the control has other {what} than the patch; measure both at once: {theirs}, {ours}")
    if control and not torch.equal(trained.confusion_clean.sum(-1), control.confusion_clean.sum(-1)):
        raise BadInput("the control covers other pixels than the patch; measure both at the same place")
    return torch.cat([counts.new_ones(1, images), counts])


def _excess(of: Callable[[Locality], Tensor], trained: Locality, control: Locality | None) -> Tensor:
    return of(trained) if control is None else of(trained) - of(control)


def _estimate(values: Tensor) -> Estimate:
    """From values (1 + R,): of all images, then of each resample."""
    undefined = values[1:].isnan()
    defined = values[1:][~undefined]
    ci95 = interval(defined) if len(defined) else (math.nan, math.nan)
    return Estimate(float(values[0]), ci95, float(undefined.double().mean()))


def _resampled(confusions: Tensor, weights: Tensor) -> Tensor:
    return (weights @ confusions.double().flatten(1)).view(-1, *confusions.shape[1:])


def _bin_drops(one: Locality, weights: Tensor, kept: Tensor) -> Tensor:
    """Drops (bins, 2, 1 + R) of pixel accuracy and mIoU. Bin by bin, since all at once would take much memory."""
    drops = []
    for i, classes in enumerate(kept):
        clean, patched = (_resampled(c[:, i], weights) for c in (one.confusion_clean, one.confusion_patched))
        miou = (iou_per_class(clean) - iou_per_class(patched))[:, classes].nanmean(-1)
        drops.append(torch.stack([pixel_accuracy(clean) - pixel_accuracy(patched), miou]))
    return torch.stack(drops)


def _class_drops(one: Locality, weights: Tensor) -> Tensor:
    clean, patched = (_resampled(c.sum(1), weights) for c in (one.confusion_clean, one.confusion_patched))
    return iou_per_class(clean) - iou_per_class(patched)
