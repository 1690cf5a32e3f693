"""A file of victims, for --victims: what a user knows better than the files that the networks come in.

    [victim.ours]                      # the name it gets
    network = "pidnet-s"               # unless the name is that of a network
    checkpoint = "weights/best.pth"    # a file, a `segpatch fit` run, hf:ID_OR_FOLDER or onnx:FILE; none: shipped
    mean = [0.5, 0.5, 0.5]             # and std, for images in [0, 1] x value_range
    channel_order = "bgr"
    window = 1024                      # and stride, in pixels; 0 for the whole image at once
    align_corners = true               # of the final resize
    classes = "camvid"                 # or "cityscapes", a list of names, or a folder with classes.json or .txt
    trained_on = "cityscapes train+val"

Paths are relative to the file.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from segpatch.data.classes import CAMVID, CITYSCAPES, ClassSet
from segpatch.data.folder import read_classes
from segpatch.errors import BadInput, Missing, unknown_name
from segpatch.models.load import NETWORK_FILE
from segpatch.models.networks import ALIASES, MODELS
from segpatch.models.settings import Settings, Triple
from segpatch.reading import read_text

_KNOWN = {known.name: known for known in (CITYSCAPES, CAMVID)}


class Named(NamedTuple):
    """What a name in the file stands for: a spec, as `load_victim` takes it, and settings that replace its own."""

    spec: str
    settings: Settings


@dataclass(frozen=True, kw_only=True)
class _Table:
    """A table of the file, as it is written."""

    network: str | None = None
    checkpoint: str | None = None
    mean: Triple | None = None
    std: Triple | None = None
    channel_order: str | None = None
    value_range: float | None = None
    align_corners: bool | None = None
    window: int | None = None
    stride: int | None = None
    classes: str | list[str] | None = None
    trained_on: str | None = None


def read_victims(path: Path) -> dict[str, Named]:
    """The victims of a file by name, in its order; BadInput naming what cannot be used, Missing without it."""
    if not path.is_file():
        raise Missing(f"no victims file at {path}; write [victim.NAME] tables with network, checkpoint ..")
    text = read_text(path)
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is no TOML file ({error})") from error
    for key in content.keys() - {"victim"}:
        raise BadInput(f"{path}: {unknown_name('table', key, ['victim'])}")
    tables = content.get("victim")
    if not isinstance(tables, dict) or not tables or not all(isinstance(t, dict) for t in tables.values()):
        raise BadInput(f"{path} names no victim; write a [victim.NAME] table for each")
    return {name: _named(path, name, table) for name, table in tables.items()}


def _named(path: Path, name: str, content: dict[str, Any]) -> Named:
    for key in content:
        if key not in _Table.__dataclass_fields__:
            raise BadInput(f"{path}: [victim.{name}]: {unknown_name('setting', key, _Table.__dataclass_fields__)}")
    try:
        table = TypeAdapter(_Table).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(
            f"{path}: [victim.{name}]: {first['loc'][0]}: {first['msg']}, got {first['input']!r}"
        ) from error
    said = {key: value for key, value in vars(table).items() if key not in ("network", "checkpoint", "classes")}
    try:
        settings = Settings(**said, classes=_classes(path, name, table.classes))
        return Named(_spec(path, name, table), settings)
    except (BadInput, Missing) as error:
        raise type(error)(f"{path}: [victim.{name}]: {error}") from error
    except (OSError, RuntimeError, ValueError) as error:  # of a path too long, or of a home that nobody has
        raise BadInput(f"{path}: [victim.{name}]: it names a path that cannot be ({error})") from error


def _spec(path: Path, name: str, table: _Table) -> str:
    network = table.network or (name if name in (*MODELS, *ALIASES) else None)
    if table.checkpoint is None:
        if network is None:
            raise BadInput("it needs a network, a checkpoint or both")
        return network
    kind, colon, source = table.checkpoint.partition(":")
    if colon and kind in ("hf", "onnx"):
        place = path.parent / Path(source).expanduser()
        return f"{kind}:{place}" if kind == "onnx" or place.exists() else table.checkpoint
    place = path.parent / Path(table.checkpoint).expanduser()
    if place.is_dir():
        return f"{network}={place / NETWORK_FILE}" if table.network else str(place)
    if network is None:
        raise BadInput(f"it does not say which network {table.checkpoint} is; add network = NAME")
    return f"{network}={place}"


def _classes(path: Path, name: str, said: str | list[str] | None) -> ClassSet | None:
    if said is None:
        return None
    if isinstance(said, list):
        return ClassSet.of(said, name)
    if said in _KNOWN:
        return _KNOWN[said]
    folder = path.parent / Path(said).expanduser()
    if not folder.is_dir():
        raise BadInput(
            f"classes = {said!r} is neither {' nor '.join(map(repr, _KNOWN))} nor a folder with classes.json or "
            "classes.txt; or give a list of names"
        )
    return read_classes(folder)[0]
