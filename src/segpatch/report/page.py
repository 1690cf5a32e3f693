"""The page of a finished transfer run: one self-contained file, made from the run directory alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from segpatch import plots
from segpatch.names import safe_name
from segpatch.plots import heat_colour, heat_top, verdict_of
from segpatch.report.facts import class_table, never_occurring, rows_in_order, scene_pairs
from segpatch.report.fates import harms, read_counts
from segpatch.report.figures import distance_figures, place_figures
from segpatch.report.gallery import patch_cards
from segpatch.report.photographs import read_photographs
from segpatch.report.pictures import WRONG, Pixels, data_uri, scenes
from segpatch.report.record import cells_around
from segpatch.report.tables import write_tables
from segpatch.report.templates import template
from segpatch.report.verdicts import percent, verdicts
from segpatch.report.viewer import page_data
from segpatch.results import CellRecord, GroupRecord, PatchRecord, TransferResult, read_transfer
from segpatch.runs import read_json, read_steps
from segpatch.statistics import REPLICATES
from segpatch.writing import is_within, make_folder, write_whole


def write_matrix_report(run: Path, out: Path, *, photographs: bool = False) -> Path:
    """Writes out/index.html and out/plots/*.svg for a finished transfer run; returns the page's path.

    The page needs no other file and no network, and can be read without its script. photographs: show those of
    the scenes, and the patch cut from one. Raises Missing where the run holds no result, or where a photograph
    that is to be shown is nowhere; BadInput where the run is damaged.
    """
    result = read_transfer(run)
    seen = read_photographs(run, result) if photographs else {}
    where = [
        *distance_figures(cells_around(run, "locality", result)),
        *place_figures(cells_around(run, "places", result)),
    ]
    drawn = _drawn(run, result) | {name: svg for name, _, svg in where}
    page = render_page(run, result, drawn, [(name, caption) for name, caption, _ in where], seen)
    make_folder(out / "plots")
    for name, svg in drawn.items():
        write_whole(out / "plots" / f"{name}.svg", svg)
    write_tables(result, out / "tables")
    write_whole(out / "index.html", page.encode())  # last: where it is, all is there
    return out / "index.html"


def render_page(
    run: Path,
    result: TransferResult,
    drawn: Mapping[str, bytes],
    where: Sequence[tuple[str, str]],
    photographs: Mapping[str, Pixels],
) -> str:
    """The page as HTML text. drawn: figures as SVG, by name; where: name and caption of those that show where the
    damage lies; photographs: of the scenes, by image."""
    top = heat_top(result)
    counts = read_counts(run, result)
    found = harms(result, counts)
    logs = {patch.name: _steps(run, patch) for patch in result.patches}

    def heat(cell: CellRecord | GroupRecord) -> str:
        background, ink = heat_colour(cell.miou_drop, top)
        return f"background:{background};color:{ink}"

    def svg(name: str) -> str:
        return data_uri(drawn[name], "image/svg+xml")

    return template("page.html.j2", breakable=_breakable, percent=percent).render(
        result=result,
        title=f"Adversarial patches on {result.dataset.kind} {result.dataset.split}",
        verdicts=verdicts(result, found),
        harms=found,
        rows=rows_in_order(result),
        heat=heat,
        scale=[heat_colour(top * i / 10, top)[0] for i in range(11)],
        top=top,
        verdict=lambda cell: verdict_of(result, cell),
        signs=plots.SIGNS,
        groups=_groups(result),
        classes=[class_table(result, victim.name) for victim in result.victims],
        never=never_occurring(result),
        cards=patch_cards(run, result, drawn, logs, bool(photographs)),
        scenes=scenes(run, result, scene_pairs(result), photographs),
        photographs=bool(photographs),
        wrong="#{:02x}{:02x}{:02x}".format(*WRONG),
        data=page_data(run, result, counts, photographs),
        where=where,
        spec=_optional(run / "config.json").get("data", {}).get("spec", "KIND:DIR"),
        svg=svg,
        safe_name=safe_name,
        replicates=REPLICATES,
        config=json.dumps(_optional(run / "config.json"), indent=2, ensure_ascii=False),
        environment=list(_flat(_optional(run / "environment.json"))),
    )


def _drawn(run: Path, result: TransferResult) -> dict[str, bytes]:
    """All figures, by file name."""
    names = [patch.name for _, patches in rows_in_order(result) for patch in patches]
    drawn = {"matrix": plots.matrix_svg(result, names)} if names else {}
    for victim in result.victims:
        table = class_table(result, victim.name)
        drawn[f"classes-{safe_name(victim.name)}"] = plots.classes_svg(result.classes, table.series)
    for patch in result.patches:
        if steps := _steps(run, patch):
            drawn[f"training-{safe_name(patch.name)}"] = plots.training_svg(steps)
    return drawn


def _groups(result: TransferResult) -> list[tuple[str, list[int], list[GroupRecord]]]:
    """Trainings with more than one seed: name, seeds, and one record per network in order."""
    order = {victim.name: index for index, victim in enumerate(result.victims)}
    found: dict[str, list[GroupRecord]] = {}
    for group in result.groups:
        if len(group.seeds) > 1 and group.victim in order:
            found.setdefault(group.patch_group, []).append(group)
    return [
        (name, groups[0].seeds, sorted(groups, key=lambda group: order[group.victim]))
        for name, groups in found.items()
        if len(groups) == len(order)
    ]


def _steps(run: Path, patch: PatchRecord) -> list[dict[str, Any]]:
    """The training log beside a trained patch; none for controls and for patches trained elsewhere."""
    if patch.kind != "trained" or patch.file is None:
        return []
    folder = (run / patch.file).parent
    return read_steps(folder) if is_within(folder, run) else []


def _breakable(name: str) -> Markup:
    """A name that may be broken after its slashes."""
    return Markup("/<wbr>").join(escape(part) for part in name.split("/"))


def _optional(path: Path) -> Any:
    return read_json(path) if path.is_file() else {}


def _flat(content: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """(dotted name, value) of nested JSON."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _flat(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, "–" if content is None else str(content)
