"""Do networks pull a patch the same way (mechanism 3), on clean scenes and by the patches as they were trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from segpatch.alignment import alignment, patch_gradients
from segpatch.attack import start_pixels
from segpatch.attack_config import AttackConfig, attack_preset, resolve
from segpatch.names import safe_name
from segpatch.patch import Patch
from segpatch.studies.attack import read_snapshots
from segpatch.studies.paper.context import Cell, Context, config_of


def alignment_cells(context: Context) -> list[Cell]:
    """A cell for clean scenes, one for the random start, and one per patch and point on its way.

    None for a single network, which has none to agree with.
    """
    victims = [victim for victim in context.victims if victim.differentiable]
    if len(victims) < 2:
        return []
    overrides = {**context.plan.overrides, "seed": min(context.plan.seeds)}
    paper = resolve(replace(attack_preset("paper"), **overrides), context.training, victims)
    cells = [
        _cell(context, "clean", None, paper),
        _cell(context, "random", start_pixels(paper), paper),
    ]
    for patch in context.patches():
        snapshots = read_snapshots(context.folder(patch.name))
        steps = list(snapshots)
        along = min(context.plan.along, len(steps))
        chosen = [steps[round((k + 1) * len(steps) / along) - 1] for k in range(along)]
        for step in chosen:
            cells.append(
                _cell(context, f"{safe_name(patch.name)}@{step}", snapshots[step], config_of(patch), patch)
            )
    return cells


def _cell(
    context: Context, name: str, pixels: Tensor | None, config: AttackConfig, patch: Patch | None = None
) -> Cell:
    victims = [victim for victim in context.victims if victim.differentiable]
    draws = context.plan.draws

    def work(show: Callable[[int, int], None]) -> dict[str, Any]:
        gradients = patch_gradients(
            victims, context.training, pixels, config, draws, lambda done: show(done, draws)
        )
        found = alignment(gradients)
        return {
            "patch": patch.name if patch else None,
            "at": name,
            "victims": [victim.name for victim in victims],
            "draws": draws,
            "batch_size": config.batch_size,
            "cosine": found.cosine.tolist(),
            "low": found.low.tolist(),
            "high": found.high.tolist(),
            "itself": found.itself.tolist(),
            "cosine_of_same_scenes": found.together.tolist(),
            "cosine_of_single_draws": found.draws.tolist(),
            "norms": gradients.norm(dim=2).mean(0).tolist(),
        }

    asked = {"at": name, "patch": patch.facts() if patch else None, "draws": draws}
    return Cell(f"alignment/{name}", victims, asked, work)
