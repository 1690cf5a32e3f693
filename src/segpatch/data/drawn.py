"""Streets drawn on the fly: a data set that needs no file."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

from segpatch.bounds import MOST_SIDE, check_seed, check_size, check_whole
from segpatch.data.classes import CITYSCAPES
from segpatch.data.dataset import Dataset, Sample
from segpatch.data.files import Pair, Pixels

HEIGHT, WIDTH = 256, 512
COUNTS = {"train": 1000, "val": 100}


@dataclass(frozen=True)
class Drawn:
    """Street number `index` of a split: the same numbers draw the same street anywhere."""

    seed: int
    split: str
    index: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"street {self.index} of {self.split}"

    @property
    def labelled(self) -> bool:
        return True

    def read(self) -> Pair:
        from segpatch.data.streets import draw_street

        return draw_street(self.seed, self.split, self.index, self.height, self.width)

    def read_labels(self) -> Pixels:
        return self.read()[1]

    def size(self) -> tuple[int, int]:
        return self.height, self.width

    def digest(self) -> bytes:
        """Of the numbers that draw the street and of the generator, not of the pixels."""
        return hashlib.sha256(f"{self!r} {generator_version()}".encode()).digest()


def drawn_streets(*, height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> Dataset:
    """1000 streets to train on and 100 to measure on; each depends on no other."""
    check_street(height, width, seed)
    splits = {
        split: tuple(
            Sample(street_name(index), street_name(index), Drawn(seed, split, index, height, width))
            for index in range(count)
        )
        for split, count in COUNTS.items()
    }
    return Dataset(kind="streets", spec="streets", classes=CITYSCAPES, splits=splits, eval_split="val")


def street_name(index: int) -> str:
    """City, sequence and frame, as Cityscapes names its images."""
    return f"streets_{index:06d}_000000"


def check_street(height: int, width: int, seed: int) -> None:
    check_whole("the height of a street", height, 16, MOST_SIDE)
    check_whole("the width of a street", width, 16, MOST_SIDE)
    check_size("a street", (height, width))
    check_seed(seed)


@functools.cache
def generator_version() -> str:
    """Hash of one small street: it changes whenever the generator draws anything else."""
    image, labels = Drawn(0, "val", 0, 64, 128).read()
    return hashlib.sha256(image.tobytes() + labels.tobytes()).hexdigest()[:16]
