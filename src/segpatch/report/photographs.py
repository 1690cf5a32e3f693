"""The photographs of a run's scenes, for a page that is asked to show them."""

from __future__ import annotations

from pathlib import Path

from segpatch.data import Dataset, open_data
from segpatch.errors import BadInput, Missing, SegpatchError
from segpatch.report.pictures import Pixels, kept_scenes, read_rgb
from segpatch.results import TransferResult
from segpatch.runs import read_json


def read_photographs(run: Path, result: TransferResult) -> dict[str, Pixels]:
    """The photograph (H, W, 3) of each scene whose index maps a run holds, by image name: its own where it kept
    them, else those of the data set that it measured on.

    Raises BadInput where the run kept no scene, Missing where a photograph is neither in the run nor in its data
    set, which must be the one that was measured.
    """
    scenes = kept_scenes(run, result)
    if not scenes:
        raise BadInput(f"{run} kept no scene to show a photograph of; measure with --pictures, or leave them out")
    kept = {name: folder / "image.png" for name, folder in scenes if (folder / "image.png").is_file()}
    if len(kept) == len(scenes):
        return {name: read_rgb(path) for name, path in kept.items()}
    dataset, split = _measured(run, result), result.dataset.split
    at = {name: index for index, name in enumerate(dataset.names(split))}
    return {name: read_rgb(kept[name]) if name in kept else dataset.read(split, at[name])[0] for name, _ in scenes}


def _measured(run: Path, result: TransferResult) -> Dataset:
    """The data set of a run, as it was measured."""
    about = read_json(run / "config.json").get("data", {}) if (run / "config.json").is_file() else {}
    advice = f"the photographs of {run} are not in it; put its data set back, or leave out --with-images"
    if "spec" not in about:
        raise Missing(f"{advice}: no config.json says which it was")
    try:
        dataset = open_data(about["spec"])
        same = dataset.fingerprint(result.dataset.split) == result.dataset.fingerprint
    except SegpatchError as error:
        raise Missing(f"{advice}: {error}") from error
    if not same:
        raise Missing(f"{advice}: {about['spec']} {result.dataset.split} is not what was measured")
    return dataset
