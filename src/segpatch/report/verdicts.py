"""The answers at the top of the page, in plain words with how sure they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from segpatch.plots import figure, verdict_of
from segpatch.report.fates import Harm, harms, read_counts
from segpatch.results import CellRecord, TransferResult

MINUS = "\N{MINUS SIGN}"
NO_BREAK = "\N{NO-BREAK SPACE}"


class Verdict(NamedTuple):
    """One answer at the top of the page: a figure, what it counts, and the sentences behind it."""

    heading: str
    figure: str
    said: str
    sentences: list[str]


def verdicts(result: TransferResult, found: Sequence[Harm]) -> list[Verdict]:
    """What was found: on own networks, on others, to people, and what the controls cost."""
    presets = {patch.name: patch.preset or "given" for patch in result.patches if patch.kind == "trained"}
    cells = [cell for cell in result.cells if cell.patch in presets and cell.miou_drop is not None]
    own, foreign = ([cell for cell in cells if cell.white_box == which] for which in (True, False))
    return [
        *_own_verdict(result, own, presets),
        *_foreign_verdict(result, foreign),
        *_people_verdict(found),
        *_control_verdict(result),
    ]


def _own_verdict(result: TransferResult, own: Sequence[CellRecord], presets: Mapping[str, str]) -> list[Verdict]:
    if not own:
        return []
    sentences = []
    for preset in dict.fromkeys(presets[cell.patch] for cell in own):
        sentences += _own_sentences(preset, [cell for cell in own if presets[cell.patch] == preset])
    networks = dict.fromkeys(cell.victim for cell in own)
    broken = {cell.victim for cell in own if _surely_above(cell, result.margin)}
    beyond = " beyond the random control" if any(cell.over_random for cell in own) else ""
    said = f"networks surely lose more than {result.margin:g} mIoU{beyond} to a patch of their own"
    return [Verdict("Networks that break", f"{len(broken)} of {len(networks)}", said, sentences)]


def _foreign_verdict(result: TransferResult, foreign: Sequence[CellRecord]) -> list[Verdict]:
    if not foreign:
        return []
    judged = [verdict_of(result, cell) for cell in foreign]
    count = {v: judged.count(v) for v in ("transfers", "does not", "undecided")}
    most = max(foreign, key=_drop)
    sentences = [f"The costliest of them is {most.patch} on {most.victim}, with {_cost(most)}."]
    if not (total := sum(count.values())):
        return [
            Verdict("Patches that travel", f"{len(foreign)}", "measurements without a random control", sentences)
        ]
    sentences.insert(
        0,
        f"Of {total} measurements on other networks, {count['transfers']} transfer (more than "
        f"{result.margin:g} mIoU beyond the random control), {count['does not']} do not (within "
        f"±{result.margin:g}) and {count['undecided']} are undecided.",
    )
    said = (
        f"times a patch surely costs a foreign network more than {result.margin:g} mIoU beyond the random control"
    )
    return [Verdict("Patches that travel", f"{count['transfers']} of {total}", said, sentences)]


def _people_verdict(found: Sequence[Harm]) -> list[Verdict]:
    """The worst that happens to a class of people, and the worst of it under patches of others."""
    if not found:
        return []
    sure = [harm for harm in found if harm.sure]
    worst = max(sure or found, key=_loss)
    sentences = [_harm_sentence(worst)]
    if not sure:
        networks = len({harm.victim for harm in found})
        said = "networks surely lose pixels of people beyond what the random control takes"
        return [Verdict("People and riders", f"0 of {networks}", said, sentences)]
    if others := [harm for harm in found if harm.own != worst.own]:
        sentences.append(_harm_sentence(max(others, key=_loss)))
    under = f"under {'its own' if worst.own else 'a foreign'} patch"
    where = f"on {worst.victim} {under}"
    if worst.fate.into and worst.turned[0] > 0:
        into = worst.fate.into[0]
        share, said = into.share, f"of the {worst.fate.name} pixels become {into.name} {where}"
        if worst.fate.exact:
            said = f"of the {worst.fate.name} pixels that {worst.victim} has right become {into.name} {under}"
        said += _under_control(worst)
    else:
        share, said = _loss(worst), f"of the {worst.fate.name} pixels are no longer right {where}"
    return [Verdict("People and riders", percent(share), said, sentences)]


def _control_verdict(result: TransferResult) -> list[Verdict]:
    kinds = {patch.name: patch.kind for patch in result.patches}
    random = [c for c in result.cells if kinds.get(c.patch) == "random" and c.miou_drop is not None]
    if not random:
        return []
    mean, most = sum(map(_drop, random)) / len(random), max(map(_drop, random))
    rest = f" on average and at most {figure(most)}" if len(random) > 1 else ""
    said = "mIoU is what a random patch of the same size and range costs"
    return [
        Verdict("Random control", figure(mean), said, [f"The random control costs {figure(mean)} mIoU{rest}."])
    ]


def people_line(run: Path, result: TransferResult) -> str:
    """What the page of a run answers of people and riders, as a line; empty where it has no answer."""
    answers = _people_verdict(harms(result, read_counts(run, result)))
    return "".join(f"{one.heading}: {one.figure} {one.said}." for one in answers).replace(NO_BREAK, " ")


def percent(share: float) -> str:
    """A share of pixels, finer where it is small."""
    text = f"{100 * share:.0f}" if abs(share) >= 0.095 or share == 0 else f"{100 * share:.1f}"
    return f"{text.replace('-0.0', '0.0').replace('-', MINUS)}{NO_BREAK}%"


def _own_sentences(preset: str, own: Sequence[CellRecord]) -> list[str]:
    if len(own) <= 3:
        each = [f"{cell.victim} loses {_cost(cell)} to {cell.patch}" for cell in own]
        return [f"By {preset} patches of their own: {', '.join(each)}."]
    least, most = min(own, key=_drop), max(own, key=_drop)
    return [
        f"On their own networks, {preset} patches cost between {_cost(least)} ({least.patch} on "
        f"{least.victim}) and {_cost(most)} ({most.patch} on {most.victim})."
    ]


def _surely_above(cell: CellRecord, margin: float) -> bool:
    """Whether the whole interval of a drop, beyond the random control where there is one, lies above a margin."""
    low = cell.over_random.ci95[0] if cell.over_random else cell.ci95[0]
    return low is not None and low > margin


def _harm_sentence(harm: Harm) -> str:
    """What becomes of a class of people on a network under a training, with intervals."""
    fate, seeds = harm.fate, f" ({harm.seeds} seeds)" if harm.seeds > 1 else ""
    kept = f"{percent(fate.before)} of {fate.name} pixels are right without a patch and {percent(fate.after)} with"
    lost = (
        f"{kept} {harm.training}{seeds} on {harm.victim} (loss {_percents(fate.before - fate.after, harm.lost)})"
    )
    if harm.control is not None:
        lost += f", {percent(harm.control)} under the random control"
    if not fate.into:
        return f"{lost}."
    into = fate.into[0]
    share, beside = _percents(into.share, harm.turned), _under_control(harm)
    if fate.exact:
        return f"{lost}. Of those right without a patch, {share} become {into.name}{beside}."
    return f"{lost}; most of it is taken for {into.name}, a net gain of {share}{beside}."


def _under_control(harm: Harm) -> str:
    """What of the same the random control does."""
    return "" if harm.control_turned is None else f" ({percent(harm.control_turned)} under the random control)"


def _percents(value: float, bounds: tuple[float, float]) -> str:
    return f"{percent(value)} [{percent(bounds[0])}, {percent(bounds[1])}]"


def _loss(harm: Harm) -> float:
    return harm.fate.before - harm.fate.after


def _cost(cell: CellRecord) -> str:
    low, high = cell.ci95
    return f"{figure(cell.miou_drop)} mIoU [{figure(low)}, {figure(high)}]"


def _drop(cell: CellRecord) -> float:
    return cell.miou_drop or 0.0
