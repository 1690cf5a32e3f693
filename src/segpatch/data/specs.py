"""From what the user types (`camvid:DIR`, `streets`) to a data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from segpatch.data import drawn
from segpatch.data.camvid import open_camvid
from segpatch.data.cityscapes import open_cityscapes, open_streets
from segpatch.data.dataset import Dataset
from segpatch.data.folder import open_folder
from segpatch.data.lists import open_list
from segpatch.errors import BadInput, unknown_name

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "cityscapes": open_cityscapes,
    "camvid": open_camvid,
    "folder": open_folder,
    "list": open_list,
    "streets": open_streets,
}


def open_data(
    spec: str,
    *,
    split: str | None = None,
    height: int | None = None,
    width: int | None = None,
    seed: int = 0,
) -> Dataset:
    """The data set of `KIND:PLACE`, or of `streets` alone, which are drawn on the fly.

    split: measure on this one instead of the kind's own; refused if it is absent or unlabelled.
    height, width (256x512 unless given) and seed are those of drawn streets; no other data has a say in them.
    """
    kind, _, place = spec.partition(":")
    if kind not in DATASETS:
        raise unknown_name("data set", kind, DATASETS)
    if spec == "streets":
        dataset = drawn.drawn_streets(
            height=drawn.HEIGHT if height is None else height,
            width=drawn.WIDTH if width is None else width,
            seed=seed,
        )
    elif not place:
        raise BadInput(f"data set {spec!r} does not say where it is; write {kind}:PATH")
    elif height is not None or width is not None:
        raise BadInput(f"a height and width are for streets drawn on the fly; {spec} has its own")
    else:
        dataset = DATASETS[kind](Path(place).expanduser().absolute())
    if split is not None:
        dataset.samples(split)
        dataset = replace(dataset, eval_split=split)
    return dataset
