"""A catalogue of the patches below a folder: what each is, where it lies, and what runs there measured of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segpatch.errors import SegpatchError
from segpatch.patch import Patch, load_patch, says_patch
from segpatch.results import Pair, read_transfer


@dataclass(frozen=True)
class Measured:
    """What a run measured of a patch on a network; over_random, interval and verdict where there is a control."""

    run: str
    data: str
    images: int
    victim: str
    white_box: bool
    drop: float | None
    ci95: Pair
    over_random: float | None = None
    over_random_ci95: Pair | None = None
    verdict: str | None = None


@dataclass(frozen=True)
class Entry:
    """A patch of the catalogue: all files that hold its exact pixels, relative to the folder, and all cells."""

    patch: Patch
    files: tuple[str, ...]
    measured: tuple[Measured, ...]

    @property
    def own(self) -> list[Measured]:
        """The cell of each network that it was trained on: of several runs, that of the most images."""
        best: dict[str, Measured] = {}
        for cell in self.measured:
            if cell.white_box and (cell.victim not in best or cell.images > best[cell.victim].images):
                best[cell.victim] = cell
        return list(best.values())

    @property
    def drop(self) -> float:
        """The largest drop of a network that it was trained on; below all others where none is known."""
        return max((cell.drop for cell in self.own if cell.drop is not None), default=float("-inf"))

    def facts(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            **self.patch.facts(),
            "file": self.files[0],
            "files": list(self.files),
            "measured": [asdict(cell) for cell in self.measured],
        }


def catalogue(directory: Path) -> list[Entry]:
    """The patches below a folder by name, each once however often it lies there.

    Of PNGs, those that say they are patches, unless they stand beside the patch file that they picture. Files of
    another kind, and runs that cannot be read, are passed over.
    """
    found: dict[str, tuple[Patch, list[str]]] = {}
    for path in _files(directory):
        with contextlib.suppress(SegpatchError):
            patch = load_patch(path)
            found.setdefault(patch.sha256(), (patch, []))[1].append(path.relative_to(directory).as_posix())
    measured = _measured(directory)
    entries = [Entry(patch, tuple(files), tuple(measured.get(sha, ()))) for sha, (patch, files) in found.items()]
    return sorted(entries, key=lambda entry: (entry.patch.name, entry.files))


def _files(directory: Path) -> Iterator[Path]:
    """Candidates, those with the shortest way first."""
    for path in sorted(directory.rglob("*"), key=lambda path: (len(path.parts), path)):
        if path.suffix == ".safetensors" and path.parent.name != "snapshots":
            yield path
        if path.suffix.lower() == ".png" and not path.with_suffix(".safetensors").exists() and says_patch(path):
            yield path


def _measured(directory: Path) -> dict[str, list[Measured]]:
    """All cells of the runs below a folder, by the SHA-256 of their patch."""
    out: dict[str, list[Measured]] = {}
    for path in sorted(directory.rglob("transfer.json")):
        with contextlib.suppress(SegpatchError):
            result = read_transfer(path.parent)
            sha = {patch.name: patch.sha256 for patch in result.patches}
            for cell in result.cells:
                over, key = cell.over_random, sha.get(cell.patch)
                if key:
                    out.setdefault(key, []).append(
                        Measured(
                            run=path.parent.relative_to(directory).as_posix(),
                            data=f"{result.dataset.kind} {result.dataset.split}",
                            images=result.dataset.images,
                            victim=cell.victim,
                            white_box=cell.white_box,
                            drop=cell.miou_drop,
                            ci95=cell.ci95,
                            over_random=over.drop if over else None,
                            over_random_ci95=over.ci95 if over else None,
                            verdict=over.verdict if over and not cell.white_box else None,
                        )
                    )
    return out
