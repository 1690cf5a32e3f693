"""The matrix of a study beside Table I of arXiv:2502.16012, cell by cell: for the page, as a table and as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from segpatch.published import RANDOM, Beside, published_matrix
from segpatch.report.record import Study, number
from segpatch.results import Pair, PatchRecord

NO_INTERVAL: Pair = (None, None)


class BesideRow(NamedTuple):
    """A patch on a network that Table I has too.

    miou: under the patch; clean: over all pixels, without one; drop: of the mIoU against the random patch of the
    same table, and for that patch against the clean images; ci95: of our drop, where there is one.
    """

    patch: str
    victim: str
    miou: Beside
    clean: Beside
    drop: Beside
    ci95: Pair

    def flat(self) -> dict[str, Any]:
        """The row as columns."""
        values = {"miou": self.miou, "clean_miou": self.clean, "drop": self.drop}
        named = {f"{name}.{which}": value for name, of in values.items() for which, value in of._asdict().items()}
        low, high = self.ci95
        return {"patch": self.patch, "victim": self.victim, **named, "drop.low": low, "drop.high": high}


def beside_published(study: Study) -> list[BesideRow]:
    """A row for the random patch of the `released` range on each network, and for each patch of that preset."""
    result = study.matrices.get("matrix")
    if result is None:
        return []
    table, network = published_matrix(), {victim.name: victim.network for victim in result.victims}
    sources = dict(_sources(result.patches, network))
    out = []
    for cell in result.cells:
        if cell.patch not in sources:
            continue
        source, column = sources[cell.patch], network[cell.victim]
        if (theirs := table.cell(source, column)) is None:
            continue
        clean = Beside.of(cell.miou_clean, table.networks[table.full_name(column)].clean_miou)
        drop, ci95 = Beside.of(_minus(clean.ours, cell.miou), _minus(clean.theirs, theirs)), NO_INTERVAL
        if source != RANDOM:
            over = cell.over_random
            drop = Beside.of(over.drop if over else None, table.drop_over_random(source, column))
            ci95 = over.ci95 if over else NO_INTERVAL
        out.append(BesideRow(cell.patch, cell.victim, Beside.of(cell.miou, theirs), clean, drop, ci95))
    return out


def beside_text(rows: Sequence[BesideRow]) -> str:
    """The rows as a table in Markdown, with a heading; nothing without rows."""
    if not rows:
        return ""
    lines = [
        "",
        "# Beside the published table",
        "",
        "mIoU under the patch, clean mIoU, and the drop against the random patch of the same table (of the random "
        "patch against clean images), ours, theirs and the difference.",
        "",
        "| patch on network | ours | theirs | difference | clean, ours | theirs "
        "| drop, ours | theirs | difference |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = map(number, row.ci95)
        ours = number(row.drop.ours) + (f" [{low}, {high}]" if row.ci95 != NO_INTERVAL else "")
        cells = [*map(number, row.miou), number(row.clean.ours), number(row.clean.theirs)]
        cells += [ours, number(row.drop.theirs), number(row.drop.difference)]
        lines.append(f"| {row.patch} on {row.victim} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _sources(patches: Sequence[PatchRecord], network: dict[str, str]) -> Iterator[tuple[str, str]]:
    """(patch, row of Table I) of the patches of the preset and of the random ones that are their controls."""
    released = [patch for patch in patches if patch.kind == "trained" and patch.preset == "released"]
    looks = [(patch.range, patch.height, patch.width) for patch in released]
    for patch in patches:
        if patch.kind == "random" and (patch.range, patch.height, patch.width) in looks:
            yield patch.name, RANDOM
    for patch in released:
        if len(patch.trained_on) == 1:
            yield patch.name, network[patch.trained_on[0]]


def _minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other
