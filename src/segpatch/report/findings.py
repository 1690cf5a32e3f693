"""What a finished study says of each claim of arXiv:2502.16012: holds, does not hold, undecided, or not run.

A claim holds where every interval that speaks of it lies on its side, and does not hold where one surely lies
on the other (with room for their number, see `held_above`). What a patch does elsewhere is asked only of
patches that surely do something on their own network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from segpatch.report.ablated import ablations
from segpatch.report.crossed import MINIMAL, crossed
from segpatch.report.mechanisms import conditions, level_loss, unaligned
from segpatch.report.record import Bounds, Finding, Study, bounds, held_above, held_within, not_run
from segpatch.statistics import rank_interval


def findings(study: Study) -> list[Finding]:
    """Every claim of the paper that the study speaks of, in the order of the paper's summary."""
    return [
        *crossed(study),
        unseen_images(study),
        cut_out(study),
        *unseen_sizes(study),
        *local_or_far(study),
        *simple_classes(study),
        *sky_and_road(study),
        conditions(),
        level_loss(study),
        *unaligned(study),
        *ablations(study),
    ]


def unseen_images(study: Study) -> Finding:
    """A patch does on unseen images what it does on those it was trained on."""
    claim = f"a patch costs as much on unseen images as on those it was trained on (within {MINIMAL:g})"
    return _native(study, claim, ("trained", "frame"), ("unseen", "frame"))


def cut_out(study: Study) -> Finding:
    """A patch does in whole images what it does in the crops that it was trained in."""
    claim = f"a patch costs as much in a whole image as in its middle square (within {MINIMAL:g})"
    return _native(study, claim, ("unseen", "crop"), ("unseen", "frame"))


def _native(study: Study, claim: str, one: tuple[str, str], other: tuple[str, str]) -> Finding:
    """One kind of images against another, at the native size."""
    found, lines = [], []
    for cell in study.cells("sizes"):
        rows = {(row["images"], row["frame"]): row for row in cell["rows"] if row["scale"] == 1}
        first, second = _beyond_random(rows[one]), _beyond_random(rows[other])
        if first is None or second is None or max(first.low, second.low) <= 0:
            lines.append(_left_out(cell))
            continue
        found.append(first.less(second))
        lines.append(f"{_name(cell)}: {' '.join(one)} {first}, {' '.join(other)} {second}")
    return Finding(claim, held_within(found, MINIMAL), tuple(lines)) if lines else not_run(claim)


def unseen_sizes(study: Study) -> list[Finding]:
    """A patch works on unseen images, of any size: with the patch fixed in pixels, and in share of the image."""
    claims = {"pixels": "the same in pixels", "share": "the same in share of the image"}
    out = []
    for fixed, claim in claims.items():
        found, lines = [], []
        for cell in study.cells("sizes"):
            frames = [row for row in cell["rows"] if (row["images"], row["frame"]) == ("unseen", "frame")]
            shown = [
                row for row in frames if "left_out" not in row and (row["fixed"] == fixed or row["scale"] == 1)
            ]
            drops = {row["scale"]: one for row in shown if (one := _beyond_random(row))}
            if 1 not in drops or drops[1].low <= 0:
                lines.append(_left_out(cell))
                continue
            found += [one for scale, one in drops.items() if scale != 1]
            by_size = ", ".join(f"x{scale:g} {one}" for scale, one in sorted(drops.items()))
            lines.append(f"{_name(cell)}: {by_size}")
        said = f"a patch costs more than {MINIMAL:g} on unseen images of other sizes, itself {claim}"
        out.append(Finding(said, held_above(found, MINIMAL), tuple(lines)) if lines else not_run(said))
    return out


def local_or_far(study: Study) -> list[Finding]:
    """CNNs are hit beside the patch, transformers far away (Fig. 3)."""
    claim = "a transformer is hit further away from the patch than any CNN"
    out = []
    for preset, cells in _by_preset(study):
        remote: dict[str, list[Bounds]] = {"cnn": [], "transformer": []}
        lines = []
        for cell in cells:
            share = bounds(cell["reach"]["remote"]["value"], cell["reach"]["remote"]["ci95"])
            if share is None or not _does_something(cell):
                lines.append(f"{_name(cell)}: no more pixels wrong than under its control, for sure; left out")
                continue
            remote[cell["family"]].append(share)
            half, most = cell["reach"]["r50"]["value"], cell["reach"]["r90"]["value"]
            even = cell["reach_of_even_damage"]["remote"]["value"]
            lines.append(
                f"{_name(cell)}: {share.percent()} of the newly wrong pixels beyond two patch widths (evenly "
                f"spread: {even:.0%}), half within {half:.0f} px, nine tenths within {most:.0f} px"
            )
        pairs = [far.less(near) for far in remote["transformer"] for near in remote["cnn"]]
        out.append(Finding(f"{claim} (`{preset}`)", held_above(pairs, 0.0), tuple(lines)))
    return out or [not_run(claim)]


def simple_classes(study: Study) -> list[Finding]:
    """Simple classes suffer less: the more frequent a class, the smaller its drop; a finding per preset."""
    claim = (
        "frequent classes lose less IoU (rank correlation of drop and frequency below 0, over classes and images)"
    )
    asked = [_simple(f"{claim} (`{preset}`)", cells) for preset, cells in _by_preset(study)]
    return asked or [not_run(claim)]


def _simple(claim: str, cells: Sequence[dict[str, Any]]) -> Finding:
    found, lines = [], []
    for cell in cells:
        rho = bounds(cell["rho_share"]["value"], cell["rho_share"]["ci95"])
        if rho is None or not _does_something(cell):
            lines.append(_left_out(cell))
            continue
        ranked = sum(one["drop"]["value"] is not None for one in cell["classes"])
        low, high = rank_interval(rho.value, ranked)
        both = Bounds(rho.value, min(low, rho.low), max(high, rho.high))
        found.append(both.negative())
        worst = max(cell["classes"], key=lambda one: one["drop"]["value"] or 0.0)
        lines.append(
            f"{_name(cell)}: {rho.value:.2f} [{both.low:.2f}, {both.high:.2f}], over images alone [{rho.low:.2f}, "
            f"{rho.high:.2f}]; with the distance from the patch {_value(cell['rho_distance'])}; most lost by "
            f"{worst['class']}"
        )
    return Finding(claim, held_above(found, 0.0), tuple(lines))


def sky_and_road(study: Study) -> list[Finding]:
    """Sky loses less IoU than road, a finding per preset."""
    claim = "sky loses less IoU than road (quick check 2)"
    asked = [_road_less_sky(f"{claim} (`{preset}`)", cells) for preset, cells in _by_preset(study)]
    return [one for one in asked if one.figures] or [not_run(claim)]


def _road_less_sky(claim: str, cells: Sequence[dict[str, Any]]) -> Finding:
    found, lines = [], []
    for cell in cells:
        drops = {
            one["class"].lower(): bounds(one["drop"]["value"], one["drop"]["ci95"]) for one in cell["classes"]
        }
        sky, road = drops.get("sky"), drops.get("road")
        if sky is None or road is None:
            continue
        if not _does_something(cell):
            lines.append(_left_out(cell))
            continue
        found.append(road.less(sky))
        lines.append(f"{_name(cell)}: sky {sky}, road {road}")
    return Finding(claim, held_above(found, 0.0), tuple(lines))


def _by_preset(study: Study) -> list[tuple[str, list[dict[str, Any]]]]:
    """The cells of where and what patches hit, by the preset of their patch."""
    found: dict[str, list[dict[str, Any]]] = {}
    for cell in study.cells("locality"):
        found.setdefault("/".join(cell["patch"].split("/")[1:2]), []).append(cell)
    return list(found.items())


def _beyond_random(row: dict[str, Any]) -> Bounds | None:
    return bounds(row["over_random"], row["over_random_ci95"], row.get("blocks", 0))


def _does_something(cell: dict[str, Any]) -> bool:
    """Whether more pixels are newly wrong than under the control, for sure."""
    more = bounds(cell["flip_rate"]["value"], cell["flip_rate"]["ci95"], cell.get("blocks", 0))
    return more is not None and more.low > 0


def _name(cell: dict[str, Any]) -> str:
    return f"{cell['patch']} on {cell['victim']}"


def _left_out(cell: dict[str, Any]) -> str:
    return f"{_name(cell)}: left out, for it does nothing for sure beyond its control"


def _value(estimate: dict[str, Any]) -> str:
    return "-" if estimate["value"] is None else f"{estimate['value']:.2f}"
