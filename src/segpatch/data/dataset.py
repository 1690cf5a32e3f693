"""A data set: splits of labelled images, read in batches."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from segpatch.data.classes import ClassSet
from segpatch.data.files import Pair, Pixels
from segpatch.errors import BadInput, Missing, SegpatchError
from segpatch.types import IGNORE, Batch

DEFAULT_CACHE_BYTES = 2 * 1024**3

_ORDER = 0x6F72646572  # "order": keeps the stream of `order` apart from those of (seed, step, sample)


class Source(Protocol):
    """Where one labelled image comes from; str() names it in messages."""

    @property
    def labelled(self) -> bool:
        """Whether there is a label at all."""

    def read(self) -> Pair:
        """Image (H, W, 3) RGB and labels (H, W), class ids or IGNORE."""

    def read_labels(self) -> Pixels:
        """The labels alone."""

    def size(self) -> tuple[int, int]:
        """Height and width, quickly; BadInput for what can be seen to be wrong without reading the pixels."""

    def digest(self) -> bytes:
        """Changes with the content, not with the place where it is stored."""


@dataclass(frozen=True)
class Sample:
    """One labelled image of a split.

    name: unique within the split. group: the drive, video or city: images of one group may depend on
    each other, and stand in the order of time. An image that depends on no other is a group of its own.
    """

    name: str
    group: str
    source: Source


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Splits of labelled images over one set of classes.

    Patches and networks are trained on train_split, `fit` selects on select_split, and results are
    measured on eval_split. layout says which files were expected; strays are label files without image.
    """

    kind: str
    spec: str
    classes: ClassSet
    splits: Mapping[str, tuple[Sample, ...]]
    eval_split: str
    train_split: str = "train"
    select_split: str = "val"
    layout: str = ""
    strays: tuple[Path, ...] = ()
    _usable: set[str] = field(default_factory=set, init=False, repr=False)  # splits already looked at

    def samples(self, split: str) -> tuple[Sample, ...]:
        """The samples of a split, in order; refused unless labelled, uniquely named, and sound in header."""
        if split not in self.splits:
            have = ", ".join(self.splits)
            raise Missing(f"{self.spec} has no split {split!r}; it has: {have}. Choose one of them")
        if split not in self._usable:
            _refuse_unusable(self, split)
            self._usable.add(split)
        return self.splits[split]

    def names(self, split: str) -> tuple[str, ...]:
        return tuple(sample.name for sample in self.samples(split))

    def groups(self, split: str) -> tuple[str, ...]:
        return tuple(sample.group for sample in self.samples(split))

    def read(self, split: str, index: int) -> Pair:
        """Image (H, W, 3) RGB and labels (H, W), class ids or IGNORE."""
        return self.samples(split)[index].source.read()

    def size(self, split: str) -> tuple[int, int]:
        """Height and width of the split's first image."""
        return self.samples(split)[0].source.size()

    def fingerprint(self, split: str) -> str:
        """SHA-256 over class names and, image by image, its name and digest; the folder's place is left out.

        The digest of a pair of files covers sizes and first 64 KiB; that of a drawn street its parameters
        and the generator's version.
        """
        digest = hashlib.sha256("\n".join(self.classes.names).encode())
        for sample in self.samples(split):
            digest.update(sample.name.encode() + b"\0" + sample.source.digest())
        return digest.hexdigest()


def batches(
    dataset: Dataset,
    split: str,
    *,
    batch_size: int,
    indices: Sequence[int] | None = None,
    workers: int = 0,
) -> Iterator[Batch]:
    """The images of a split, or those of `indices`, in order; the last batch may be smaller.

    workers: threads that read ahead; they change the speed and nothing else.
    """
    if batch_size < 1 or workers < 0:
        raise BadInput(f"batch_size must be 1 or more and workers 0 or more, got {batch_size} and {workers}")
    samples = dataset.samples(split)
    wanted = samples if indices is None else [samples[index] for index in indices]
    return _stream(wanted, batch_size, workers)


@functools.lru_cache(maxsize=8)
def order(seed: int, epoch: int, n: int) -> tuple[int, ...]:
    """The order in which an epoch visits n images: a function of (seed, epoch) alone."""
    sequence = np.random.SeedSequence([seed, epoch, _ORDER])
    return tuple(np.random.default_rng(sequence).permutation(n).tolist())


def cached(dataset: Dataset, budget_bytes: int = DEFAULT_CACHE_BYTES) -> Dataset:
    """The same data set, keeping decoded images in memory until `budget_bytes` are full.

    Nothing is ever dropped: when every epoch visits all images, dropping the oldest would keep none.
    """
    memory = _Memory(budget_bytes)
    splits = {
        split: tuple(replace(sample, source=_Kept(sample.source, memory)) for sample in samples)
        for split, samples in dataset.splits.items()
    }
    return replace(dataset, splits=splits)


def _stream(samples: Sequence[Sample], batch_size: int, workers: int) -> Iterator[Batch]:
    pairs = _read_ahead([sample.source.read for sample in samples], workers)
    for start in range(0, len(samples), batch_size):
        chunk = samples[start : start + batch_size]
        yield _collate(chunk, list(itertools.islice(pairs, len(chunk))))


def _collate(samples: Sequence[Sample], pairs: Sequence[Pair]) -> Batch:
    import torch

    first = pairs[0][0].shape
    for sample, (image, _) in zip(samples, pairs, strict=True):
        if image.shape != first:
            raise BadInput(
                f"{sample.source} is {image.shape[0]}x{image.shape[1]} (height x width) but the batch began "
                f"with {first[0]}x{first[1]}; images of one batch need one size: use batches of 1 or resize"
            )
    images = torch.from_numpy(np.stack([image for image, _ in pairs])).permute(0, 3, 1, 2).contiguous()
    labels = torch.from_numpy(np.stack([labels for _, labels in pairs]))
    return Batch(images.float().div_(255), labels.long(), tuple(sample.name for sample in samples))


def _read_ahead(reads: Sequence[Callable[[], Pair]], workers: int) -> Iterator[Pair]:
    if workers == 0:
        yield from (read() for read in reads)
        return
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[Pair]] = deque()
    try:
        for read in reads:
            waiting.append(pool.submit(read))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _refuse_unusable(dataset: Dataset, split: str) -> None:
    samples = dataset.splits[split]
    where = f"split {split!r} of {dataset.spec}"
    if not samples:
        raise BadInput(f"{where} holds no image; expected {dataset.layout}. Choose another split")
    bare = [sample for sample in samples if not sample.source.labelled]
    if len(bare) == len(samples):
        raise BadInput(f"{where} has no label; expected {dataset.layout}. Choose a labelled split")
    if bare:
        raise BadInput(
            f"{len(bare)} of {len(samples)} images of {where} have no label, the first is {bare[0].source}; "
            f"`segpatch data check {dataset.spec}` lists them"
        )
    seen: dict[str, Sample] = {}
    for sample in samples:
        if sample.name in seen:
            raise BadInput(f"{where} has {sample.name!r} twice: {seen[sample.name].source} and {sample.source}")
        seen[sample.name] = sample
    wrong = [error for sample in samples if (error := _header_error(sample))]
    if len(wrong) > 1:
        check = f"`segpatch data check {dataset.spec}` lists them"
        raise BadInput(f"{len(wrong)} of {len(samples)} images of {where} cannot be used ({check}); {wrong[0]}")
    if wrong:
        raise wrong[0]
    # The first label of a labelled split answers this; only an unlabelled one is read whole.
    if all((sample.source.read_labels() == IGNORE).all() for sample in samples):
        raise BadInput(f"{where} has no labelled pixel: all are to be ignored. Choose a labelled split")


def _header_error(sample: Sample) -> SegpatchError | None:
    try:
        sample.source.size()
    except SegpatchError as error:
        return error
    return None


@dataclass
class _Memory:
    """Decoded pairs by source, at most `budget` bytes."""

    budget: int
    used: int = 0
    pairs: dict[Source, Pair] = field(default_factory=dict)


@dataclass(frozen=True)
class _Kept:
    """A source whose pair stays in `memory` once read, if there is room."""

    source: Source
    memory: _Memory

    def __str__(self) -> str:
        return str(self.source)

    @property
    def labelled(self) -> bool:
        return self.source.labelled

    def read(self) -> Pair:
        pair = self.memory.pairs.get(self.source)
        if pair is None:
            pair = self.source.read()
            # Threads may both pass the test: the budget is then passed by a few images at most.
            room = sum(array.nbytes for array in pair)
            if self.memory.used + room <= self.memory.budget:
                self.memory.used += room
                for array in pair:
                    array.flags.writeable = False
                self.memory.pairs[self.source] = pair
        return pair

    def read_labels(self) -> Pixels:
        return self.source.read_labels()

    def size(self) -> tuple[int, int]:
        return self.source.size()

    def digest(self) -> bytes:
        return self.source.digest()
