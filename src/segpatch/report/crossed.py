"""What the matrix says: patches on their own networks, on others, and on twins."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from segpatch.report.record import Finding, Holds, Study, held_above, not_run, number
from segpatch.results import CellRecord, TransferResult
from segpatch.statistics import verdict

MARGINS = (0.005, 0.01, 0.02)
_MARGIN = 0.01
"""What the paper calls minimal."""


def crossed(study: Study) -> list[Finding]:
    """Every claim of the paper that the matrix speaks of."""
    return [
        *own_networks(study),
        *other_networks(study),
        *twins(study),
        *ensembles(study),
        *experiments(study),
    ]


def own_networks(study: Study) -> list[Finding]:
    """A patch breaks the network that it was trained on."""
    out = []
    for preset, cells in _by_preset(study, own=True).items():
        out.append(_above(f"a `{preset}` patch breaks its own network", cells, 0.0))
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
        claim = f"`{preset}` patches cost other networks less than 0.01"
        out.append(Finding(claim, _held_within(cells), tuple(lines)))
    return out or [not_run("patches cost other networks less than 0.01")]


def twins(study: Study) -> list[Finding]:
    """Networks of one architecture with other weights share a patch (mechanism 3's break condition)."""
    claim = "a patch carries over to other weights of its architecture (mechanism 3's break condition)"

    def twin(one: str, other: str) -> bool:
        return one == other

    return [
        _above(f"{claim} (`{preset}`)", cells, _MARGIN) for preset, cells in _between(study, twin).items()
    ] or [not_run(claim)]


def ensembles(study: Study) -> list[Finding]:
    """One patch trained on several networks breaks each of them (mechanism 3's break condition)."""
    claim = "one patch trained on several networks breaks each of them (mechanism 3's break condition)"
    result = study.matrices.get("matrix")
    shared = {patch.name for patch in result.patches if len(patch.trained_on) > 1} if result else set()
    found = {
        preset: [cell for cell in cells if cell.patch in shared]
        for preset, cells in _by_preset(study, own=True).items()
    }
    return [_above(f"{claim} (`{preset}`)", cells, 0.0) for preset, cells in found.items() if cells] or [
        not_run(claim)
    ]


def experiments(study: Study) -> list[Finding]:
    """The summary's first two experiments, on PIDNet-L, and its first next check, on DeepLabV3+ and HRNet."""
    first = "a PIDNet-L patch breaks PIDNet-L (first experiment)"
    second = "a PIDNet-L patch costs BiSeNetV2 and SegFormer less than 0.01 (second experiment)"
    third = "no patch carries over from or to DeepLabV3+ or HRNet (next check 1)"

    def to_second(one: str, other: str) -> bool:
        return one == "pidnet-l" and other.startswith(("bisenetv2", "segformer"))

    def further(one: str, other: str) -> bool:
        return one != other and any(name.startswith(("deeplabv3plus", "hrnet")) for name in (one, other))

    result = study.matrices.get("matrix")
    networks = _networks(result) if result else {}
    own = {
        preset: [cell for cell in cells if networks[cell.victim] == "pidnet-l"]
        for preset, cells in _by_preset(study, own=True).items()
    }
    found = [_above(f"{first} (`{preset}`)", cells, 0.0) for preset, cells in own.items() if cells]
    out = found or [not_run(first)]
    for claim, chosen in ((second, to_second), (third, further)):
        said = [_below(f"{claim} (`{preset}`)", cells) for preset, cells in _between(study, chosen).items()]
        out += said or [not_run(claim)]
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


def _networks(result: TransferResult) -> dict[str, str]:
    """The architecture of each victim, by name."""
    return {victim.name: victim.network for victim in result.victims}


def _between(study: Study, chosen: Callable[[str, str], bool]) -> dict[str, list[CellRecord]]:
    """Cells of patches on networks that they were not trained on, by preset; chosen: (trained on, measured on), as
    names of architectures. Patches of several networks are left out."""
    result = study.matrices.get("matrix")
    if result is None:
        return {}
    network = _networks(result)
    source = {patch.name: network[patch.trained_on[0]] for patch in result.patches if len(patch.trained_on) == 1}
    found = {
        preset: [c for c in cells if c.patch in source and chosen(source[c.patch], network[c.victim])]
        for preset, cells in _by_preset(study, own=False).items()
    }
    return {preset: cells for preset, cells in found.items() if cells}


def _above(claim: str, cells: Sequence[CellRecord], least: float) -> Finding:
    """Whether the drop beyond random lies above a number in every cell."""
    bounds = [cell.over_random.ci95 for cell in cells if cell.over_random]
    return Finding(claim, held_above(bounds, least), tuple(_line(cell) for cell in cells))


def _below(claim: str, cells: Sequence[CellRecord]) -> Finding:
    """Whether every cell lies within the paper's margin: undecided unless all do, false where one transfers."""
    return Finding(claim, _held_within(cells), tuple(_line(cell) for cell in cells))


def _held_within(cells: Sequence[CellRecord]) -> Holds:
    words = set(_verdicts(cells, _MARGIN))
    if "transfers" in words:
        return "does not hold"
    return "holds" if words == {"does not"} else "undecided"


def _line(cell: CellRecord) -> str:
    return f"{cell.patch} on {cell.victim}: {_over(cell)}"


def _excess(cell: CellRecord) -> float:
    return (cell.over_random.drop if cell.over_random else None) or 0.0


def _over(cell: CellRecord) -> str:
    if cell.over_random is None:
        return f"drop {number(cell.miou_drop)}"
    low, high = cell.over_random.ci95
    return f"{number(cell.over_random.drop)} [{number(low)}, {number(high)}] beyond its random control"
