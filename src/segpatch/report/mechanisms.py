"""What a study says of the paper's mechanisms: the loss on the way, and whether gradients of networks agree."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from segpatch.report.record import Bounds, Finding, Study, bounds, held_above, held_within, not_run

LITTLE = 0.1
"""Cosine below which two gradients are called unaligned."""
LEVEL = 0.1
"""Relative change of the loss within which it is called level."""
_HEARD = 0.3
"""Cosine of a network with itself over other scenes, below which noise would hide agreement with another."""


def conditions() -> Finding:
    """A patch fails under other conditions than those of its training (mechanism 1's break condition)."""
    return not_run("a patch fails under occlusion and uneven light (mechanism 1's break condition)")


def level_loss(study: Study) -> Finding:
    """The loss stays level while mIoU falls (mechanism 2)."""
    claim = f"the loss stays level while mIoU falls (mechanism 2; within {LEVEL:.0%})"
    curves = study.cells("curves")
    changes = []
    for curve in curves:
        since = curve["points"][-1].get("over_start", {"value": None, "ci95": (None, None)})
        fallen = bounds(since["value"], since["ci95"], curve.get("blocks", 0))
        change = curve.get("loss_change", {"value": None, "ci95": (None, None)})
        found = bounds(change["value"], change["ci95"])
        if found and fallen and fallen.low > 0:
            changes.append(found)
    return (
        Finding(claim, held_within(changes, LEVEL), tuple(c["sentence"] for c in curves))
        if curves
        else not_run(claim)
    )


def unaligned(study: Study) -> list[Finding]:
    """Patch gradients of different networks do not correlate (mechanism 3), but for those of one architecture."""
    result = study.matrices.get("matrix")
    network = {victim.name: victim.network for victim in result.victims} if result else {}

    def twins(one: str, other: str) -> bool:
        return network.get(one, one) == network.get(other, other)

    def strangers(one: str, other: str) -> bool:
        return not twins(one, other)

    claim = f"patch gradients of different architectures do not align (mechanism 3; cosine below {LITTLE:g})"
    of_twins = f"patch gradients of other weights of one architecture align (cosine above {LITTLE:g})"
    found, lines = _cosines(study, strangers)
    out = [
        Finding(claim, held_above([one.negative() for one in found], -LITTLE), lines) if lines else not_run(claim)
    ]
    found, lines = _cosines(study, twins)
    return [*out, Finding(of_twins, held_above(found, LITTLE), lines) if lines else not_run(of_twins)]


def _cosines(study: Study, chosen: Callable[[str, str], bool]) -> tuple[list[Bounds], tuple[str, ...]]:
    """The cosines of chosen pairs of networks that can be heard above the noise, and a line per point of
    comparison."""
    found, lines = [], []
    for cell in study.cells("alignment"):
        pairs = _pairs(cell, chosen)
        heard = [(names, bounded) for names, bounded, itself in pairs if itself >= _HEARD]
        found += [bounded for _, bounded in heard]
        if not pairs:
            continue
        lost = len(pairs) - len(heard)
        unheard = f"; {lost} of {len(pairs)} pairs left out, too noisy (with themselves below {_HEARD:g})"
        if heard:
            names, most = max(heard, key=lambda pair: pair[1].value)
            mean = sum(bounded.value for _, bounded in heard) / len(heard)
            itself = sum(itself for _, _, itself in pairs if itself >= _HEARD) / len(heard)
            said = f"mean {mean:.3f}, the most {most} ({names}); networks with themselves {itself:.3f}"
        else:
            said = "nothing to be told"
        lines.append(f"{cell['at']}: {said}" + (unheard if lost else ""))
    return found, tuple(lines)


def _pairs(cell: dict[str, Any], chosen: Callable[[str, str], bool]) -> list[tuple[str, Bounds, float]]:
    """(names, cosine, geometric mean of the two with themselves) of an alignment, each chosen pair once; only
    where both have a gradient."""
    names, itself = cell["victims"], cell["itself"]
    out = []
    for v, one in enumerate(names):
        for w, other in enumerate(names[v + 1 :], v + 1):
            found = bounds(cell["cosine"][v][w], (cell["low"][v][w], cell["high"][v][w]))
            if found and chosen(one, other) and itself[v] is not None and itself[w] is not None:
                out.append((f"{one}, {other}", found, math.sqrt(max(0.0, itself[v]) * max(0.0, itself[w]))))
    return out
