"""The tables of the result pages, as Markdown, from a finished `segpatch study paper` run.

    python docs/results/tables.py STUDY [--group Seq05VD]

Drops are of mIoU over the pixels outside the patch, beyond the random patch of the same range: means over seeds,
with a 95 % interval over blocks of images and seeds, both drawn again, the same ones for all that is compared.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

from segpatch.report.crossed import MARGINS
from segpatch.report.excess import Drop, Drops, trainings
from segpatch.report.record import read_study
from segpatch.statistics import interval, verdict

CARED_FOR = ("pedestrian", "person", "bicyclist", "rider", "car", "road", "sign_symbol")


class Measured:
    """The matrix, of all images or those of a drive or city."""

    def __init__(self, study: Path, group: str | None) -> None:
        self.result = read_study(study).matrices["matrix"]
        self.drops = Drops(study / "matrix", self.result, group)
        self.networks = [victim.name for victim in self.result.victims]
        self.trainings = trainings(self.result)
        self.presets = list(dict.fromkeys(preset for _, preset in self.trainings))
        self.controls = [patch for patch in self.result.patches if patch.kind not in ("none", "trained")]

    def excess(self, sources: tuple[str, ...], preset: str, victim: str) -> Drop:
        """What the patches of a training cost a network beyond random, over seeds."""
        patches = self.trainings[sources, preset]
        return self.drops.mean(patches, victim, self.drops.random(patches[0]))

    def said(self, drop: Drop, margin: float = 0.01) -> str:
        """Its verdict at a margin."""
        return verdict(*interval(drop.resampled), margin, self.drops.blocks)


def figure(drop: Drop) -> str:
    """A drop with its interval."""
    low, high = interval(drop.resampled)
    return f"{drop.value:.3f} [{low:.3f}, {high:.3f}]"


def table(head: list[str], rows: Iterator[list[str]]) -> None:
    """Prints a Markdown table."""
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def matrices(measured: Measured) -> None:
    """Clean mIoU, controls, and each training on all networks, in bold on its own."""
    networks, drops = measured.networks, measured.drops
    whole = next(patch for patch in measured.result.patches if patch.kind == "none")

    def cell(sources: tuple[str, ...], preset: str, victim: str) -> str:
        drop = measured.excess(sources, preset, victim)
        shown = f"**{figure(drop)}**" if victim in sources else figure(drop)
        return f"{shown} {measured.said(drop)}"

    def rows() -> Iterator[list[str]]:
        yield ["clean mIoU", *(f"{drops.clean(whole, name):.3f}" for name in networks)]
        for patch in measured.controls:
            yield [f"`{patch.name}`, drop", *(figure(drops.of(patch.name, name)) for name in networks)]
        for preset in measured.presets:
            for sources, other in measured.trainings:
                if other == preset:
                    yield [f"`{'+'.join(sources)}/{preset}`", *(cell(sources, preset, name) for name in networks)]

    table(["patch", *(f"`{name}`" for name in networks)], rows())


def compared(measured: Measured) -> None:
    """Pairs of presets on the network that the patch was trained on."""
    pairs = [(b, a) for a, b in zip(measured.presets, measured.presets[1:], strict=False)]

    def rows() -> Iterator[list[str]]:
        for more, less in pairs:
            cells = []
            for name in measured.networks:
                one, other = (measured.excess((name,), preset, name) for preset in (more, less))
                cells.append(figure(one.less(other)))
            yield [f"`{more}` less `{less}`", *cells]

    table(["own network", *(f"`{name}`" for name in measured.networks)], rows())


def verdicts(measured: Measured) -> None:
    """How many patches, seed by seed, transfer to networks that they were not trained on, at each margin.

    Beyond the random patch, and beyond whichever control costs that network most.
    """
    drops = measured.drops

    def count(preset: str, margin: float, strongest: bool) -> str:
        words = []
        for (sources, other), patches in measured.trainings.items():
            for patch in patches if other == preset else ():
                for name in measured.networks:
                    if name not in sources:
                        control = drops.strongest(patch, name) if strongest else drops.random(patch)
                        words.append(measured.said(drops.mean([patch], name, control), margin))
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
                    there, back = (measured.excess((a,), preset, b) for a, b in ((one, other), (other, one)))
                    yield [f"`{one}`, `{other}`", *known, spread, figure(there), figure(back)]

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
        print(f"### {group or 'All'}, {measured.drops.images} images\n")
        parts: list[Callable[[Measured], None]] = [matrices, compared, verdicts]
        for part in parts:
            part(measured)
    whole = Measured(options.study, None)
    if len(whole.networks) > 1:
        cosines(options.study, whole)
    turned(options.study)


if __name__ == "__main__":
    main()
