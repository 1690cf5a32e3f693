"""The tables of the result pages, as Markdown, from a finished `segpatch study paper` run.

    python docs/results/tables.py STUDY [--group Seq05VD]

Drops are of mIoU over the pixels outside the patch, beyond the random patch of the same range: means over seeds,
with a 95 % interval over blocks of images and seeds, both drawn again, the same ones for all that is compared.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from segpatch.eot import generator_at
from segpatch.metrics import miou
from segpatch.report.crossed import MARGINS
from segpatch.report.record import read_study
from segpatch.results import PatchRecord, TransferResult, read_scores
from segpatch.statistics import interval, over_seeds, resampled_miou, verdict
from segpatch.transfer import bootstrap_counts

SEEDS = 0x7461626C  # "tabl": an address that no training step reaches
CARED_FOR = ("pedestrian", "person", "bicyclist", "rider", "car", "road", "sign_symbol")


class Excess(NamedTuple):
    """What patches cost beyond random: the mean over seeds, and the same in each resample (R,)."""

    drop: float
    resampled: Tensor

    def __str__(self) -> str:
        low, high = interval(self.resampled)
        return f"{self.drop:.3f} [{low:.3f}, {high:.3f}]"


class Measured:
    """The matrix, of all images or those of a drive or city."""

    def __init__(self, study: Path, group: str | None) -> None:
        self.result: TransferResult = read_study(study).matrices["matrix"]
        about = self.result.dataset
        kept = [at for at, one in enumerate(about.groups) if group is None or one == group]
        scores = read_scores(study / "matrix")
        self.counts = bootstrap_counts([about.groups[at] for at in kept], about.block, 0)
        self.images = len(kept)
        self.rows: dict[tuple[str, str, str], Tensor] = {
            (cell.patch, cell.victim, which): scores[f"{index}/{which}"][kept]
            for index, cell in enumerate(self.result.cells)
            for which in ("clean", "clean_outside", "patched")
        }
        self.networks = [victim.name for victim in self.result.victims]
        self.presets = list(
            dict.fromkeys(p.preset for p in self.result.patches if p.kind == "trained" and p.preset)
        )

    @functools.cache  # noqa: B019
    def drop(self, patch: str, victim: str) -> Excess:
        """What one patch costs."""
        clean, patched = (self.rows[patch, victim, which] for which in ("clean_outside", "patched"))
        value = float(miou(clean.sum(0)) - miou(patched.sum(0)))
        return Excess(value, resampled_miou(clean, self.counts) - resampled_miou(patched, self.counts))

    def excess(self, source: str, preset: str, victim: str) -> Excess:
        """What the patches of a network and preset cost a network beyond random, over seeds."""
        found = [patch for patch in self.result.patches if patch.trained_on == [source] and patch.preset == preset]
        control = self.drop(self.control(found[0]), victim)
        drops = [self.drop(patch.name, victim) for patch in found]
        values = torch.stack([one.resampled - control.resampled for one in drops], dim=1)
        mean = over_seeds(values, generator_at(0, SEEDS))
        return Excess(sum(one.drop for one in drops) / len(drops) - control.drop, mean)

    def strongest(self, victim: str) -> str:
        """The control that costs a network most."""
        controls = [p.name for p in self.result.patches if p.kind not in ("none", "trained")]
        return max(controls, key=lambda name: self.drop(name, victim).drop)

    def control(self, patch: PatchRecord) -> str:
        """The random patch of the same range."""
        return next(p.name for p in self.result.patches if p.kind == "random" and p.range == patch.range)


def table(head: list[str], rows: Iterator[list[str]]) -> None:
    """Prints a Markdown table."""
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def said(one: Excess, own: bool) -> str:
    """A figure with its verdict at the paper's margin; bold on the network that the patch was trained on."""
    word = verdict(*interval(one.resampled))
    return f"**{one}** {word}" if own else f"{one} {word}"


def matrices(measured: Measured) -> None:
    """Clean mIoU, controls, and each preset's patches on all networks."""
    networks = measured.networks
    first = measured.result.patches[1].name
    clean = [f"{float(miou(measured.rows[first, name, 'clean'].sum(0))):.3f}" for name in networks]

    def rows() -> Iterator[list[str]]:
        yield ["clean mIoU", *clean]
        for patch in measured.result.patches:
            if patch.kind not in ("none", "trained"):
                yield [f"`{patch.name}`, drop", *(str(measured.drop(patch.name, name)) for name in networks)]
        for preset in measured.presets:
            for source in networks:
                cells = [said(measured.excess(source, preset, name), name == source) for name in networks]
                yield [f"`{source}/{preset}`", *cells]

    table(["patch", *(f"`{name}`" for name in networks)], rows())


def compared(measured: Measured) -> None:
    """Pairs of presets on the network that the patch was trained on."""
    pairs = [(b, a) for a, b in zip(measured.presets, measured.presets[1:], strict=False)]

    def rows() -> Iterator[list[str]]:
        for more, less in pairs:
            cells = []
            for name in measured.networks:
                one, other = (measured.excess(name, preset, name) for preset in (more, less))
                cells.append(str(Excess(one.drop - other.drop, one.resampled - other.resampled)))
            yield [f"`{more}` less `{less}`", *cells]

    table(["own network", *(f"`{name}`" for name in measured.networks)], rows())


def verdicts(measured: Measured) -> None:
    """How many patches, seed by seed, transfer to networks that they were not trained on, at each margin.

    Beyond the random patch, and beyond whichever control costs that network most.
    """

    def count(preset: str, margin: float, strongest: bool) -> str:
        words = []
        for patch in measured.result.patches:
            for name in measured.networks:
                if patch.preset != preset or name in patch.trained_on:
                    continue
                control = measured.strongest(name) if strongest else measured.control(patch)
                one, other = measured.drop(patch.name, name), measured.drop(control, name)
                words.append(verdict(*interval(one.resampled - other.resampled), margin))
        return " / ".join(str(words.count(word)) for word in ("transfers", "does not", "undecided"))

    def rows() -> Iterator[list[str]]:
        for strongest in (False, True):
            beyond = "the strongest control" if strongest else "random"
            for preset in measured.presets:
                yield [f"`{preset}`, beyond {beyond}", *(count(preset, margin, strongest) for margin in MARGINS)]

    table(["transfers / does not / undecided", *(f"margin {margin:g}" for margin in MARGINS)], rows())


def cosines(study: Path, measured: Measured) -> None:
    """Cosines of patch gradients for each pair of networks, beside what patches cost across the pair."""
    cells = read_study(study).cells("alignment")
    at = {cell["at"]: cell for cell in cells if cell["patch"] is None}
    trained = [cell for cell in cells if cell["patch"] is not None]
    names = measured.networks
    preset = measured.presets[-1]

    def rows() -> Iterator[list[str]]:
        for v, one in enumerate(names):
            for w, other in enumerate(names):
                if v < w:
                    known = [
                        f"{cell['cosine'][v][w]:.3f} [{cell['low'][v][w]:.3f}, {cell['high'][v][w]:.3f}]"
                        for cell in at.values()
                    ]
                    along = [cell["cosine"][v][w] for cell in trained if cell["cosine"][v][w] is not None]
                    spread = (
                        f"{sum(along) / len(along):.3f} ({min(along):.3f} to {max(along):.3f})" if along else "-"
                    )
                    there, back = (measured.excess(a, preset, b) for a, b in ((one, other), (other, one)))
                    yield [f"`{one}`, `{other}`", *known, spread, str(there), str(back)]

    head = ["networks", *(f"cosine, {name}" for name in at), "cosine, trained patches, mean (range)"]
    table([*head, f"`{preset}` of the first on the second", "of the second on the first"], rows())


def turned(study: Path) -> None:
    """What the classes that matter most on a road turn into, each network under its own patch."""

    def rows() -> Iterator[list[str]]:
        for cell in read_study(study).cells("locality"):
            for one in cell["classes"]:
                if one["class"].lower() in CARED_FOR and one["drop"]["value"] is not None:
                    low, high = one["drop"]["ci95"]
                    into = ", ".join(
                        f"{new['class']} {new['share']:.1%} [{new['ci95'][0]:.1%}, {new['ci95'][1]:.1%}]"
                        for new in one["turned_into"]
                    )
                    drop = f"{one['drop']['value']:.3f} [{low:.3f}, {high:.3f}]"
                    yield [f"`{cell['patch']}`", one["class"], drop, into]

    table(["patch on its own network", "class", "IoU lost beyond random", "more of its pixels become"], rows())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--group", action="append", default=[], help="a drive or city apart; repeatable")
    options = parser.parse_args()
    for group in (None, *options.group):
        measured = Measured(options.study, group)
        print(f"### {group or 'All'}, {measured.images} images\n")
        parts: list[Callable[[Measured], None]] = [matrices, compared, verdicts]
        for part in parts:
            part(measured)
    whole = Measured(options.study, None)
    if len(whole.networks) > 1:
        cosines(options.study, whole)
    turned(options.study)


if __name__ == "__main__":
    main()
