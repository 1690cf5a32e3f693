"""What a finished study says of each claim of arXiv:2502.16012: holds, does not hold, undecided, or not run.

A claim holds where every interval that speaks of it lies on its side, and does not hold where one lies on the
other.
"""

from __future__ import annotations

from typing import Any

from segpatch.report.ablated import ablations
from segpatch.report.crossed import crossed
from segpatch.report.record import Finding, Holds, Study, held_above, held_apart, not_run, number

LITTLE = 0.1
"""Cosine below which two gradients are called unaligned."""


def findings(study: Study) -> list[Finding]:
    """Every claim of the paper that the study speaks of, in the order of the paper's summary."""
    return [
        *crossed(study),
        *unseen_sizes(study),
        *local_or_far(study),
        *simple_classes(study),
        sky_and_road(study),
        *level_loss(study),
        *unaligned(study),
        *ablations(study),
    ]


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
        out.append(Finding(f"{claim} (`{preset}`)", held_apart(pairs), tuple(lines)))
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


def sky_and_road(study: Study) -> Finding:
    """Sky loses less IoU than road."""
    claim = "sky loses less IoU than road (quick check 2)"
    pairs, lines = [], []
    for cell in study.cells("locality"):
        drops = {one["class"].lower(): one["drop"] for one in cell["classes"]}
        if {"sky", "road"} <= drops.keys() and None not in (drops["sky"]["value"], drops["road"]["value"]):
            sky, road = drops["sky"], drops["road"]
            pairs.append((road["ci95"], sky["ci95"]))
            lines.append(
                f"{cell['patch']} on {cell['victim']}: sky {number(sky['value'])}, road {number(road['value'])}"
            )
    if not pairs:
        return not_run(claim)
    return Finding(claim, held_apart(pairs), tuple(lines))


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
