"""List files: one "image label" a line, separated by blanks, a tab or a comma; # begins a comment line.

A file is one split, "all". A folder with train.txt, val.txt or test.txt has these splits. Paths are absolute
or relative to the list's folder; classes come from a classes.json or classes.txt beside it, and without one
are those of Cityscapes, where labels named *_labelIds.png are remapped to train ids.
"""

from __future__ import annotations

import re
from pathlib import Path

from segpatch.data.cityscapes import IMAGE_ENDING, labels_table
from segpatch.data.classes import CITYSCAPES
from segpatch.data.dataset import Dataset, Sample
from segpatch.data.files import FilePair, describe
from segpatch.data.folder import eval_split, read_classes
from segpatch.errors import BadInput, Missing
from segpatch.reading import read_text

LAYOUT = "a line 'image label' for each image"


def open_list(place: Path) -> Dataset:
    if place.is_dir():
        files = {split: place / f"{split}.txt" for split in ("train", "val", "test")}
        files = {split: file for split, file in files.items() if file.is_file()}
    else:
        files = {"all": place} if place.is_file() else {}
    if not files:
        raise Missing(
            f"list:{place}: expected a file of 'image label' lines, or a folder with train.txt, val.txt or "
            f"test.txt; found {describe(place)}; give one of these"
        )
    folder = next(iter(files.values())).parent
    named = any((folder / name).is_file() for name in ("classes.json", "classes.txt"))
    classes, table = read_classes(folder) if named else (CITYSCAPES, None)
    splits = {split: _samples(file, table) for split, file in files.items()}
    whole = "all" in splits
    return Dataset(
        kind="list",
        spec=f"list:{place}",
        classes=classes,
        splits=splits,
        train_split="all" if whole else "train",
        select_split="all" if whole else "val",
        eval_split="all" if whole else eval_split(splits),
        layout=LAYOUT,
    )


def _samples(file: Path, table: bytes | None) -> tuple[Sample, ...]:
    pairs = _pairs(file)
    if not pairs:
        raise BadInput(f"{file} lists no image; expected {LAYOUT}")
    stems = [image.stem.removesuffix(IMAGE_ENDING) for image, _ in pairs]
    if len(set(stems)) != len(stems):
        # Folders tell images of one name apart; a line that is there twice stays a clash, and is refused.
        stems = ["_".join(image.with_suffix("").parts).strip("/") for image, _ in pairs]
    folders = [image.parent.name for image, _ in pairs]
    # Folders are taken for drives; where there is only one, it says nothing.
    groups = folders if len(set(folders)) > 1 else stems
    return tuple(
        Sample(name, group, _source(file.parent, image, label, table))
        for name, group, (image, label) in zip(stems, groups, pairs, strict=True)
    )


def _source(folder: Path, image: Path, label: Path | None, table: bytes | None) -> FilePair:
    return FilePair(
        image=folder / image,
        label=None if label is None else folder / label,
        table=table or labels_table(label or image),
    )


def _pairs(file: Path) -> list[tuple[Path, Path | None]]:
    lines = read_text(file).splitlines()
    pairs: list[tuple[Path, Path | None]] = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        separator = next((mark for mark in "\t," if mark in text), None)
        parts = [part.strip() for part in (text.split(separator) if separator else re.split(r"\s+", text))]
        if len(parts) > 2 or not Path(parts[0]).name:  # "." and "/" have none
            raise BadInput(f"{file}, line {number}: expected 'image label', got {text!r}")
        pairs.append((Path(parts[0]), Path(parts[1]) if len(parts) == 2 and parts[1] else None))
    return pairs
