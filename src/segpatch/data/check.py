"""Reading every file of a data set, to name every one that is bad."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from segpatch.data.dataset import Dataset, Sample
from segpatch.data.files import FilePair, Pixels, read_image
from segpatch.data.specs import open_data
from segpatch.errors import BadInput, Missing
from segpatch.types import IGNORE

T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """One thing to mend.

    kind: missing, image (unusable), label (unusable, or values that are no class), size, unlabelled, empty (a
    split), stray (a label without image) or duplicate. path: the file, or what stands for it. message: one line.
    """

    path: str
    kind: str
    message: str


@dataclass(frozen=True)
class SplitSummary:
    """What a split holds; sizes: (height, width) -> images; pixels and images_with: one number a class."""

    name: str
    images: int
    labelled: int
    sizes: dict[tuple[int, int], int]
    pixels: tuple[int, ...]
    images_with: tuple[int, ...]
    ignored_pixels: int


@dataclass(frozen=True)
class CheckReport:
    """The splits and all problems of a data set; notes are worth knowing and need no mending."""

    spec: str
    kind: str
    classes: tuple[str, ...]
    splits: tuple[SplitSummary, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


def check_data(spec: str, *, on_image: Callable[[int, int], None] | None = None) -> CheckReport:
    """Reads every image and label of every split; on_image gets the number done and the number there are."""
    dataset = open_data(spec)
    samples = [(split, sample) for split, samples in dataset.splits.items() for sample in samples]
    looks: dict[str, list[_Look]] = {split: [] for split in dataset.splits}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda item: _look(item[1], len(dataset.classes)), samples)
        for done, ((split, _), look) in enumerate(zip(samples, results, strict=True), start=1):
            looks[split].append(look)
            if on_image is not None:
                on_image(done, len(samples))
    problems = [problem for split in looks.values() for look in split for problem in look.problems]
    notes: list[str] = []
    for split in looks:
        _judge_labels(dataset, split, looks[split], problems, notes)
    _judge_copies(looks, problems, notes)
    problems += _clashing_names(dataset)
    problems += [Problem(str(path), "stray", f"{path} is a label without an image") for path in dataset.strays]
    return CheckReport(
        spec=dataset.spec,
        kind=dataset.kind,
        classes=dataset.classes.names,
        splits=tuple(_summary(split, looks[split], len(dataset.classes)) for split in looks),
        problems=tuple(problems),
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class _Look:
    """What one sample turned out to hold; counts: pixels of each class, then ignored ones."""

    source: str
    labelled: bool
    size: tuple[int, int] | None
    content: bytes | None
    counts: tuple[int, ...] | None
    problems: tuple[Problem, ...]


def _look(sample: Sample, classes: int) -> _Look:
    source = sample.source
    problems: list[Problem] = []
    image: Pixels | None = None
    labels: Pixels | None = None
    if isinstance(source, FilePair):
        # One by one, so that a bad image does not hide a bad label.
        image = _attempt(lambda: read_image(source.image), str(source.image), "image", problems)
        if source.labelled:
            labels = _attempt(source.read_labels, str(source.label), "label", problems)
        if image is not None and labels is not None and image.shape[:2] != labels.shape:
            _attempt(source.read, str(source.image), "size", problems)
    else:
        image, labels = source.read()
    return _Look(
        source=str(source),
        labelled=source.labelled,
        size=None if image is None else (image.shape[0], image.shape[1]),
        content=None if image is None else hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest(),
        counts=None if labels is None else _counts(labels, classes),
        problems=tuple(problems),
    )


def _attempt(read: Callable[[], T], path: str, kind: str, problems: list[Problem]) -> T | None:
    try:
        return read()
    except Missing as error:
        problems.append(Problem(path, "missing", str(error)))
    except BadInput as error:
        problems.append(Problem(path, kind, str(error)))
    return None


def _counts(labels: Pixels, classes: int) -> tuple[int, ...]:
    counts = np.bincount(labels.ravel(), minlength=IGNORE + 1)
    return (*counts[:classes].tolist(), int(counts[IGNORE]))


def _judge_labels(
    dataset: Dataset, split: str, looks: list[_Look], problems: list[Problem], notes: list[str]
) -> None:
    """Splits without images; images without label, unless the whole split has none and is used only if asked."""
    if not looks:
        problems.append(Problem(f"split {split}", "empty", f"split {split!r} holds no image; fill or remove it"))
        return
    bare = [look for look in looks if not look.labelled]
    used = split in (dataset.train_split, dataset.select_split, dataset.eval_split)
    if len(bare) == len(looks) and not used:
        notes.append(f"split {split!r} has no labels ({len(bare)} images); it cannot be measured")
    else:
        problems += [
            Problem(look.source, "unlabelled", f"{look.source} has no label; expected {dataset.layout}")
            for look in bare
        ]
    counted = [look.counts for look in looks if look.counts is not None]
    if counted and len(counted) == len(looks) and not any(sum(counts[:-1]) for counts in counted):
        message = f"all labels of split {split!r} are to be ignored; it cannot be measured"
        if used:
            problems.append(Problem(f"split {split}", "unlabelled", message))
        else:
            notes.append(message)


def _judge_copies(looks: dict[str, list[_Look]], problems: list[Problem], notes: list[str]) -> None:
    """The same picture twice: in two splits it spoils every result, within one it is worth a note."""
    first: dict[bytes, tuple[str, str]] = {}
    shown = [(split, look) for split, all_looks in looks.items() for look in all_looks]
    for split, look in shown:
        if look.content is None:
            continue
        where, other = first.setdefault(look.content, (split, look.source))
        if (where, other) == (split, look.source):
            continue
        if where == split:
            notes.append(f"{look.source} is the same picture as {other}")
        else:
            message = f"{look.source} in {split!r} is the same picture as {other} in {where!r}"
            problems.append(Problem(look.source, "duplicate", message))


def _clashing_names(dataset: Dataset) -> Iterator[Problem]:
    for split, samples in dataset.splits.items():
        first: dict[str, Sample] = {}
        for sample in samples:
            other = first.setdefault(sample.name, sample)
            if other is not sample:
                message = f"{sample.source} has the name {sample.name!r} of {other.source} in {split!r}"
                yield Problem(str(sample.source), "duplicate", message)


def _summary(split: str, looks: list[_Look], classes: int) -> SplitSummary:
    rows = [look.counts for look in looks if look.counts is not None]
    counts = np.array(rows, dtype=np.int64).reshape(-1, classes + 1)
    return SplitSummary(
        name=split,
        images=len(looks),
        labelled=sum(look.labelled for look in looks),
        sizes=dict(Counter(look.size for look in looks if look.size is not None)),
        pixels=tuple(counts[:, :-1].sum(axis=0).tolist()),
        images_with=tuple((counts[:, :-1] > 0).sum(axis=0).tolist()),
        ignored_pixels=int(counts[:, -1].sum()),
    )
