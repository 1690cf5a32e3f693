"""The Cityscapes folder layout, which generated streets use too.

    leftImg8bit/{train,val,test}/<city>/NAME_leftImg8bit.png
    gtFine/{train,val,test}/<city>/NAME_gtFine_labelTrainIds.png, or NAME_gtFine_labelIds.png

The public labels of the test split are all "ignore": that split cannot be measured.
"""

from __future__ import annotations

from pathlib import Path

from segpatch.data.classes import CITYSCAPES
from segpatch.data.dataset import Dataset, Sample
from segpatch.data.files import FilePair, describe, image_files, label_files, label_table
from segpatch.errors import Missing

SPLITS = ("train", "val", "test")

IMAGE_ENDING = "_leftImg8bit"
TRAIN_IDS_ENDING = "_gtFine_labelTrainIds"
LABEL_IDS_ENDING = "_gtFine_labelIds"

LAYOUT = (
    "leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png with "
    "gtFine/SPLIT/CITY/NAME_gtFine_labelTrainIds.png or NAME_gtFine_labelIds.png"
)

# The label id of each train id 0 .. 18; the other label ids (0 .. 33) are ignored.
# Source: github.com/mcordts/cityscapesScripts, helpers/labels.py.
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

TRAIN_IDS_TABLE = label_table(range(len(CITYSCAPES)))
LABEL_IDS_TABLE = label_table(LABEL_IDS, ignored=range(34))


def open_cityscapes(root: Path) -> Dataset:
    return _open(root, "cityscapes", "give the folder that holds leftImg8bit/ and gtFine/")


def open_streets(root: Path) -> Dataset:
    """Streets that `segpatch data make streets` wrote."""
    return _open(root, "streets", f"make it with `segpatch data make streets --out {root}`")


def labels_table(label: Path) -> bytes:
    """The meaning of a Cityscapes label file's values, told by the end of its name."""
    return LABEL_IDS_TABLE if label.stem.endswith("_labelIds") else TRAIN_IDS_TABLE


def _open(root: Path, kind: str, advice: str) -> Dataset:
    splits: dict[str, tuple[Sample, ...]] = {}
    strays: list[Path] = []
    for split in SPLITS:
        folder = root / "leftImg8bit" / split
        images = [path for path in image_files(folder) if path.stem.endswith(IMAGE_ENDING)]
        labels = _labels(root / "gtFine" / split)
        if images or folder.is_dir():
            splits[split] = tuple(
                _sample(kind, path, labels.pop(_key(path, IMAGE_ENDING), None)) for path in images
            )
        strays += labels.values()
    if not any(splits.values()):
        raise Missing(f"{kind}:{root}: expected {LAYOUT}; found {describe(root)}; {advice}")
    return Dataset(
        kind=kind,
        spec=f"{kind}:{root}",
        classes=CITYSCAPES,
        splits=splits,
        eval_split="val",
        layout=LAYOUT,
        strays=tuple(sorted(strays)),
    )


def _sample(kind: str, image: Path, label: Path | None) -> Sample:
    name = image.stem.removesuffix(IMAGE_ENDING)
    # A generated street depends on no other; the images of a city do.
    group = name if kind == "streets" else image.parent.name
    table = TRAIN_IDS_TABLE if label is None else labels_table(label)
    return Sample(name, group, FilePair(image, label, table))


def _labels(folder: Path) -> dict[tuple[str, str], Path]:
    """City and name -> label file; train ids win where both are there."""
    files = label_files(folder)
    return {
        _key(path, ending): path
        for ending in (LABEL_IDS_ENDING, TRAIN_IDS_ENDING)
        for path in files
        if path.stem.endswith(ending)
    }


def _key(path: Path, ending: str) -> tuple[str, str]:
    return path.parent.name, path.stem.removesuffix(ending)
