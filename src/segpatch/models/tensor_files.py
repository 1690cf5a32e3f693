"""Files of tensors, read without trust: nothing in them runs, and no size is believed before it is checked.

A torch file is a pickle that describes tensors, and their bytes: in a zip archive, or, before torch 1.6, one after
another.
"""

from __future__ import annotations

import contextlib
import mmap
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from segpatch.errors import BadInput, Missing
from segpatch.models.pickles import MALFORMED, Stored, WantsMore, follow
from segpatch.reading import unreadable

SAFETENSORS, ZIP, LEGACY = "safetensors", "torch", "torch before 1.6"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_UNREADABLE = (*MALFORMED, OSError, EOFError, NotImplementedError, struct.error, zipfile.BadZipFile)


@dataclass(frozen=True)
class TorchFile:
    """What torch.save wrote: nested containers, with a Stored for each tensor and None for what is left out."""

    path: Path
    content: Any
    positions: Mapping[str, int]

    def read(self, chosen: Mapping[str, Stored]) -> dict[str, Tensor]:
        """The tensors of some descriptions; only their bytes are read."""
        storages: dict[str, Tensor] = {}
        with self.path.open("rb") as file:
            for storage in {stored.storage for stored in chosen.values()}:
                buffer = bytearray(storage.bytes)
                file.seek(self.positions[storage.name])
                if file.readinto(buffer) < len(buffer):
                    raise _damaged(self.path, "it ends too early")
                empty = torch.empty(0, dtype=storage.dtype)
                storages[storage.name] = torch.frombuffer(buffer, dtype=storage.dtype) if buffer else empty
        return {
            key: storages[stored.storage.name].as_strided(stored.shape, stored.stride, stored.offset)
            for key, stored in chosen.items()
        }


def container(path: Path) -> str:
    """SAFETENSORS, ZIP or LEGACY, from a file's first bytes; Missing without it, BadInput for anything else."""
    if path.is_dir():
        raise BadInput(f"{path} is a folder, not a checkpoint; give the path of a .safetensors, .pt or .pth file")
    if not path.is_file():
        raise Missing(f"no checkpoint at {path}; give the path of a .safetensors, .pt or .pth file")
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise unreadable(path, error) from error
    if not head:
        raise BadInput(f"{path} is empty; get the file again")
    if path.suffix == ".safetensors" or head[8:] == b"{":
        return SAFETENSORS
    if head.startswith(b"PK\x03\x04"):
        return ZIP
    if head.startswith(b"\x80"):
        return LEGACY
    raise BadInput(
        f"{path} is no checkpoint (it begins with {head!r}); give a .safetensors file, or what torch.save writes"
    )


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and metadata of a safetensors file; the library checks its header against its length."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path} is not a whole safetensors file ({error})") from error


def open_torch(path: Path) -> TorchFile:
    """What torch.save wrote, as descriptions; BadInput where it asks for more than tensors, or a size is wrong."""
    try:
        return _described(path)
    except WantsMore as error:
        raise BadInput(
            f"{path} holds more than tensors ({error}) and is not opened; load it where you trust it and save its "
            "state_dict alone with torch.save or safetensors"
        ) from error


def must_be_whole(path: Path) -> None:
    """BadInput where a file is none that holds tensors, or is not whole; its tensors are not read."""
    if container(path) != SAFETENSORS:
        with contextlib.suppress(WantsMore):
            _described(path)
        return
    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path} is not a whole safetensors file ({error})") from error


def _described(path: Path) -> TorchFile:
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            # Python says of a damaged text in a pickle that its escapes will be an error one day.
            warnings.simplefilter("ignore", DeprecationWarning)
            return _open_zip(path, file) if container(path) == ZIP else _open_legacy(path, file)
    except _UNREADABLE as error:
        raise _damaged(path, error) from error


def _open_zip(path: Path, file: BinaryIO) -> TorchFile:
    """An archive of the records NAME/data.pkl and NAME/data/KEY, each stored as it is."""
    length = path.stat().st_size
    with zipfile.ZipFile(file) as archive:
        records = {info.filename.partition("/")[2]: info for info in archive.infolist()}

    def place(record: str) -> tuple[int, int]:
        info = records[record]
        file.seek(info.header_offset + 26)  # lengths of the name and extra fields, in the record's own header
        start = info.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
        if info.compress_type or info.file_size != info.compress_size or start + info.file_size > length:
            raise ValueError(f"record {record} is not stored as torch stores it")
        return start, info.file_size

    def raw(record: str) -> bytes:
        start, size = place(record)
        file.seek(start)
        return file.read(size)

    if "byteorder" in records and raw("byteorder") != b"little":
        raise ValueError("its numbers are big-endian")
    content, storages = follow(raw("data.pkl"))
    positions = {}
    for name, storage in storages.items():
        positions[name], size = place(f"data/{name}")
        if size != storage.bytes:
            raise ValueError(f"storage {name} claims {storage.bytes} bytes and has {size}")
    return TorchFile(path, content, positions)


def _open_legacy(path: Path, file: BinaryIO) -> TorchFile:
    """Five pickles (magic number, version, system, content, storages' names), then each storage: count, bytes."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if follow(data)[0] != _LEGACY_MAGIC:
            raise ValueError("it is a pickle, but not of torch")
        follow(data)
        if not follow(data)[0].get("little_endian", True):
            raise ValueError("its numbers are big-endian")
        content, storages = follow(data)
        names = follow(data)[0]
        positions, at = {}, data.tell()
        for name in names:
            (count,) = struct.unpack("<q", data[at : at + 8])
            if count != storages[name].elements or at + 8 + storages[name].bytes > len(data):
                raise ValueError(f"storage {name} claims {storages[name].bytes} bytes, more than the file has")
            positions[name] = at + 8
            at += 8 + storages[name].bytes
    if storages.keys() - positions:
        raise ValueError("storages are missing")
    return TorchFile(path, content, positions)


def _damaged(path: Path, why: object) -> BadInput:
    return BadInput(f"{path} cannot be read as a checkpoint ({why}); get the file again")
