"""One image file and its label file: reading them, and refusing what cannot be read truly."""

from __future__ import annotations

import contextlib
import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from segpatch.bounds import MOST_PIXELS, MOST_SIDE
from segpatch.errors import BadInput, Missing, SegpatchError, advice
from segpatch.reading import must_be_plain
from segpatch.types import IGNORE

Pixels = npt.NDArray[np.uint8]
Pair = tuple[Pixels, Pixels]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".tif", ".tiff", ".webp"})

MAX_CLASSES = 254
_INVALID = 254  # in a label table: a value that means nothing; no class id reaches it
_DIGEST_BYTES = 64 * 1024
_FORMATS = ("PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP")  # some of Pillow's others start programs
_ORIENTATION = 0x0112  # the EXIF tag that says how a picture is turned; 1 is upright


@dataclass(frozen=True)
class FilePair:
    """An image file, its label file (None where it has none) and the meaning of the label's values.

    table: 256 bytes from `label_table`.
    """

    image: Path
    label: Path | None
    table: bytes

    def __str__(self) -> str:
        return str(self.image)

    @property
    def labelled(self) -> bool:
        return self.label is not None

    def read(self) -> Pair:
        """Image (H, W, 3) RGB and labels (H, W), class ids or IGNORE."""
        labels = self.read_labels()
        image = read_image(self.image)
        self._same_size((image.shape[0], image.shape[1]), (labels.shape[0], labels.shape[1]))
        return image, labels

    def read_labels(self) -> Pixels:
        if self.label is None:
            raise BadInput(f"{self.image} has no label file")
        return read_labels(self.label, self.table)

    def size(self) -> tuple[int, int]:
        """Height and width, from the headers alone; BadInput for what they show to be wrong in image or label."""
        with opened(self.image) as picture:
            _refuse_deep(self.image, picture)
            size = picture.height, picture.width
        if self.label is not None:
            with opened(self.label) as picture:
                _refuse_unclear(self.label, picture)
                self._same_size(size, (picture.height, picture.width))
        return size

    def _same_size(self, image: tuple[int, int], label: tuple[int, int]) -> None:
        if image != label:
            (H, W), (h, w) = image, label
            raise BadInput(f"image {self.image} is {H}x{W} but its label {self.label} is {h}x{w} (height x width)")

    def digest(self) -> bytes:
        """Of sizes and first 64 KiB of both files: cheap enough for the 11 GB of Cityscapes."""
        digest = hashlib.sha256(self.table)
        for path in (self.image, self.label):
            if path is None:
                continue
            try:
                with path.open("rb") as file:
                    head = file.read(_DIGEST_BYTES)
                digest.update(f"{path.stat().st_size} {zlib.crc32(head)};".encode())
            except OSError as error:
                raise _unreadable(path, error) from error
        return digest.digest()


def label_table(values: Iterable[int], ignored: Iterable[int] = ()) -> bytes:
    """What each of the 256 values of a label file means: a class id, IGNORE, or nothing (refused).

    values: those that mean class 0, 1, ... in a file. IGNORE itself is always ignored.
    """
    table = bytearray([_INVALID] * 256)
    for value in (*ignored, IGNORE):
        table[value] = IGNORE
    for class_id, value in enumerate(values):
        table[value] = class_id
    return bytes(table)


def read_image(path: Path) -> Pixels:
    """(H, W, 3) RGB. Grey, palette, CMYK and opaque alpha are converted; more than 8 bits is refused."""
    with opened(path) as picture:
        _refuse_deep(path, picture)
        picture.load()
        _refuse_turned(path, picture)  # a PNG may say so behind its pixels
        if picture.has_transparency_data:
            if picture.convert("RGBA").getchannel("A").getextrema() != (255, 255):
                raise BadInput(f"{path} has transparent pixels; put it on a background, save it as RGB")
            return np.array(picture.convert("RGBA").convert("RGB"), dtype=np.uint8)
        return np.array(picture.convert("RGB"), dtype=np.uint8)


def read_labels(path: Path, table: bytes) -> Pixels:
    """(H, W) class ids or IGNORE, from an 8-bit grey or a palette picture whose values are class ids."""
    with opened(path) as picture:
        _refuse_unclear(path, picture)
        values = np.array(picture, dtype=np.uint8)
        _refuse_turned(path, picture)
    labels = np.frombuffer(table, dtype=np.uint8)[values]
    wrong = np.unique(values[labels == _INVALID])
    if wrong.size:
        known = sorted(value for value in range(256) if table[value] != _INVALID)
        raise BadInput(
            f"{path} has label value{'s' * (wrong.size > 1)} {_ranges(wrong.tolist())}; "
            f"expected only {_ranges(known)}"
        )
    return labels


def image_files(folder: Path) -> list[Path]:
    """The image files anywhere under `folder`, sorted, with links to nothing; hidden files are passed over."""
    return sorted(
        path
        for place, _, names in os.walk(folder, onerror=_refuse_folder)
        for path in (Path(place, name) for name in names)
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
        if path.is_file() or (path.is_symlink() and not path.exists())
    )


def label_files(folder: Path) -> list[Path]:
    """The PNG files anywhere under `folder`, sorted."""
    return [path for path in image_files(folder) if path.suffix.lower() == ".png"]


def describe(folder: Path) -> str:
    """What is there instead, for the message of a Missing."""
    if not folder.exists():
        return "nothing of that name"
    if not folder.is_dir():
        return "a file"
    names = sorted(path.name for path in folder.iterdir())
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more or "an empty folder"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """A picture whose header is read; what is wrong with it, or goes wrong inside, is a SegpatchError."""
    try:
        if path.exists():
            must_be_plain(path, 4 * MOST_PIXELS)
        with Image.open(path, formats=_FORMATS) as picture:
            width, height = picture.size
            if max(width, height) > MOST_SIDE or width * height > MOST_PIXELS:
                raise BadInput(
                    f"{path} is {height}x{width} (height x width), more than {MOST_SIDE} pixels a side or "
                    f"{MOST_PIXELS // 1024**2} million in all; it is not decoded: cut or shrink it"
                )
            _refuse_turned(path, picture)
            yield picture
    except SegpatchError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly everything on bytes that make no sense
        raise _unreadable(path, error) from error


def _refuse_turned(path: Path, picture: ImageFile.ImageFile) -> None:
    # To look for EXIF in a PNG that has none before its pixels, Pillow would decode it.
    told = picture.format != "PNG" or "exif" in picture.info
    turned = picture.getexif().get(_ORIENTATION, 1) if told else 1
    if turned not in (0, 1):
        raise BadInput(
            f"{path} is stored turned or mirrored (EXIF orientation {turned}), so its label may not lie on it; "
            "save it upright, without that tag"
        )


def _refuse_deep(path: Path, picture: ImageFile.ImageFile) -> None:
    """BadInput for more than 8 bits a channel, of which Pillow would cut some without a word."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;") or "16" in _raw_mode(picture):
        raise BadInput(f"{path} has more than 8 bits a channel; convert it to an 8-bit RGB image")


def _raw_mode(picture: ImageFile.ImageFile) -> str:
    return str(picture.tile[0][3]) if picture.tile else ""


def _refuse_unclear(path: Path, picture: ImageFile.ImageFile) -> None:
    if picture.format == "JPEG":
        raise BadInput(f"{path} is a JPEG, which blurs class ids; labels must be PNG files")
    if picture.mode not in ("L", "P", "1"):
        raise BadInput(
            f"{path} is a {picture.mode} picture; labels must be 8-bit PNG files whose values are class ids"
            " (grey or palette), not colours or instance ids"
        )
    if picture.mode == "1" or _raw_mode(picture).startswith("L;"):
        # PNG stretches such values over 0 .. 255, other writers do not: the ids cannot be told.
        raise BadInput(f"{path} is a grey picture of less than 8 bits; save its class ids as an 8-bit PNG")


def _unreadable(path: Path, error: Exception) -> BadInput | Missing:
    if isinstance(error, FileNotFoundError):
        return Missing(f"{path} is a link to nothing; mend it" if path.is_symlink() else f"{path} is not there")
    if isinstance(error, PermissionError):
        return BadInput(f"{path} may not be read; give yourself the permission")
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return BadInput(f"{path} cannot be read as an image ({reason}); replace the file")


def _refuse_folder(error: OSError) -> None:
    """What `os.walk` calls; a folder that is not there is an empty one."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise BadInput(f"{error.filename} cannot be looked into ({error.strerror}); {advice(error, 'mend that')}")


def _ranges(values: list[int]) -> str:
    """'0-10, 255' for 0, 1 .. 10, 255."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
