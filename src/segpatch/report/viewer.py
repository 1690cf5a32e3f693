"""What the page's script works on, as JSON: every cell with its classes, every scene with its index maps."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from segpatch.errors import BadInput
from segpatch.names import safe_name
from segpatch.plots import heat_colour, heat_top, verdict_of
from segpatch.report.fates import Counts, fates
from segpatch.report.pictures import (
    NO_TRUTH,
    WRONG,
    Indices,
    Pixels,
    index_png,
    jpeg_uri,
    kept_scenes,
    must_be_alike,
    read_indices,
    region_of,
    share_newly_wrong,
    told_apart,
)
from segpatch.results import CellRecord, TransferResult
from segpatch.types import IGNORE

MOST_BYTES = 5_500_000
"""Of all index maps of a page, as text; they are thinned out until they stay below, then scenes are left out."""
WIDTHS = (1024, 768, 512, 384, 256, 192)

_Colours = Sequence[tuple[int, int, int]]


def page_data(
    run: Path,
    result: TransferResult,
    counts: Mapping[tuple[str, str], Counts],
    photographs: Mapping[str, Pixels],
) -> Markup:
    """The JSON of a transfer run, safe inside a script element. photographs: of scenes, by image."""
    colours = told_apart(result.colours)
    content = {
        "classes": result.classes,
        "colours": [*colours, NO_TRUTH],
        "wrong": WRONG,
        "margin": result.margin,
        "victims": [victim.name for victim in result.victims],
        "patches": {patch.name: patch.kind for patch in result.patches if patch.kind != "none"},
        "cells": [_cell(result, cell, counts) for cell in result.cells if cell.patch != "none"],
        "kept": len(kept_scenes(run, result)),
        "scenes": _with_photographs(_scenes(run, result, colours), photographs),
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def _cell(result: TransferResult, cell: CellRecord, counts: Mapping[tuple[str, str], Counts]) -> dict[str, Any]:
    held = counts.get((cell.patch, cell.victim))
    known = {fate.name: fate for fate in fates(held, result.classes)} if held else {}
    classes = []
    for name in result.classes:
        fate = known.get(name)
        classes.append(
            {
                "name": name,
                "clean": cell.iou_clean_outside[name],
                "attacked": cell.iou[name],
                "right": [round(fate.before, 5), round(fate.after, 5)] if fate else None,
                "into": [[into.name, round(into.share, 5)] for into in fate.into] if fate else [],
                "exact": fate is not None and fate.exact,
            }
        )
    over = cell.over_random
    return {
        "patch": cell.patch,
        "victim": cell.victim,
        "own": cell.white_box,
        "drop": cell.miou_drop,
        "ci95": cell.ci95,
        "clean": cell.miou_clean_outside,
        "attacked": cell.miou,
        "accuracy": cell.pixel_accuracy,
        "verdict": verdict_of(result, cell),
        "over": {"drop": over.drop, "ci95": over.ci95, "p": over.p_holm} if over else None,
        "heat": heat_colour(cell.miou_drop, heat_top(result)),
        "classes": classes,
    }


def _scenes(run: Path, result: TransferResult, colours: _Colours) -> list[dict[str, Any]]:
    """The scenes, with maps of the first of WIDTHS that keeps all below MOST_BYTES; with the last one, as many
    scenes as do, and one at least."""
    kept = kept_scenes(run, result)
    out: list[dict[str, Any]] = []
    for width in WIDTHS:
        out, size = [], 0
        for name, folder in kept:
            scene, bytes_of = _scene(folder, name, result, colours, width)
            size += bytes_of
            if size > MOST_BYTES and (out or width != WIDTHS[-1]):
                break
            out.append(scene)
        else:
            return out
    return out


def _scene(
    folder: Path, name: str, result: TransferResult, colours: _Colours, width: int
) -> tuple[dict[str, Any], int]:
    """A scene with index maps of at most a width, and how much text they are."""
    labels = _read(folder / "labels.png", colours)
    step = -(-labels.shape[1] // width)
    size = 0

    def thin(indices: Indices) -> str:
        nonlocal size
        text = base64.b64encode(index_png(indices[::step, ::step], colours)).decode()
        size += len(text)
        return text

    views: dict[str, Any] = {}
    for victim in result.victims:
        path = folder / safe_name(victim.name) / "clean.png"
        if not path.is_file():
            continue
        clean = _read(path, colours)
        under = {}
        for patch in result.patches:
            path = folder / safe_name(victim.name) / f"{safe_name(patch.name)}.png"
            if patch.kind != "none" and path.is_file():
                patched = _read(path, colours)
                must_be_alike(folder, labels, clean, patched)
                share = share_newly_wrong(labels, clean, patched, region_of(folder, patch.name))
                under[patch.name] = [thin(patched), round(share, 5)]
        views[victim.name] = {"clean": thin(clean), "under": under}
    height, across = labels.shape
    shown = {patch for view in views.values() for patch in view["under"]}
    scene = {
        "name": name,
        "size": [height, across],
        "labels": thin(labels),
        "regions": {patch: list(region_of(folder, patch)) for patch in sorted(shown)},
        "views": views,
    }
    return scene, size


def _with_photographs(scenes: list[dict[str, Any]], photographs: Mapping[str, Pixels]) -> list[dict[str, Any]]:
    return [
        {**scene, "photograph": jpeg_uri(photographs[scene["name"]])} if scene["name"] in photographs else scene
        for scene in scenes
    ]


def _read(path: Path, colours: _Colours) -> Indices:
    indices = read_indices(path)
    if bool(((indices >= len(colours)) & (indices != IGNORE)).any()):
        raise BadInput(f"{path} holds an index beyond the {len(colours)} classes; measure again")
    return indices
