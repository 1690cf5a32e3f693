"""The patches as the page shows them: picture, file, facts, drop on each network, training curve."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from segpatch.names import safe_name
from segpatch.reading import read_bytes
from segpatch.report.facts import rows_in_order, under_trained
from segpatch.report.pictures import Shown, data_uri, file_of, patch_picture
from segpatch.results import PatchRecord, TransferResult

MOST_BYTES = 2_000_000
"""Of all patch files in a page, as text; those beyond it are given as pictures of 8 bits."""


class Download(NamedTuple):
    """A patch to take from the page: data URI, file name, and whether it holds the exact pixels."""

    uri: str
    name: str
    exact: bool


class PatchCard(NamedTuple):
    """A patch on the page: picture, file and training curve where there are any, facts as (name, value)."""

    record: PatchRecord
    picture: Shown | None
    download: Download | None
    curve: str | None
    facts: list[tuple[str, str]]
    under_trained: bool


def patch_cards(
    run: Path,
    result: TransferResult,
    drawn: Mapping[str, bytes],
    logs: Mapping[str, list[dict[str, Any]]],
    photographs: bool,
) -> list[PatchCard]:
    """A card for each patch, in the order of the matrix. drawn: training curves as SVG; logs: rows of training;
    photographs: whether a patch cut from one is shown."""
    left = MOST_BYTES
    cards = []
    for _, patches in rows_in_order(result):
        for patch in patches:
            steps = logs[patch.name]
            curve = drawn.get(f"training-{safe_name(patch.name)}")
            download = _download(run, patch, photographs, left)
            left -= len(download.uri) if download and download.exact else 0
            cards.append(
                PatchCard(
                    patch,
                    patch_picture(run, patch, photographs),
                    download,
                    data_uri(curve, "image/svg+xml") if curve else None,
                    _patch_facts(patch, steps),
                    under_trained(patch.name, result.warnings, steps),
                )
            )
    return cards


def _download(run: Path, patch: PatchRecord, photographs: bool, left: int) -> Download | None:
    """The patch's file where it takes up at most `left` characters, else its picture; None where there is neither,
    or a photograph that is not to be shown."""
    path = file_of(run, patch, photographs)
    if path is None:
        return None
    if path.is_file() and path.stat().st_size <= left:
        uri = data_uri(read_bytes(path, left), "application/octet-stream")
        if len(uri) <= left:
            return Download(uri, f"{safe_name(patch.name)}.safetensors", True)
    picture = path.with_suffix(".png")
    if not picture.is_file():
        return None
    return Download(data_uri(read_bytes(picture), "image/png"), f"{safe_name(patch.name)}.png", False)


def _patch_facts(patch: PatchRecord, steps: list[dict[str, Any]]) -> list[tuple[str, str]]:
    facts = [
        ("kind", patch.kind),
        ("preset", patch.preset),
        ("trained on", ", ".join(patch.trained_on)),
        ("loss", patch.loss),
        ("steps", str(patch.steps) if patch.steps else None),
        ("seed", None if patch.seed is None else str(patch.seed)),
        ("size", f"{patch.height} × {patch.width} pixels" if patch.height else None),
        ("pixel range", _range(patch)),
        ("place", patch.place),
        ("pixels right", _ends(steps, "correct")),
        ("at a bound", _ends(steps[-1:], "saturated")),
        ("SHA-256", patch.sha256[:12] + "…" if patch.sha256 else None),
    ]
    return [(name, value) for name, value in facts if value]


def _range(patch: PatchRecord) -> str | None:
    if not patch.range:
        return None
    bounds = [f"{low:g} to {high:g}" for low, high in patch.range]
    return (
        bounds[0] if len(set(bounds)) == 1 else "; ".join(f"{c} {b}" for c, b in zip("RGB", bounds, strict=True))
    )


def _ends(steps: list[dict[str, Any]], key: str) -> str | None:
    """The first and the last share of a column, in percent."""
    values = [f"{row[key]:.1%}" for row in steps if row.get(key) is not None]
    return " → ".join(dict.fromkeys((values[0], values[-1]))) if values else None
