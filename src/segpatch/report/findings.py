"""What a finished study says of each claim of arXiv:2502.16012: holds, does not hold, undecided, or not run.

A claim holds where every interval that speaks of it lies on its side, and does not hold where one lies on the
other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from segpatch.published import Beside, beside
from segpatch.report.losses import losses
from segpatch.report.record import Finding, Holds, Study, held_above, not_run, number
from segpatch.results import CellRecord, TransferResult
from segpatch.statistics import verdict

MARGINS = (0.005, 0.01, 0.02)
LITTLE = 0.1
"""Cosine below which two gradients are called unaligned."""


def findings(study: Study) -> list[Finding]:
    """Every claim of the paper that the study speaks of, in the order of the paper's summary."""
    return [
        *own_networks(study),
        *other_networks(study),
        *unseen_sizes(study),
        *local_or_far(study),
        *simple_classes(study),
        *level_loss(study),
        *unaligned(study),
        *losses(study),
    ]


def own_networks(study: Study) -> list[Finding]:
    """A patch breaks the network that it was trained on."""
    out = []
    for preset, cells in _by_preset(study, own=True).items():
        bounds = [cell.over_random.ci95 for cell in cells if cell.over_random]
        lines = tuple(f"{cell.patch} on {cell.victim}: {_over(cell)}" for cell in cells)
        out.append(Finding(f"a `{preset}` patch breaks its own network", held_above(bounds, 0.0), lines))
    return out or [not_run("a patch breaks its own network")]


def other_networks(study: Study) -> list[Finding]:
    """A patch costs networks that it was not trained on less than 0.01."""
    out = []
    for preset, cells in _by_preset(study, own=False).items():
        said = {margin: _verdicts(cells, margin) for margin in MARGINS}
        lines = [
            f"of {len(found)} cells at margin {margin:g}: "
            + ", ".join(f"{found.count(word)} {word}" for word in ("transfers", "does not", "undecided"))
            for margin, found in said.items()
        ]
        sure = sum(cell.over_random is not None and cell.over_random.p_holm < 0.05 for cell in cells)
        lines.append(f"{sure} differ from the random patch at all (Holm over the matrix, 5 %)")
        most = max(cells, key=_excess)
        lines.append(f"the most: {most.patch} on {most.victim}, {_over(most)}")
        words = set(said[0.01])
        held: Holds = "undecided"
        if "transfers" in words:
            held = "does not hold"
        elif words == {"does not"}:
            held = "holds"
        out.append(Finding(f"`{preset}` patches cost other networks less than 0.01", held, tuple(lines)))
    return out or [not_run("patches cost other networks less than 0.01")]


def unseen_sizes(study: Study) -> list[Finding]:
    """A patch works on unseen images, of any size: with the patch fixed in pixels, and in share of the image."""
    claims = {"pixels": "the same in pixels", "share": "the same in share of the image"}
    out = []
    for fixed, claim in claims.items():
        bounds, lines = [], []
        for cell in study.cells("sizes"):
            rows = [row for row in cell["rows"] if row["images"] == "unseen" and row["frame"] == "frame"]
            shown = [row for row in rows if "left_out" not in row and (row["fixed"] == fixed or row["scale"] == 1)]
            bounds += [row["over_random_ci95"] for row in shown]
            drops = ", ".join(f"x{row['scale']:g} {number(row['over_random'])}" for row in shown)
            lines.append(f"{cell['patch']} on {cell['victim']}: {drops}")
        said = f"a patch works on unseen images of other sizes, itself {claim}"
        out.append(Finding(said, held_above(bounds, 0.0), tuple(lines)) if lines else not_run(said))
    return out


def local_or_far(study: Study) -> list[Finding]:
    """CNNs are hit beside the patch, transformers far away (Fig. 3)."""
    claim = "a transformer is hit further away from the patch than any CNN"
    by_preset: dict[str, list[dict[str, Any]]] = {}
    for cell in study.cells("locality"):
        by_preset.setdefault(cell["patch"].split("/", 1)[-1], []).append(cell)
    out = []
    for preset, cells in by_preset.items():
        remote = {True: [], False: []}  # type: dict[bool, list[tuple[float, float]]]
        lines = []
        for cell in cells:
            share, half = cell["reach"]["remote"], cell["reach"]["r50"]["value"]
            low, high = share["ci95"]
            if share["value"] is None or low is None or high is None:
                lines.append(f"{cell['patch']} on {cell['victim']}: no more pixels wrong than under its control")
                continue
            remote[cell["family"] == "transformer"].append((low, high))
            even = cell["reach_of_even_damage"]["remote"]["value"]
            lines.append(
                f"{cell['patch']} on {cell['victim']}: {share['value']:.0%} [{low:.0%}, {high:.0%}] of the newly "
                f"wrong pixels beyond two patch widths (evenly spread: {even:.0%}), half within {half:.0f} px"
            )
        pairs = [(far, near) for far in remote[True] for near in remote[False]]
        held: Holds = "undecided"
        if any(far[1] < near[0] for far, near in pairs):
            held = "does not hold"
        elif pairs and all(far[0] > near[1] for far, near in pairs):
            held = "holds"
        out.append(Finding(f"{claim} (`{preset}`)", held, tuple(lines)))
    return out or [not_run(claim)]


def simple_classes(study: Study) -> list[Finding]:
    """Simple classes suffer less: the more frequent a class, the smaller its drop."""
    claim = "frequent classes lose less IoU (rank correlation of drop and frequency below 0)"
    cells = study.cells("locality")
    if not cells:
        return [not_run(claim)]
    bounds, lines = [], []
    for cell in cells:
        (low, high), rho = cell["rho_share"]["ci95"], cell["rho_share"]["value"]
        if low is not None and high is not None and rho is not None:
            bounds.append((-high, -low))
            worst = max(cell["classes"], key=lambda one: one["drop"]["value"] or 0.0)
            lines.append(
                f"{cell['patch']} on {cell['victim']}: {rho:.2f} [{low:.2f}, {high:.2f}]; most by {worst['class']}"
            )
    return [Finding(claim, held_above(bounds, 0.0), tuple(lines))]


def level_loss(study: Study) -> list[Finding]:
    """The loss stays level while mIoU falls (mechanism 2)."""
    claim = "the loss stays level while mIoU falls (mechanism 2)"
    curves = study.cells("curves")
    if not curves:
        return [not_run(claim)]
    fell = [curve for curve in curves if curve["points"][-1]["ci95"][0] > 0]
    level = sum("the loss stayed level" in curve["sentence"] for curve in fell)
    held: Holds = "undecided"
    if fell:
        held = "holds" if level == len(fell) else "does not hold"
    return [Finding(claim, held, tuple(curve["sentence"] for curve in curves))]


def unaligned(study: Study) -> list[Finding]:
    """Patch gradients of different networks do not correlate (mechanism 3)."""
    claim = f"patch gradients of different networks do not align (mechanism 3; cosine below {LITTLE:g})"
    cells = study.cells("alignment")
    if not cells:
        return [not_run(claim)]
    bounds, lines = [], []
    for cell in cells:
        found = _pairs(cell)
        bounds += [(-high, -low) for _, _, _, low, high in found]
        if not found:
            lines.append(f"{cell['at']}: no two networks have a gradient")
            continue
        one, other, cosine, low, high = max(found, key=lambda pair: pair[2])
        mean = sum(pair[2] for pair in found) / len(found)
        known = [value for value in cell["itself"] if value is not None]
        itself = sum(known) / len(known)
        most = f"at most {cosine:.3f} [{low:.3f}, {high:.3f}] ({one}, {other})"
        lines.append(f"{cell['at']}: mean {mean:.3f}, {most}; a network with itself {itself:.3f}")
    return [Finding(claim, held_above(bounds, -LITTLE), tuple(lines))]


def beside_published(study: Study) -> list[tuple[str, str, Beside]]:
    """(patch, network, drops) of every cell of the `released` preset that Table I has too."""
    result = study.matrices.get("matrix")
    if result is None:
        return []
    networks = {victim.name: victim.network for victim in result.victims}
    out = []
    for cell in _trained(result, "released"):
        (own, *others) = next(patch for patch in result.patches if patch.name == cell.patch).trained_on
        if others or cell.over_random is None or cell.over_random.drop is None or cell.miou is None:
            continue
        found = beside(networks[own], networks[cell.victim], cell.miou, cell.miou + cell.over_random.drop)
        if found.theirs is not None:
            out.append((cell.patch, cell.victim, found))
    return out


def _by_preset(study: Study, *, own: bool) -> dict[str, list[CellRecord]]:
    """The cells of trained patches in the matrix, on their own networks or on others, by preset."""
    result = study.matrices.get("matrix")
    if result is None:
        return {}
    presets = dict.fromkeys(patch.preset for patch in result.patches if patch.kind == "trained" and patch.preset)
    cells = {preset: [c for c in _trained(result, preset) if c.white_box == own] for preset in presets}
    return {preset: found for preset, found in cells.items() if found}


def _trained(result: TransferResult, preset: str) -> list[CellRecord]:
    names = {patch.name for patch in result.patches if patch.kind == "trained" and patch.preset == preset}
    return [cell for cell in result.cells if cell.patch in names]


def _verdicts(cells: Sequence[CellRecord], margin: float) -> list[str]:
    bounds = [cell.over_random.ci95 for cell in cells if cell.over_random]
    return [verdict(low, high, margin) for low, high in bounds if low is not None and high is not None]


def _pairs(cell: dict[str, Any]) -> list[tuple[str, str, float, float, float]]:
    """(network, other network, cosine, low, high) of an alignment, each pair once; only where both have a
    gradient."""
    names = cell["victims"]
    return [
        (names[v], names[w], cell["cosine"][v][w], cell["low"][v][w], cell["high"][v][w])
        for v in range(len(names))
        for w in range(v + 1, len(names))
        if cell["cosine"][v][w] is not None
    ]


def _excess(cell: CellRecord) -> float:
    return (cell.over_random.drop if cell.over_random else None) or 0.0


def _over(cell: CellRecord) -> str:
    if cell.over_random is None:
        return f"drop {number(cell.miou_drop)}"
    low, high = cell.over_random.ci95
    return f"{number(cell.over_random.drop)} [{number(low)}, {number(high)}] beyond its random control"
