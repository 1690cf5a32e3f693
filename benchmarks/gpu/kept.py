"""What a study leaves behind, as it goes: an archive in a few parts.

    cat DIR/run.tar.xz.* | tar -xJi        (i: the archive is a chain of archives)

A run that is cut off at any moment keeps what it had finished until some seconds before. What comes out is the run
directory with plots, tables and the confusion matrices of each image, for `segpatch report`. Left out are weights,
index maps of scenes, patches on the way, rows of a matrix not yet whole, and pages of single matrices, which that
command makes again.
"""

from __future__ import annotations

import contextlib
import io
import lzma
import tarfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from segpatch.studies.attack import PATCH_FILE, SNAPSHOTS
from segpatch.studies.progress import Progress
from segpatch.studies.rows import FOLDER
from segpatch.writing import UNFINISHED

PART = 15 << 20
"""Bytes of a part."""
PARTS = 4
EVERY = 15.0
"""Seconds between looks at what is new, while the run goes on."""
_FAST = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 26}]  # finds the clean rows, which repeat


class OutOfTime(Exception):
    """The run was to stop now."""


class Keeper:
    """Adds what is new of a run directory to the archive in `out`, every few seconds while it is entered and when
    it is left; stops the run at a deadline.

    Made to be the `on_progress` of a study. deadline: on `time.monotonic`. left_out: what there was no room for.
    """

    def __init__(self, run: Path, out: Path, deadline: float) -> None:
        self.run, self.out, self.deadline = run, out, deadline
        self.left_out: list[str] = []
        self._seen: dict[Path, int] = {}
        self._written = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Keeper:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()
        self.keep()

    def __call__(self, progress: Progress) -> None:
        """Prints a stage as it ends; raises OutOfTime after the deadline."""
        if progress.done == progress.total:
            print(progress.stage, progress.note, flush=True)
        if time.monotonic() > self.deadline:
            raise OutOfTime(f"stopped in {progress.stage}")

    def keep(self) -> None:
        """Adds the finished files that are new or have changed; each matrix's raw counts last, which are large."""
        found = {path: path.stat().st_mtime_ns for path in finished_files(self.run)}
        new = [path for path, changed in found.items() if self._seen.get(path) != changed]
        large = [path for path in new if path.name == "scores.safetensors"]
        for paths in ([path for path in new if path not in large], *([path] for path in large)):
            if paths:
                self._add(paths)
                self._seen |= {path: found[path] for path in paths}

    def _watch(self) -> None:
        while not self._done.wait(EVERY):
            with contextlib.suppress(OSError):  # a file that went meanwhile; the next look finds the rest
                self.keep()

    def _add(self, paths: Sequence[Path]) -> None:
        packed = lzma.compress(_tar(self.run, paths), filters=_FAST)
        if self._written + len(packed) > PART * PARTS:
            self.left_out += [str(path.relative_to(self.run)) for path in paths]
            return
        while packed:
            number, used = divmod(self._written, PART)
            with (self.out / f"run.tar.xz.{number}").open("ab") as part:
                self._written += part.write(packed[: PART - used])
            packed = packed[PART - used :]


def finished_files(run: Path) -> Iterator[Path]:
    """The files of a run directory that are whole, but for what is left out."""
    for path in sorted(path for path in run.rglob("*") if path.is_file()):
        inside = path.relative_to(run)
        left = [folder for folder in path.parents if folder.name in (SNAPSHOTS, "scenes", FOLDER)]
        page_of_matrix = path.name == "index.html" and inside.parts[0] != "report"
        unfinished = path.name.endswith(UNFINISHED) or path.name in ("run.lock", "state.safetensors")
        training = path.name == "steps.jsonl" and not (path.parent / PATCH_FILE).exists()
        if page_of_matrix or unfinished or training:
            continue
        if all((folder / "config.json").exists() for folder in left):  # the run of an ablation may be named so
            yield path


def _tar(root: Path, paths: Sequence[Path]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path in paths:
            archive.add(path, path.relative_to(root))
    return out.getvalue()
