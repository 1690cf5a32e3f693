"""CamVid with 11 classes, 480x360, in either of two folder forms.

    images/{train,val,test}/NAME.jpg and labels/{train,val,test}/NAME.png
    {train,val,test}/NAME.png and {train,val,test}annot/NAME.png, as in the SegNet tutorial; a file
        {train,val,test}.txt of "image label" lines, if there is one, chooses the images and their order

Label value 11 is void. The first part of a NAME is the drive: 0001TP, 0006R0, 0016E5, Seq05VD.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from segpatch.data.classes import CAMVID
from segpatch.data.dataset import Dataset, Sample
from segpatch.data.files import FilePair, describe, image_files, label_files, label_table
from segpatch.data.folder import read_classes, scan_folder
from segpatch.errors import BadInput, Missing
from segpatch.reading import read_text

LAYOUT = "images/SPLIT/NAME.jpg with labels/SPLIT/NAME.png, or SPLIT/NAME.png with SPLITannot/NAME.png"

VOID = 11
TABLE = label_table(range(len(CAMVID)), ignored=[VOID])


def open_camvid(root: Path) -> Dataset:
    if (root / "images").is_dir():
        _refuse_other_classes(root)
        splits, strays = scan_folder(root, TABLE)
        splits = {
            split: tuple(replace(sample, group=_drive(sample.name)) for sample in samples)
            for split, samples in splits.items()
        }
    else:
        splits, strays = _scan_segnet(root)
    if not any(splits.values()):
        raise Missing(
            f"camvid:{root}: expected {LAYOUT}; found {describe(root)}; give the folder that holds these"
        )
    return Dataset(
        kind="camvid",
        spec=f"camvid:{root}",
        classes=CAMVID,
        splits=splits,
        eval_split="test",
        layout=LAYOUT,
        strays=strays,
    )


def _scan_segnet(root: Path) -> tuple[dict[str, tuple[Sample, ...]], tuple[Path, ...]]:
    splits: dict[str, tuple[Sample, ...]] = {}
    strays: list[Path] = []
    for split in ("train", "val", "test"):
        folder = root / split
        labels = {path.stem: path for path in label_files(root / f"{split}annot")}
        images = image_files(folder)
        strays += [labels[name] for name in labels.keys() - {path.stem for path in images}]
        if listed := _listed(root / f"{split}.txt"):
            # A listed image that is not there stays in, so that reading or checking it names it.
            images = [folder / name for name in listed]
        if images or folder.is_dir():
            splits[split] = tuple(
                Sample(path.stem, _drive(path.stem), FilePair(path, labels.get(path.stem), TABLE))
                for path in images
            )
    return splits, tuple(sorted(strays))


def _listed(file: Path) -> list[str]:
    """The image files of a list of the tutorial, without its folders (/SegNet/CamVid/...)."""
    lines = read_text(file).splitlines() if file.is_file() else []
    return [Path(line.split()[0]).name for line in lines if line.strip()]


def _refuse_other_classes(root: Path) -> None:
    if not (root / "classes.json").is_file():
        return
    classes, table = read_classes(root)
    if classes.names != CAMVID.names or table != TABLE:
        raise BadInput(
            f"{root / 'classes.json'} has other classes than the 11 of CamVid ({', '.join(classes.names)}); "
            f"open it as folder:{root}"
        )


def _drive(name: str) -> str:
    return name.partition("_")[0]
