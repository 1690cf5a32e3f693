"""Pictures of the page from what a run directory holds: index maps, patches, and what a patch changed."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from segpatch.data.files import opened
from segpatch.errors import BadInput
from segpatch.names import safe_name
from segpatch.results import PatchRecord, TransferResult
from segpatch.runs import read_json
from segpatch.types import IGNORE, Region
from segpatch.writing import is_within

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Indices = np.ndarray[Any, np.dtype[np.uint8]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

WRONG = (214, 0, 110)
"""Newly wrong pixels: a strong colour that stands out from the dimmed greys for colour-blind readers too."""
NO_TRUTH = (24, 24, 27)
_DIMMED = 0.3
_WIDEST = 1000  # of an embedded picture, in pixels
_PATCH_SIDE = 240


class Shown(NamedTuple):
    """A picture of the page: data URI, alternative text, caption."""

    uri: str
    alt: str
    caption: str


class Scene(NamedTuple):
    """One scene: its own pictures, and per row (a network under a patch) clean, attacked and changed."""

    name: str
    truth: list[Shown]
    rows: list[tuple[str, list[Shown]]]


def scenes(
    run: Path,
    result: TransferResult,
    pairs: Sequence[tuple[str, str]],
    photographs: Mapping[str, Pixels],
    most: int = 4,
) -> list[Scene]:
    """Up to `most` scenes of a run, in the data set's order, with a row for each (patch, victim)."""
    kept = kept_scenes(run, result)
    picked = kept if len(kept) <= most else [kept[i * len(kept) // most] for i in range(most)]
    return [_scene(folder, name, result, pairs, photographs.get(name)) for name, folder in picked]


def kept_scenes(run: Path, result: TransferResult) -> list[tuple[str, Path]]:
    """(name, folder) of each image whose index maps a run holds, in the data set's order."""
    folders = [(name, run / "scenes" / safe_name(name)) for name in result.dataset.names]
    return [(name, folder) for name, folder in folders if (folder / "labels.png").is_file()]


def patch_picture(run: Path, record: PatchRecord, photographs: bool) -> Shown | None:
    """A patch enlarged with sharp pixels; None if it has no picture, or is a photograph not to be shown."""
    path = file_of(run, record, photographs)
    if path is None or not path.with_suffix(".png").is_file():
        return None
    pixels = read_rgb(path.with_suffix(".png"))
    times = max(1, _PATCH_SIDE // max(pixels.shape[:2]))
    enlarged = pixels.repeat(times, 0).repeat(times, 1)
    return Shown(png_uri(enlarged), f"pixels of the patch {record.name}", f"enlarged {times} times")


def file_of(run: Path, record: PatchRecord, photographs: bool) -> Path | None:
    """Where a run holds a patch; None if nowhere, outside of the run, or a photograph not to be shown."""
    if record.file is None or (record.kind == "natural" and not photographs):
        return None
    path = run / record.file
    inside = all(is_within(path.with_suffix(end), run) for end in (path.suffix, ".png"))
    return path if inside else None


def paint(indices: Indices, colours: Sequence[tuple[int, int, int]]) -> Pixels:
    """An index map (H, W) in class colours (H, W, 3); pixels without truth almost black."""
    table = np.full((256, 3), NO_TRUTH, np.uint8)
    table[: len(colours)] = colours
    out: Pixels = table[indices]
    return out


def newly_wrong(labels: Indices, clean: Indices, patched: Indices, region: Region) -> Mask:
    """Where (H, W) a labelled pixel outside the patch was right without it and is wrong with it."""
    wrong: Mask = (labels != IGNORE) & (clean == labels) & (patched != labels)
    wrong[region.top : region.top + region.height, region.left : region.left + region.width] = False
    return wrong


def share_newly_wrong(labels: Indices, clean: Indices, patched: Indices, region: Region) -> float:
    """Newly wrong pixels outside the patch as a share of all labelled ones."""
    return float(newly_wrong(labels, clean, patched, region).sum() / max(1, int((labels != IGNORE).sum())))


def change_map(
    labels: Indices,
    clean: Indices,
    patched: Indices,
    region: Region,
    colours: Sequence[tuple[int, int, int]],
) -> Pixels:
    """The attacked prediction dimmed to light grey, newly wrong pixels in WRONG, the patch outlined."""
    dimmed = (paint(patched, colours) * _DIMMED + 232 * (1 - _DIMMED)).round().astype(np.uint8)
    dimmed[newly_wrong(labels, clean, patched, region)] = WRONG
    return outline(dimmed, region)


def outline(pixels: Pixels, region: Region) -> Pixels:
    """A copy with a black and white frame along the patch's edge, inside it, where no pixel counts."""
    thick = max(1, max(pixels.shape[:2]) // 400)  # survives shrinking
    top, left = region.top, region.left
    bottom, right = top + region.height, left + region.width
    framed = np.array(Image.fromarray(pixels))
    for inset, shade in ((0, 0), (thick, 255)):
        framed[top + inset : bottom - inset, left + inset : right - inset] = shade
    inside = np.s_[top + 2 * thick : bottom - 2 * thick, left + 2 * thick : right - 2 * thick]
    framed[inside] = pixels[inside]
    return framed


def png_uri(pixels: Pixels) -> str:
    """A picture (h, w, 3) as a data URI, thinned out to at most 1000 pixels a side."""
    step = -(-max(pixels.shape[:2]) // _WIDEST)
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[::step, ::step])).save(out, "PNG", optimize=True)
    return data_uri(out.getvalue(), "image/png")


def jpeg_uri(pixels: Pixels) -> str:
    """A photograph (h, w, 3) as a data URI, at most 1000 pixels a side."""
    image = Image.fromarray(pixels)
    image.thumbnail((_WIDEST, _WIDEST))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return data_uri(out.getvalue(), "image/jpeg")


def index_png(indices: Indices, colours: Sequence[tuple[int, int, int]]) -> bytes:
    """An index map (H, W) as a PNG whose palette is the colours, and after them NO_TRUTH."""
    picture = Image.fromarray(np.where(indices == IGNORE, len(colours), indices).astype(np.uint8), "P")
    picture.putpalette([part for colour in (*colours, NO_TRUTH) for part in colour])
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def told_apart(colours: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """The colours, moved as little as it takes for a colour to say its class: no two alike, nor like NO_TRUTH."""
    taken, out = {NO_TRUTH}, []
    for red, green, blue in colours:
        near = sorted(range(256), key=lambda value: abs(value - blue))
        out.append(next(colour for value in near if (colour := (red, green, value)) not in taken))
        taken.add(out[-1])
    return out


def must_be_alike(folder: Path, *maps: Indices) -> None:
    """BadInput where index maps of a scene differ in size."""
    if len({one.shape for one in maps}) > 1:
        raise BadInput(f"the index maps of {folder} differ in size; measure again")


def region_of(folder: Path, patch: str) -> Region:
    """Where a patch lies in a scene."""
    try:
        return Region(*(int(v) for v in read_json(folder / f"{safe_name(patch)}.json")["region"]))
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{folder / safe_name(patch)}.json names no region; measure again") from error


def data_uri(content: bytes, kind: str) -> str:
    """Bytes as a data URI of a media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _scene(
    folder: Path,
    name: str,
    result: TransferResult,
    pairs: Sequence[tuple[str, str]],
    photograph: Pixels | None,
) -> Scene:
    labels = read_indices(folder / "labels.png")
    truth = [Shown(png_uri(paint(labels, result.colours)), f"labels of {name}", "labels")]
    if photograph is not None:
        truth.insert(0, Shown(jpeg_uri(photograph), f"photograph of {name}", "photograph"))
    rows = []
    families = {one.name: "transformer" if one.family == "transformer" else "CNN" for one in result.victims}
    for patch, victim in pairs:
        maps = [folder / safe_name(victim) / f"{safe_name(which)}.png" for which in ("clean", patch)]
        if all(path.is_file() for path in maps):
            clean, patched = (read_indices(path) for path in maps)
            must_be_alike(folder, labels, clean, patched)
            title = f"{victim} ({families[victim]}) under {patch}"
            rows.append((title, _triple(name, patch, victim, labels, clean, patched, folder, result)))
    return Scene(name, truth, rows)


def _triple(
    scene: str,
    patch: str,
    victim: str,
    labels: Indices,
    clean: Indices,
    patched: Indices,
    folder: Path,
    result: TransferResult,
) -> list[Shown]:
    """Clean, attacked, changed."""
    region = region_of(folder, patch)
    share = share_newly_wrong(labels, clean, patched, region)
    where = f"prediction of {victim} on {scene}"
    attacked = outline(paint(patched, result.colours), region)
    changed = change_map(labels, clean, patched, region, result.colours)
    return [
        Shown(png_uri(paint(clean, result.colours)), f"{where} without a patch", "clean"),
        Shown(png_uri(attacked), f"{where} with the patch {patch}", f"with {patch}"),
        Shown(
            png_uri(changed),
            f"{share:.1%} of the labelled pixels of {scene} became wrong outside the patch for {victim}",
            f"changed: {share:.1%} newly wrong outside the patch",
        ),
    ]


def read_indices(path: Path) -> Indices:
    """An index map (H, W)."""
    with opened(path) as picture:
        return np.asarray(picture.convert("L"))


def read_rgb(path: Path) -> Pixels:
    with opened(path) as picture:
        return np.asarray(picture.convert("RGB"))
