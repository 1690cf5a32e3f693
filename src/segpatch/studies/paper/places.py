"""Damage by where the patch lies: the same patch at every place of a grid, in one pass over the images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from segpatch.evaluation import Place, evaluate_all
from segpatch.models.victim import Victim
from segpatch.names import safe_name
from segpatch.patch import Patch
from segpatch.studies.paper.context import Cell, Context
from segpatch.studies.paper.sizes import excess
from segpatch.transfer import judged
from segpatch.types import Region


def place_cells(context: Context) -> list[Cell]:
    """A cell per patch and network that it was trained on."""
    return [_cell(context, patch, victim) for patch, victim in context.owned()]


def at(row: int, column: int, rows: int, columns: int) -> Place:
    """The place of a grid's cell: first and last rows and columns touch the borders; one alone is the middle."""

    def share(index: int, count: int) -> float:
        return index / (count - 1) if count > 1 else 0.5

    def region(image: tuple[int, int], patch: tuple[int, int]) -> Region:
        top = round(share(row, rows) * (image[0] - patch[0]))
        left = round(share(column, columns) * (image[1] - patch[1]))
        return Region(top, left, *patch)

    return region


def _cell(context: Context, patch: Patch, victim: Victim) -> Cell:
    rows, columns = context.plan.grid
    indices = context.images(context.plan.place_images)

    def work(show: Callable[[int, int], None]) -> dict[str, Any]:
        spots = [(row, column) for row in range(rows) for column in range(columns)]
        places = [at(*spot, rows, columns) for spot in spots]
        pair = [context.control(patch), patch]
        clean, *scores = evaluate_all(
            [victim],
            context.batches(indices),
            [None, *pair * len(places)],
            place=["centre", *(place for place in places for _ in pair)],
            precision=context.plan.precision,
            on_image=lambda done: show(done, len(indices)),
            remembered=context.clean,
        )
        grid = []
        for number, (row, column) in enumerate(spots):
            matrix = judged(
                [clean, *scores[2 * number : 2 * number + 2]],
                [victim.name],
                victim.label_classes.names,
                pair,
                groups=context.groups(indices),
                block=context.block_among(len(indices)),
                margin=context.plan.margin,
                seed=context.plan.seed,
            )
            grid.append({"row": row, "column": column, **excess(matrix, patch, victim)})
        return {
            "patch": patch.name,
            "victim": victim.name,
            "family": victim.provenance.family,
            "images": len(indices),
            "rows": rows,
            "columns": columns,
            "places": grid,
        }

    asked = {"patch": patch.facts(), "images": len(indices), "grid": [rows, columns]}
    return Cell(f"places/{safe_name(patch.name)}_on_{safe_name(victim.name)}", [victim], asked, work)
