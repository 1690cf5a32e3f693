"""What the matrix says: patches on their own networks, on others, and on twins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from segpatch.published import published_matrix
from segpatch.report.excess import Excess, excesses
from segpatch.report.record import Bounds, Finding, Holds, Study, held_above, held_within, not_run
from segpatch.results import CellRecord, TransferResult
from segpatch.statistics import verdict

MARGINS = (0.005, 0.01, 0.02)
MINIMAL = 0.01
"""What the paper calls a minimal change of mIoU: a patch that costs no more neither breaks a network nor
transfers to it."""


def crossed(study: Study) -> list[Finding]:
    """Every claim of the paper that the matrix speaks of."""
    found = excesses(study)
    return [
        *own_networks(found),
        *other_networks(found, study.matrices.get("matrix")),
        *twins(found),
        *ensembles(found),
        *experiments(found),
    ]


def verdict_rows(found: Sequence[Excess]) -> list[dict[str, Any]]:
    """A row for each training on each network: its drop beyond random and beyond the strongest control, and the
    verdict on each at every margin."""
    rows = []
    for one in found:
        row: dict[str, Any] = {"patch": one.patch, "network": one.victim, "own": one.own}
        for name, drop in (("random", one.over_random), ("strongest", one.over_strongest)):
            if drop:
                row |= {f"over_{name}": drop.value, f"over_{name}_low": drop.low, f"over_{name}_high": drop.high}
                row |= {f"over_{name}, at {m:g}": verdict(drop.low, drop.high, m) for m in MARGINS}
        rows.append(row)
    return rows


def own_networks(found: Sequence[Excess]) -> list[Finding]:
    """A patch breaks the network that it was trained on."""
    alone = [one for one in found if one.own and len(one.trained_on) == 1]
    claim = f"a `{{}}` patch breaks its own network (costs it more than {MINIMAL:g})"
    return _each(claim, alone, _breaks) or [_not_run(claim)]


def other_networks(found: Sequence[Excess], result: TransferResult | None) -> list[Finding]:
    """A patch costs networks of other architectures less than 0.01.

    It does not hold where one costs more, and more than any control does: a grey square may cost a network as
    much.
    """
    claim = f"`{{}}` patches cost networks of other architectures less than {MINIMAL:g}"
    foreign = [one for one in found if len(one.trained_on) == 1 and one.network not in one.sources]
    out = []
    for preset, cells in _by_preset(foreign).items():
        lines = []
        for margin in MARGINS:
            against = {
                "random": [one.over_random for one in cells],
                "any control": [one.over_strongest for one in cells],
            }
            for what, some in against.items():
                words = [verdict(one.low, one.high, margin) for one in some if one]
                counts = ", ".join(
                    f"{words.count(word)} {word}" for word in ("transfers", "does not", "undecided")
                )
                lines.append(f"of {len(words)} at margin {margin:g}, beyond {what}: {counts}")
        sure = {one.patch for one in found if one.own and one.over_random and one.over_random.low > MINIMAL}
        lines.append(f"{sum(one.patch in sure for one in cells)} are of patches that break their own network")
        if result:
            lines.append(_single(result, preset))
        most = max(cells, key=lambda one: one.over_random.value if one.over_random else 0.0)
        lines.append(f"the most: {most}, {most.over_strongest} beyond the strongest control")
        out.append(Finding(claim.format(preset), _kept_to_itself(cells), tuple(lines)))
    return out or [_not_run(claim)]


def twins(found: Sequence[Excess]) -> list[Finding]:
    """Networks of one architecture with other weights share a patch (mechanism 3's break condition)."""
    claim = "a patch carries over to other weights of its architecture (mechanism 3's break condition; `{}`)"
    strong = {one.patch for one in found if one.own and one.over_random and one.over_random.low > 0}
    pairs = [one for one in found if len(one.trained_on) == 1 and not one.own and one.network in one.sources]
    out = []
    for preset, cells in _by_preset(pairs).items():
        counted = [one for one in cells if one.patch in strong]
        lines = [str(one) for one in counted]
        lines += [f"{one}; left out, for it does nothing to its own" for one in cells if one not in counted]
        out.append(Finding(claim.format(preset), held_above(_over_random(counted), MINIMAL), tuple(lines)))
    return out or [_not_run(claim)]


def ensembles(found: Sequence[Excess]) -> list[Finding]:
    """One patch trained on several networks breaks each of them (mechanism 3's break condition)."""
    claim = "one patch trained on several networks breaks each of them (mechanism 3's break condition; `{}`)"
    shared = [one for one in found if one.own and len(one.trained_on) > 1]
    return _each(claim, shared, _breaks) or [_not_run(claim)]


def experiments(found: Sequence[Excess]) -> list[Finding]:
    """The summary's first two experiments, on PIDNet-L, and its first next check, on DeepLabV3+ and HRNet."""
    alone = [one for one in found if len(one.trained_on) == 1]
    own = [one for one in alone if one.own and one.network == "pidnet-l"]
    first = f"a PIDNet-L patch breaks PIDNet-L (first experiment, published {_published('pidnet-l'):.3f}; `{{}}`)"
    second = f"a PIDNet-L patch costs BiSeNetV2 and SegFormer less than {MINIMAL:g} (second experiment; `{{}}`)"
    third = "no patch carries over from or to DeepLabV3+ or HRNet (next check 1; `{}`)"

    def to_second(one: Excess) -> bool:
        return one.sources == ("pidnet-l",) and one.network.startswith(("bisenetv2", "segformer"))

    def further(one: Excess) -> bool:
        both = (*one.sources, one.network)
        return one.network not in one.sources and any(name.startswith(("deeplabv3plus", "hrnet")) for name in both)

    return [
        *(_each(first, own, _breaks) or [_not_run(first)]),
        *(_each(second, [one for one in alone if to_second(one)], _kept_to_itself) or [_not_run(second)]),
        *(_each(third, [one for one in alone if further(one)], _kept_to_itself) or [_not_run(third)]),
    ]


def _each(claim: str, cells: Sequence[Excess], judge: Callable[[Sequence[Excess]], Holds]) -> list[Finding]:
    """A finding per preset, with a line per cell."""
    out = []
    for preset, some in _by_preset(cells).items():
        above = sum(one.low > MINIMAL for one in _over_random(some))
        lines = [f"surely more than {MINIMAL:g} in {above} of {len(some)} cases", *map(str, some)]
        out.append(Finding(claim.format(preset), judge(some), tuple(lines)))
    return out


def _not_run(claim: str) -> Finding:
    """Of a claim with a place for the preset."""
    return not_run(claim.replace("; `{}`", "").replace("`{}` ", ""))


def _breaks(cells: Sequence[Excess]) -> Holds:
    return held_above(_over_random(cells), MINIMAL)


def _kept_to_itself(cells: Sequence[Excess]) -> Holds:
    """Whether all lie within the margin, or one costs surely more beyond random and beyond every control."""
    wide = [
        (one.over_random.widened(len(cells)), one.over_strongest.widened(len(cells)))
        for one in cells
        if one.over_random and one.over_strongest
    ]
    if any(random.low > MINIMAL and strongest.low > MINIMAL for random, strongest in wide):
        return "does not hold"
    return "holds" if held_within(_over_random(cells), MINIMAL) == "holds" else "undecided"


def _over_random(cells: Sequence[Excess]) -> list[Bounds]:
    return [one.over_random for one in cells if one.over_random]


def _by_preset(cells: Sequence[Excess]) -> dict[str, list[Excess]]:
    found: dict[str, list[Excess]] = {}
    for one in cells:
        found.setdefault(one.preset, []).append(one)
    return found


def _single(result: TransferResult, preset: str) -> str:
    """How many patches, each by itself, differ from random at all."""
    over = [cell.over_random for cell in _trained(result, preset) if not cell.white_box and cell.over_random]
    sure = sum(one.p_holm < 0.05 for one in over)
    of_all = f"of {len(over)} cells of single patches, twins included"
    return f"{of_all}, {sure} differ from the random patch at all (Holm, 5 %)"


def _trained(result: TransferResult, preset: str) -> list[CellRecord]:
    names = {patch.name for patch in result.patches if patch.kind == "trained" and patch.preset == preset}
    return [cell for cell in result.cells if cell.patch in names]


def _published(network: str) -> float:
    """What the published patch of a network costs it beyond the random one."""
    drop = published_matrix().drop_over_random(network, network)
    assert drop is not None
    return drop
