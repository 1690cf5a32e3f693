"""The matrix of each drive or city apart: one number for a data set may be that of a small part of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from segpatch.evaluation import Scores
from segpatch.names import safe_name
from segpatch.patch import load_patch
from segpatch.report.crossed import MARGINS
from segpatch.results import read_scores
from segpatch.statistics import verdict
from segpatch.studies.paper.context import Cell, Context
from segpatch.transfer import judged

_LEAST = 10
"""Images of a drive or city that a matrix of its own is worth."""


def drive_cells(context: Context) -> list[Cell]:
    """A cell for all images, and one per drive or city of at least ten."""
    named = drive_names(context.result.dataset.groups)
    return [_cell(context, "all", None), *(_cell(context, name, name) for name in named)]


def drive_names(groups: Sequence[str]) -> list[str]:
    """The drives or cities of images, those with enough of them; none where there is one alone."""
    images = Counter(groups)
    return [name for name, count in images.items() if count >= _LEAST and len(images) > 1]


def _cell(context: Context, name: str, group: str | None) -> Cell:
    about = context.result.dataset
    kept = [at for at, one in enumerate(about.groups) if group is None or one == group]

    def work(show: Callable[[int, int], None]) -> dict[str, Any]:
        raw, result = read_scores(context.matrix), context.result
        names = tuple(about.names[at] for at in kept)
        scores = [
            Scores(names, *(raw[f"{number}/{rows}"][kept] for rows in ("clean", "clean_outside", "patched")))
            for number in range(len(result.cells))
        ]
        width = len(result.victims)
        matrix = judged(
            [scores[start : start + width] for start in range(0, len(scores), width)],
            [victim.name for victim in result.victims],
            result.classes,
            [load_patch(context.matrix / record.file) for record in result.patches if record.file],
            groups=[about.groups[at] for at in kept],
            block=about.block,
            margin=context.plan.margin,
            seed=context.plan.seed,
        )
        cells = []
        for cell in matrix.cells:
            over = cell.over_random
            cells.append(
                {
                    "patch": cell.patch,
                    "victim": cell.victim,
                    "white_box": cell.white_box,
                    "clean_miou": cell.scores.miou_clean_outside,
                    "drop": cell.scores.miou_drop,
                    "ci95": cell.ci95,
                    "over_random": over and over.drop,
                    "over_random_ci95": over and over.ci95,
                    "p_holm": over and over.p_holm,
                    "verdicts": over
                    and {f"{margin:g}": verdict(*over.ci95, margin, matrix.blocks) for margin in MARGINS},
                }
            )
        return {"group": name, "images": len(kept), "cells": cells}

    asked = {"group": name, "patches": [record.sha256 for record in context.result.patches]}
    return Cell(f"drives/{safe_name(name)}", context.victims, asked, work)
