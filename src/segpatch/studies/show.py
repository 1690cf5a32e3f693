"""Scenes as one picture: image, label and prediction above, the attacked ones and what changed below, a legend."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from segpatch.compositing import paste
from segpatch.data import Dataset
from segpatch.data.images import SplitImages
from segpatch.errors import BadInput
from segpatch.evaluation import Picture, evaluate_all, predict
from segpatch.models.victim import Victim
from segpatch.patch import Patch, as_uint8
from segpatch.report.pictures import WRONG, Pixels, change_map, outline, paint
from segpatch.transforms import as_float
from segpatch.types import IGNORE, Batch
from segpatch.writing import write_png

_WHITE, _INK = (255, 255, 255), (28, 31, 36)


def write_scenes(
    victim: Victim,
    dataset: Dataset,
    out: Path,
    *,
    patch: Patch | None = None,
    images: Sequence[str] = ("0",),
    split: str | None = None,
    place: str = "centre",
    seed: int = 0,
) -> None:
    """Writes the picture of the split's images of these names or positions, one below the other.

    Without a patch each has its upper row alone. Below them are the colours of the classes that occur.
    """
    where = split or dataset.eval_split
    if out.suffix.lower() != ".png":
        raise BadInput(f"the picture is written as PNG; end its name in .png, not as in {out}")
    names = dataset.names(where)
    colours = victim.label_classes.colours
    blocks: list[Pixels] = []
    seen: set[int] = set()
    for position in [_position(name, names, where) for name in images]:
        pixels, labels = SplitImages(dataset, where, [position])[0]
        scene = as_float(pixels)
        with torch.inference_mode():
            clean = predict(victim, scene[None])[0].numpy()
        seen |= {*np.unique(labels.numpy()).tolist(), *np.unique(clean).tolist()}
        rows = [[as_uint8(scene), paint(labels.numpy(), colours), paint(clean, colours)]]
        if patch:
            batch = Batch(scene[None], labels[None].long(), (names[position],))
            attacked = _attacked(victim, batch, patch, place, seed)
            patched, region = attacked.patched.numpy(), attacked.region
            seen |= {*np.unique(patched).tolist()}
            changed = change_map(labels.numpy(), clean, patched, region, colours)
            with_patch = as_uint8(paste(scene, patch.pixels, region))
            rows.append([with_patch, outline(paint(patched, colours), region), changed])
        blocks.append(np.vstack([np.hstack(row) for row in rows]))
    known = [(name, colours[index]) for index, name in enumerate(victim.label_classes.names) if index in seen]
    if IGNORE in seen:
        known.append(("not labelled", tuple(paint(np.array([[IGNORE]], np.uint8), colours)[0, 0].tolist())))
    if patch:
        known.append(("newly wrong", WRONG))
    width = max(block.shape[1] for block in blocks)
    write_png(out, np.asarray(_stacked([*map(Image.fromarray, blocks), legend(known, width)])))


def legend(entries: Sequence[tuple[str, tuple[int, int, int]]], width: int) -> Image.Image:
    """Squares of colour with their names, in as many lines as the width asks for."""
    height = max(14, width // 120)
    font = ImageFont.load_default(height - 3)
    places, left, line = [], height // 2, 0
    for name, _ in entries:
        wide = round(font.getlength(name)) + 3 * height
        if left > height // 2 and left + wide > width:
            left, line = height // 2, line + 1
        places.append((left, height // 2 + line * height * 3 // 2))
        left += wide
    picture = Image.new("RGB", (width, height + (line + 1) * height * 3 // 2), _WHITE)
    draw = ImageDraw.Draw(picture)
    for (name, colour), (x, y) in zip(entries, places, strict=True):
        draw.rectangle((x, y, x + height - 1, y + height - 1), fill=colour, outline=_INK)
        draw.text((x + height * 3 // 2, y), name, fill=_INK, font=font)
    return picture


def _position(image: str, names: Sequence[str], split: str) -> int:
    """Where an image stands in the split, from its name or that position itself."""
    if image in names:
        return names.index(image)
    if image in (positions := [str(position) for position in range(len(names))]):
        return positions.index(image)
    near = difflib.get_close_matches(image, names, n=1, cutoff=0.0)[0]
    raise BadInput(
        f"--image is a name in split {split!r}, such as {near}, or in 0..{len(names) - 1}; got {image!r}"
    )


def _stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    size = max(picture.width for picture in pictures), sum(picture.height for picture in pictures)
    whole, top = Image.new("RGB", size, _WHITE), 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height
    return whole


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
