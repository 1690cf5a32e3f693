"""Labelled driving images from files or drawn on the fly, as batches; class sets and their maps."""

from __future__ import annotations

from segpatch.data.classes import CAMVID, CITYSCAPES, ClassMap, ClassSet, class_map
from segpatch.data.dataset import Dataset, Sample, batches, cached, order
from segpatch.data.specs import DATASETS, open_data

__all__ = [
    "CAMVID",
    "CITYSCAPES",
    "DATASETS",
    "ClassMap",
    "ClassSet",
    "Dataset",
    "Sample",
    "batches",
    "cached",
    "class_map",
    "open_data",
    "order",
]
