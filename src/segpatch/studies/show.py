"""One scene as a picture: image, label and prediction above, the attacked ones and what changed below."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from segpatch.compositing import paste
from segpatch.data import Dataset
from segpatch.data.images import SplitImages
from segpatch.errors import BadInput
from segpatch.evaluation import Picture, evaluate_all, predict
from segpatch.models.victim import Victim
from segpatch.patch import Patch, as_uint8
from segpatch.report.pictures import change_map, outline, paint
from segpatch.transforms import as_float
from segpatch.types import Batch
from segpatch.writing import write_png


def write_scene(
    victim: Victim,
    dataset: Dataset,
    out: Path,
    *,
    patch: Patch | None = None,
    image: int = 0,
    split: str | None = None,
    place: str = "centre",
    seed: int = 0,
) -> None:
    """Writes the picture of the split's image at a position; without a patch, its upper row alone."""
    where = split or dataset.eval_split
    names = dataset.names(where)
    if not 0 <= image < len(names):
        raise BadInput(f"--image must be in 0..{len(names) - 1} for split {where!r}; got {image}")
    if out.suffix.lower() != ".png":
        raise BadInput(f"the picture is written as PNG; name it {out.with_suffix('.png')}")
    pixels, labels = SplitImages(dataset, where, [image])[0]
    scene = as_float(pixels)
    colours = victim.label_classes.colours
    with torch.inference_mode():
        clean = predict(victim, scene[None])[0].numpy()
    rows = [[as_uint8(scene), paint(labels.numpy(), colours), paint(clean, colours)]]
    if patch:
        seen = _attacked(victim, Batch(scene[None], labels[None].long(), (names[image],)), patch, place, seed)
        attacked = paint(seen.patched.numpy(), colours)
        changed = change_map(labels.numpy(), clean, seen.patched.numpy(), seen.region, colours)
        with_patch = as_uint8(paste(scene, patch.pixels, seen.region))
        rows.append([with_patch, outline(attacked, seen.region), changed])
    write_png(out, np.vstack([np.hstack(row) for row in rows]))


def _attacked(victim: Victim, batch: Batch, patch: Patch, place: str, seed: int) -> Picture:
    kept: list[Picture] = []
    evaluate_all(
        [victim],
        [batch],
        [patch],
        place=place,
        seed=seed,
        on_picture=kept.append,
        pictures=frozenset(batch.names),
    )
    return kept[0]
