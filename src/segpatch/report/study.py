"""The page, figures and tables of a finished `segpatch study paper`, from its directory alone."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from segpatch import plots
from segpatch.errors import BadInput
from segpatch.names import safe_name
from segpatch.published import Curve, published_curve, published_curves, published_matrix
from segpatch.report.beside import BesideRow, beside_published, beside_text
from segpatch.report.crossed import verdict_rows
from segpatch.report.excess import excesses
from segpatch.report.facts import rows_in_order
from segpatch.report.figures import (
    alignment_svg,
    class_curves_svg,
    curve_svg,
    distance_figures,
    place_figures,
    sizes_svg,
)
from segpatch.report.findings import findings
from segpatch.report.photographs import read_photographs
from segpatch.report.pictures import WRONG, Scene, data_uri, scenes
from segpatch.report.record import Finding, Study, read_study
from segpatch.report.templates import template
from segpatch.writing import make_folder, write_whole


class _Groups(NamedTuple):
    """The figures of each section: (name, caption)."""

    matrices: list[tuple[str, str]]
    alignment: list[tuple[str, str]]
    curves: list[tuple[str, str]]
    sizes: list[tuple[str, str]]
    distances: list[tuple[str, str]]
    locality: list[tuple[str, str]]
    places: list[tuple[str, str]]


def write_study_report(run: Path, out: Path, *, photographs: bool = False) -> Path:
    """Writes out/index.html, findings.md, the tables of each part as CSV, and plots/*.svg; returns the page's
    path.

    photographs: show those of the scenes. Raises Missing where the run holds no finished study, or where a
    photograph that is to be shown is nowhere; BadInput where the run is damaged.
    """
    study = read_study(run)
    drawn: dict[str, bytes] = {}
    groups = _drawn(study, drawn)
    found, beside = findings(study), beside_published(study)
    make_folder(out / "plots")
    for name, svg in drawn.items():
        write_whole(out / "plots" / f"{name}.svg", svg)
    tables = {part: _rows(part, study.cells(part)) for part in ("alignment", *_LISTS)}
    reaches = study.cells("locality")
    tables["verdicts"] = verdict_rows(excesses(study))
    tables |= {"reach": [_reach(cell) for cell in reaches], "distance": [*chain(*map(_by_distance, reaches))]}
    for name, rows in tables.items():
        if rows:
            write_whole(out / f"{name}.csv", _csv(rows))
    if beside:
        write_whole(out / "published.csv", _csv([row.flat() for row in beside]))
    write_whole(out / "findings.md", (findings_text(found) + beside_text(beside)).encode())
    write_whole(out / "index.html", _page(study, found, beside, groups, drawn, photographs).encode())
    return out / "index.html"


def findings_text(found: Sequence[Finding]) -> str:
    """The findings as Markdown: a list of claims, each with its verdict and figures."""
    lines = ["# What holds", ""]
    for finding in found:
        lines.append(f"- **{finding.verdict}**: {finding.claim}")
        lines += [f"  - {text}" for text in finding.figures]
    return "\n".join(lines) + "\n"


def _page(
    study: Study,
    found: Sequence[Finding],
    beside: Sequence[BesideRow],
    groups: _Groups,
    drawn: dict[str, bytes],
    photographs: bool,
) -> str:
    table = published_matrix()
    return template("study.html.j2", coded=_coded).render(
        title="Do adversarial patches transfer between networks?",
        result=study.matrices.get("matrix"),
        findings=found,
        warnings=study.warnings,
        deviations=study.record.get("deviations", []),
        published=beside,
        published_source=table.source,
        published_caveats=table.caveats,
        curves=published_curves() if any(_curve_beside(study, cell) for cell in study.cells("curves")) else None,
        groups=groups,
        pages=", ".join(f"{name}/report/index.html" for name in study.matrices),
        svg=lambda name: data_uri(drawn[name], "image/svg+xml"),
        scenes=_scenes(study, photographs),
        wrong="#{:02x}{:02x}{:02x}".format(*WRONG),
        classes=study.cells("locality"),
        reaches=[_reach(cell) for cell in study.cells("locality")],
        command=study.record["command"],
        plan=json.dumps(study.record["plan"], indent=2),
    )


def _coded(text: str) -> Markup:
    """A line of Markdown whose `names` are code."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(Markup("<code>{}</code>").format(p) if i % 2 else p for i, p in enumerate(parts))


def _scenes(study: Study, photographs: bool) -> list[Scene]:
    """Each network under its own patch of the last preset and first seed, in the scenes that the matrix kept.

    A CNN and a transformer by turns, so that the two kinds stand beside each other.
    """
    run, result = study.directory / "matrix", study.matrices.get("matrix")
    if result is None:
        if photographs:
            raise BadInput(f"{study.directory} has no matrix whose scenes could be shown; leave out --with-images")
        return []
    seen = read_photographs(run, result) if photographs else {}
    own = {
        patch.trained_on[0]: patch.name  # the last preset and the first seed win
        for patch in sorted(result.patches, key=lambda patch: -(patch.seed or 0))
        if len(patch.trained_on) == 1
    }
    far = [victim.name for victim in result.victims if victim.family == "transformer" and victim.name in own]
    turns = zip_longest([name for name in own if name not in far], far)
    return scenes(run, result, [(own[name], name) for turn in turns for name in turn if name], seen, most=2)


def _drawn(study: Study, drawn: dict[str, bytes]) -> _Groups:
    """Draws all figures into `drawn`, by file name, and returns what goes where."""
    groups = _Groups(*([] for _ in _Groups._fields))
    for name, result in study.matrices.items():
        rows = [patch.name for _, patches in rows_in_order(result) for patch in patches]
        drawn[safe_name(name)] = plots.matrix_svg(result, rows)
        groups.matrices.append((safe_name(name), name))
    for cell in study.cells("alignment"):
        name = f"alignment-{safe_name(cell['at'])}"
        drawn[name] = alignment_svg(cell)
        groups.alignment.append((name, cell["at"]))
    for cell in study.cells("curves"):
        caption, published = f"{cell['patch']} on {cell['victim']}", _curve_beside(study, cell)
        for name, title, draw in (
            (f"curves-{safe_name(caption)}", caption, curve_svg),
            (f"class-curves-{safe_name(caption)}", f"{caption}, class by class", class_curves_svg),
        ):
            drawn[name] = draw(cell, published)
            groups.curves.append((name, title))
    for part in ("sizes", "distances"):
        for cell in study.cells(part):
            caption = f"{cell['patch']} on {cell['victim']}"
            name = f"{part}-{safe_name(caption)}"
            drawn[name] = sizes_svg(cell)
            getattr(groups, part).append((name, caption))
    for part, figures in (("locality", distance_figures), ("places", place_figures)):
        for name, caption, svg in figures(study.cells(part)):
            drawn[name] = svg
            getattr(groups, part).append((name, caption))
    return groups


def _curve_beside(study: Study, cell: dict[str, Any]) -> Curve | None:
    """The published curve of the network whose patch of the preset `released` this is."""
    result = study.matrices["matrix"]
    preset = next(patch.preset for patch in result.patches if patch.name == cell["patch"])
    network = next(victim.network for victim in result.victims if victim.name == cell["victim"])
    return published_curve(network) if preset == "released" else None


_LISTS = {
    "drives": "cells",
    "curves": "points",
    "sizes": "rows",
    "distances": "rows",
    "locality": "classes",
    "places": "places",
}


def _rows(part: str, cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The part as flat rows: each cell's names, and its list of points, sizes, classes or places; or pairs."""
    rows = []
    for cell in cells:
        names = {key: cell[key] for key in ("group", "patch", "victim", "at") if cell.get(key) is not None}
        if part == "alignment":
            for v, one in enumerate(cell["victims"]):
                for w, other in enumerate(cell["victims"]):
                    low, high = cell["low"][v][w], cell["high"][v][w]
                    rows.append({**names, "network": one, "other": other, "cosine": cell["cosine"][v][w],
                                 "low": low, "high": high, "itself": cell["itself"][v]})  # fmt: skip
            continue
        rows += [{**names, **_flat(row)} for row in cell[_LISTS[part]]]
    return rows


def _reach(cell: dict[str, Any]) -> dict[str, Any]:
    """How far a patch's damage reaches, with intervals, and how far damage to all pixels alike would."""
    row = {key: cell[key] for key in ("patch", "victim", "family", "images", "patch_width")}
    for key in ("r50", "r90", "r50_widths", "r90_widths", "remote"):
        row |= {**_estimate(key, cell["reach"][key]), f"{key}_even": cell["reach_of_even_damage"][key]["value"]}
    return row


def _by_distance(cell: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a distance bin: newly wrong shares of a patch and its control, and scores lost beyond the control.

    None of a cell that was kept before these shares were.
    """
    names = {key: cell[key] for key in ("patch", "victim", "family")}
    return [
        {
            **names,
            "upper": lost["upper"],
            "pixels": lost["pixels"],
            **_estimate("patched", share["patched"]),
            **_estimate("control", share["control"]),
            **_estimate("over_control", share["over_control"]),
            **_estimate("pixel_accuracy_drop", lost["pixel_accuracy"]),
            **_estimate("miou_drop", lost["miou"]),
        }
        for lost, share in zip(cell["bins"], cell.get("flips", ()), strict=False)
    ]


def _estimate(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """A value and its interval as three columns."""
    return {name: found["value"], f"{name}_low": found["ci95"][0], f"{name}_high": found["ci95"][1]}


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Nested values as columns of their own; lists of numbers as text."""
    out: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            out |= {f"{key}.{inner}": one for inner, one in _flat(value).items()}
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            out[key] = "; ".join(f"{one['class']} {one['share']:.4f}" for one in value)
        else:
            out[key] = " ".join(map(str, value)) if isinstance(value, list | tuple) else value
    return out


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    out = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()
