"""Any folder of images and labels, with a file that names the classes.

    images/{train,val,test}/NAME.jpg      any image format, also in sub-folders (one per drive)
    labels/{train,val,test}/NAME.png      8-bit class ids, at the same place under labels/
    classes.json                          ["road", ...] or {"classes": [{"id", "name", "color"?, "ignore"?}]}
    classes.txt                           or one class name a line, in the order of their ids

Other split names work too (`--split`). Images that lie directly in images/ are one split, "val".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from segpatch.data.classes import CAMVID, CITYSCAPES, ClassSet, Colour, distinct_colour
from segpatch.data.dataset import Dataset, Sample
from segpatch.data.files import (
    IMAGE_SUFFIXES,
    MAX_CLASSES,
    FilePair,
    describe,
    image_files,
    label_files,
    label_table,
)
from segpatch.errors import BadInput, Missing
from segpatch.reading import read_text
from segpatch.types import IGNORE

LAYOUT = "images/SPLIT/NAME.jpg (or .png ...) with labels/SPLIT/NAME.png"


def open_folder(root: Path) -> Dataset:
    classes, table = read_classes(root)
    splits, strays = scan_folder(root, table)
    if not splits:
        raise Missing(f"folder:{root}: expected {LAYOUT}; found {describe(root)}; put the images and labels there")
    return Dataset(
        kind="folder",
        spec=f"folder:{root}",
        classes=classes,
        splits=splits,
        eval_split=eval_split(splits),
        layout=LAYOUT,
        strays=strays,
    )


def eval_split(splits: dict[str, tuple[Sample, ...]]) -> str:
    """test, or else val, or else the last one there is."""
    return next((split for split in ("test", "val") if split in splits), list(splits)[-1])


def scan_folder(root: Path, table: bytes) -> tuple[dict[str, tuple[Sample, ...]], tuple[Path, ...]]:
    """Samples by split, in the order of their names, and the label files that have no image."""
    splits: dict[str, tuple[Sample, ...]] = {}
    strays: list[Path] = []
    for split, place in _places(root / "images"):
        here, there = root / "images" / place, root / "labels" / place
        images = [(path, path.relative_to(here).with_suffix("")) for path in image_files(here)]
        labels = {path.relative_to(there).with_suffix(""): path for path in label_files(there)}
        splits[split] = tuple(
            Sample("_".join(key.parts), _group(key), FilePair(path, labels.get(key), table))
            for path, key in images
        )
        strays += [labels[key] for key in labels.keys() - {key for _, key in images}]
    return splits if any(splits.values()) else {}, tuple(sorted(strays))


def read_classes(folder: Path) -> tuple[ClassSet, bytes]:
    """The classes that classes.json or classes.txt names, and the meaning of the labels' values."""
    for file, read in ((folder / "classes.json", _from_json), (folder / "classes.txt", _from_text)):
        if file.is_file():
            try:
                return read(file)
            except BadInput:
                raise
            except (
                OSError,
                ValueError,
                LookupError,
                TypeError,
                AttributeError,
                OverflowError,
                RecursionError,
            ) as error:
                raise BadInput(f"{file} cannot be used ({error!r}); expected {_FORMS}") from error
    raise Missing(f"{folder}: expected classes.json or classes.txt; found {describe(folder)}; write {_FORMS}")


_FORMS = '["road", ...] or {"classes": [{"id": 0, "name": "road"}, ...]}, or in classes.txt one name a line'


def _from_text(file: Path) -> tuple[ClassSet, bytes]:
    names = [line.strip() for line in read_text(file).splitlines() if line.strip()]
    return _build(file, [{"id": index, "name": name} for index, name in enumerate(names)])


def _from_json(file: Path) -> tuple[ClassSet, bytes]:
    content = json.loads(read_text(file))
    rows = content["classes"] if isinstance(content, dict) else content
    named = [{"id": index, "name": row} if isinstance(row, str) else row for index, row in enumerate(rows)]
    return _build(file, named)


def _build(file: Path, rows: list[dict[str, Any]]) -> tuple[ClassSet, bytes]:
    values = [int(row["id"]) for row in rows]
    if len(set(values)) != len(values) or not all(0 <= value <= 255 for value in values):
        raise BadInput(f"{file}: class ids must be different numbers from 0 to 255, got {values}")
    kept = sorted((row for row in rows if not row.get("ignore")), key=lambda row: int(row["id"]))
    if not 1 <= len(kept) <= MAX_CLASSES or any(int(row["id"]) == IGNORE for row in kept):
        raise BadInput(f"{file}: expected 1 to {MAX_CLASSES} classes, none with id {IGNORE}; got {len(kept)}")
    names = tuple(str(row["name"]) for row in kept)
    colours = tuple(_colour(row.get("color"), index) for index, row in enumerate(kept))
    ignored = [int(row["id"]) for row in rows if row.get("ignore")]
    table = label_table([int(row["id"]) for row in kept], ignored)
    known = next((known for known in (CITYSCAPES, CAMVID) if known.names == names), None)
    return known or ClassSet(file.resolve().parent.name, names, colours), table


def _colour(given: Any, index: int) -> Colour:
    if given is None:
        return distinct_colour(index)
    red, green, blue = (int(value) for value in given)
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise BadInput(f"class colours are three numbers from 0 to 255, got {given}")
    return red, green, blue


def _places(images: Path) -> list[tuple[str, Path]]:
    """Split names and their folders under images/; train, val and test come first."""
    entries = sorted(images.glob("[!.]*"))
    folders = {path.name for path in entries if path.is_dir()}
    loose = [path for path in entries if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if folders and loose:
        raise BadInput(f"{images} holds split folders and also images, such as {loose[0].name}; sort them")
    if loose:
        return [("val", Path())]
    known = [split for split in ("train", "val", "test") if split in folders]
    return [(split, Path(split)) for split in (*known, *sorted(folders.difference(known)))]


def _group(key: Path) -> str:
    """The sub-folder, which is taken for a drive; an image outside any is a group of its own."""
    return "/".join(key.parts[:-1]) or key.name
