"""Local or far (Fig. 3): damage by distance from the patch, by class, and what classes turn into."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from segpatch.evaluation import evaluate_all
from segpatch.locality import (
    EDGES,
    Locality,
    LocalityCounter,
    bin_drops,
    bin_flips,
    class_distance,
    flip_rate,
    reach,
)
from segpatch.models.victim import Victim
from segpatch.names import safe_name
from segpatch.patch import Patch
from segpatch.statistics import interval
from segpatch.studies.paper.context import Cell, Context

_TARGETS = 3
"""How many of the classes that a class turns into are named."""


def locality_cells(context: Context) -> list[Cell]:
    """A cell per patch and network that it was trained on."""
    return [_cell(context, patch, victim) for patch, victim in context.owned()]


def _cell(context: Context, patch: Patch, victim: Victim) -> Cell:
    indices = list(context.measured)

    def work(show: Callable[[int, int], None]) -> dict[str, Any]:
        names = context.dataset.names(context.split)
        counter = LocalityCounter(len(victim.label_classes))
        control = context.control(patch)
        evaluate_all(
            [victim],
            context.batches(indices),
            [patch, control],
            seed=context.plan.seed,
            precision=context.plan.precision,
            remembered=context.clean,
            on_image=lambda done: show(done, len(indices)),
            on_picture=counter.add,
            pictures=frozenset(names[index] for index in indices),
        )
        rows, beside = counter.of(patch.name, victim.name), counter.of(control.name, victim.name)
        counts = context.resamples(indices)
        classes = victim.label_classes.names
        damage = class_distance(rows, beside, counts)
        turned = turned_into(rows, beside, counts, classes)
        return {
            "patch": patch.name,
            "victim": victim.name,
            "family": victim.provenance.family,
            "images": len(indices),
            "blocks": context.blocks(indices),
            "patch_width": rows.side,
            "bins": [asdict(drop) for drop in bin_drops(rows, beside, counts)],
            "flips": [asdict(share) for share in bin_flips(rows, beside, counts)],
            "reach": asdict(reach(rows, beside, counts)),
            "reach_uncorrected": asdict(reach(rows, None, counts)),
            # Most of an image is far from the patch: what damage to all pixels alike would give.
            "reach_of_even_damage": asdict(reach(replace(rows, flips=rows.right), None, counts)),
            "flip_rate": asdict(flip_rate(rows, beside, counts)),
            "classes": [
                {
                    "class": name,
                    "distance": float(damage.distance[k]),
                    "share": float(damage.share[k]),
                    "drop": asdict(damage.drop[k]),
                    "turned_into": turned[name],
                }
                for k, name in enumerate(classes)
            ],
            "rho_share": asdict(damage.rho_share),
            "rho_distance": asdict(damage.rho_distance),
        }

    asked = {"patch": patch.facts(), "edges": list(EDGES)}
    return Cell(f"locality/{safe_name(patch.name)}_on_{safe_name(victim.name)}", [victim], asked, work)


def turned_into(
    trained: Locality, control: Locality, counts: Tensor, classes: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """By class: the classes that more of its pixels are taken for than under the control, the most first.

    share: of the class's labelled pixels outside the patch, with a 95 % interval over resamples (R, N).
    """
    weights = torch.cat([counts.new_ones(1, counts.shape[1]), counts])

    def shares(one: Locality) -> Tensor:
        confusion = (weights @ one.confusion_patched.sum(1).double().flatten(1)).view(
            -1, len(classes), len(classes)
        )
        return confusion / confusion.sum(2, keepdim=True)

    more = shares(trained) - shares(control)
    out = {}
    for k, name in enumerate(classes):
        others = [j for j in range(len(classes)) if j != k and float(more[0, k, j]) > 0]
        others.sort(key=lambda j: -float(more[0, k, j]))
        out[name] = [
            {"class": classes[j], "share": float(more[0, k, j]), "ci95": interval(_known(more[1:, k, j]))}
            for j in others[:_TARGETS]
        ]
    return out


def _known(values: Tensor) -> Tensor:
    return values[~values.isnan()]
