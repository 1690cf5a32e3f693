"""The same patch on images it was trained on and on unseen ones, of several sizes.

arXiv:2502.16012 finds its patches effective on images of any dimension, but its larger images also hold a smaller
share of patch. Here the patch stays once the same in pixels and once the same in share of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from segpatch.data.images import spaced
from segpatch.errors import OutOfMemory
from segpatch.models.victim import Victim
from segpatch.names import safe_name
from segpatch.patch import Patch
from segpatch.studies.matrix import block_of
from segpatch.studies.paper.context import Cell, Context
from segpatch.transfer import TransferMatrix, transfer_matrix
from segpatch.types import Batch

_LARGEST_SHARE = 0.5
"""Of a side of the image that a patch may take; where it would be more, the case is left out and said so."""


class Case(NamedTuple):
    """How images and patch are shown: scale of the images, what of the patch stays the same ("pixels" or "share"),
    whole "frame" or its square "crop", and whether the images are "unseen" ones or those it was trained on."""

    scale: float
    fixed: str
    frame: str
    images: str


def cases(scales: Sequence[float]) -> list[Case]:
    """Every scale with the patch fixed in pixels and in share, crops at the native size, and training images."""
    out = [
        Case(scale, fixed, "frame", "unseen") for scale in scales for fixed in ("pixels", "share") if scale != 1
    ]
    native = [
        Case(1.0, "pixels", frame, images) for images in ("unseen", "trained") for frame in ("frame", "crop")
    ]
    return sorted([*out, *native], key=lambda case: (case.images, case.frame, case.fixed, case.scale))


def size_cells(context: Context, part: str = "sizes") -> list[Cell]:
    """A cell per patch and network that it was trained on, named after the part."""
    return [_cell(context, part, patch, victim) for patch, victim in context.owned()]


def _cell(context: Context, part: str, patch: Patch, victim: Victim) -> Cell:
    unseen = context.images(context.plan.size_images)
    trained = [context.training.indices[at] for at in spaced(len(context.training), len(unseen))]
    wanted = cases(context.plan.scales)

    def work(show: Callable[[int, int], None]) -> dict[str, Any]:
        rows = []
        for number, case in enumerate(wanted):
            rows.append({**case._asdict(), **_measured(context, victim, patch, case, unseen, trained)})
            show(number + 1, len(wanted))
        return {"patch": patch.name, "victim": victim.name, "family": victim.provenance.family, "rows": rows}

    asked = {"patch": patch.facts(), "unseen": len(unseen), "cases": [list(case) for case in wanted]}
    return Cell(f"{part}/{safe_name(patch.name)}_on_{safe_name(victim.name)}", [victim], asked, work)


def _measured(
    context: Context, victim: Victim, patch: Patch, case: Case, unseen: Sequence[int], trained: Sequence[int]
) -> dict[str, Any]:
    split, indices = (context.split, unseen) if case.images == "unseen" else (context.training.split, trained)
    height, width = context.dataset.size(split)
    rows, columns = (round(side * case.scale) for side in (height, width))
    pair = [context.control(patch), patch]
    if case.fixed == "share" and case.scale != 1:
        pair = [replace(one, pixels=_resized(one.pixels, case.scale)) for one in pair]
    h, w = pair[0].size
    across = columns if case.frame == "frame" else min(rows, columns)
    facts = {"height": rows, "width": across, "patch_size": [h, w], "images_measured": len(indices)}
    if max(h / rows, w / across) > _LARGEST_SHARE:
        return {**facts, "left_out": "the patch would take more than half of a side"}
    groups = context.dataset.groups(split)
    try:
        matrix = transfer_matrix(
            [victim],
            _shown(context.batches(indices, split), case),
            pair,
            groups=[groups[index] for index in indices],
            block=block_of(context.dataset, len(groups), len(indices)),
            margin=context.plan.margin,
            seed=context.plan.seed,
            precision=context.plan.precision,
        )
    except OutOfMemory:
        return {**facts, "left_out": "memory does not suffice for one such image"}
    return {**facts, **excess(matrix, patch, victim)}


def excess(matrix: TransferMatrix, patch: Patch, victim: Victim) -> dict[str, Any]:
    """What a patch costs and what it costs beyond its random control, with intervals, and the blocks these are
    from."""
    cell = matrix.cell(patch.name, victim.name)
    over = cell.over_random
    assert over
    return {
        "clean_miou": cell.scores.miou_clean_outside,
        "drop": cell.scores.miou_drop,
        "ci95": cell.ci95,
        "over_random": over.drop,
        "over_random_ci95": over.ci95,
        "verdict": over.verdict,
        "blocks": matrix.blocks,
    }


def _resized(pixels: Tensor, scale: float) -> Tensor:
    size = [max(1, round(side * scale)) for side in pixels.shape[1:]]
    resized = F.interpolate(pixels[None], size, mode="bilinear", align_corners=False, antialias=True)
    return resized[0].clamp(0, 1)


def _shown(whole: Iterator[Batch], case: Case) -> Iterator[Batch]:
    """The images as a case wants them: scaled, labels to the nearest, and cut to the square in their middle."""
    for batch in whole:
        images, labels = batch.images, batch.labels
        if case.scale != 1:
            size = [round(side * case.scale) for side in labels.shape[1:]]
            images = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
            labels = F.interpolate(labels[:, None].float(), size, mode="nearest-exact")[:, 0].to(labels.dtype)
        if case.frame == "crop":
            left = max(0, (labels.shape[2] - labels.shape[1]) // 2)
            middle = slice(left, left + labels.shape[1])
            images, labels = images[..., middle], labels[..., middle]
        yield Batch(images.contiguous(), labels.contiguous(), batch.names)
