"""Writing generated streets as a folder in the Cityscapes layout."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from segpatch.bounds import check_whole
from segpatch.data.cityscapes import IMAGE_ENDING, TRAIN_IDS_ENDING
from segpatch.data.drawn import Drawn, check_street, generator_version, street_name
from segpatch.errors import BadInput
from segpatch.writing import guarded, make_folder, write_png, write_whole

CITY = "streets"
MOST_STREETS = 10**6
"""Of a split, whose names count in six digits."""

_FEW = 48  # images that one process draws sooner than others have started


def make_streets(
    out: Path,
    *,
    train: int,
    val: int,
    height: int,
    width: int,
    seed: int,
    on_image: Callable[[int, int], None] | None = None,
) -> None:
    """Writes `train` and `val` streets of height x width, the same that `streets` draws with this seed.

    out must be absent or empty, and holds either everything or nothing. on_image gets the number of images
    written and the number there will be.
    """
    check_whole("train", train, 0, MOST_STREETS)
    check_whole("val", val, 0 if train else 1, MOST_STREETS)
    check_street(height, width, seed)
    out = out.absolute()
    _refuse_full(out)
    unfinished = out.parent / f".{out.name}.{os.getpid()}.unfinished"
    streets = [
        (unfinished, Drawn(seed, split, index, height, width))
        for split, count in (("train", train), ("val", val))
        for index in range(count)
    ]
    try:
        for split in ("train", "val"):
            for kind in ("leftImg8bit", "gtFine"):
                make_folder(unfinished / kind / split / CITY)
        for done, _ in enumerate(_write_all(streets), start=1):
            if on_image is not None:
                on_image(done, len(streets))
        about = {
            "generator": generator_version(),
            "seed": seed,
            "train": train,
            "val": val,
            "height": height,
            "width": width,
        }
        write_whole(unfinished / "streets.json", (json.dumps(about, indent=2) + "\n").encode())
        _refuse_full(out)
        with guarded(out):
            if out.exists():
                out.rmdir()
            unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_all(streets: list[tuple[Path, Drawn]]) -> Iterator[None]:
    if len(streets) <= _FEW:
        yield from map(_write, streets)
        return
    # Spawned, because forking a process that runs threads (torch) may hang it.
    context = multiprocessing.get_context("spawn")
    done = 0
    try:
        with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
            for _ in pool.map(_write, streets, chunksize=8):
                done += 1
                yield
    except BrokenProcessPool:
        # No process can start from a script read from stdin, or without a __main__ guard: go on alone.
        yield from map(_write, streets[done:])


def _write(street: tuple[Path, Drawn]) -> None:
    root, drawn = street
    image, labels = drawn.read()
    name = street_name(drawn.index)
    write_png(root / "leftImg8bit" / drawn.split / CITY / f"{name}{IMAGE_ENDING}.png", image)
    write_png(root / "gtFine" / drawn.split / CITY / f"{name}{TRAIN_IDS_ENDING}.png", labels)


def _refuse_full(out: Path) -> None:
    if out.is_dir() and out.samefile(Path.cwd()):
        raise BadInput(f"{out} is the folder that you are in, which would be replaced; give another place")
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists():
        raise BadInput(f"{out} is there already and not an empty folder; give another place or remove it")
