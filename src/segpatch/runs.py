"""Run directories: what was asked, on what machine, what happened step by step, and how to go on.

run.lock           held by the process that writes here; a killed process does not keep it
config.json        the resolved configuration, enough to run it again
environment.json   versions, device, git revision
steps.jsonl        one line a step
state.safetensors  what --resume needs; gone once the run is finished
(results)          written last, so a directory that holds its result is a finished run
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from filelock import BaseFileLock, FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from segpatch import machine
from segpatch.errors import BadInput, Lost, SegpatchError, in_line
from segpatch.processes import ALONE, Processes
from segpatch.reading import read_bytes, read_text
from segpatch.writing import append_line, guarded, leftovers, remove, write_whole

LOCK = "run.lock"
STATE = "state.safetensors"
DIGEST = "sha256"
KEPT = (STATE, "patch.safetensors", "network.safetensors")
"""What a run that ends with an error is kept for, its own or that of a part."""
_NO_STATE = (SafetensorError, OSError, LookupError, TypeError, AttributeError, ValueError, RecursionError)
T = TypeVar("T")
STATE_EVERY_STEPS = 50
STATE_EVERY_SECONDS = 30.0


@dataclass
class Run:
    """An open run directory, this process's alone until it is left (`with open_run(...) as run`).

    finished: its result is already there. Of several processes the first one writes; all may call everything here.
    """

    directory: Path
    finished: bool = False
    processes: Processes = ALONE
    _new: bool = False
    _lock: BaseFileLock | None = None
    _saved_step: int = 0
    _saved_at: float = field(default_factory=time.monotonic)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        if self._lock is not None:
            self._lock.release()

    def append_step(self, row: Mapping[str, Any]) -> None:
        """Adds a line to steps.jsonl."""
        if not self.processes.first:
            return
        append_line(self.directory / "steps.jsonl", json.dumps(_plain(row)))

    def state_is_due(self, step: int) -> bool:
        """Whether both 50 steps and 30 seconds have passed since the state was last saved."""
        return (
            step - self._saved_step >= STATE_EVERY_STEPS
            and time.monotonic() - self._saved_at >= STATE_EVERY_SECONDS
        )

    def save_state(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Replaces state.safetensors; the old one stays whole until the new one is."""
        if not self.processes.first:
            return
        # Copies, because safetensors refuses tensors that share memory: the latest patch may be the best one.
        content = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
        about = json.dumps({"step": step, **facts, DIGEST: _digest(content, {"step": step, **facts})})
        write_whole(self.directory / STATE, save(content, metadata={"segpatch": about}))
        self._saved_step, self._saved_at = step, time.monotonic()

    def load_state(self, build: Callable[[dict[str, Tensor], dict[str, Any]], T]) -> T | None:
        """What `build` makes of the saved tensors and facts, or None; steps written after that are forgotten."""
        loaded = self.processes.by_first(self._read_state)
        try:
            return build(*loaded) if loaded else None
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(
                f"{self.directory / STATE} is no state of such a run ({error!r}); start again with --overwrite"
            ) from error

    def _read_state(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        path = self.directory / STATE
        if not path.is_file():
            remove(self.directory / "steps.jsonl")
            return None
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                facts = json.loads(file.metadata()["segpatch"])
            held = facts.pop(DIGEST, None)  # which states of earlier versions lack
            if held is not None and held != _digest(tensors, facts):
                raise ValueError("it is not what was saved")
            step = int(facts["step"])
        except _NO_STATE as error:
            raise BadInput(f"{path} is damaged ({error}); start again with --overwrite") from error
        rows = [row for row in read_steps(self.directory) if row["step"] <= step]
        if len(rows) != step or any(row["step"] != at for at, row in enumerate(rows, start=1)):
            raise BadInput(
                f"{self.directory / 'steps.jsonl'} lacks steps of the run; start again with --overwrite"
            )
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        write_whole(self.directory / "steps.jsonl", lines.encode())
        self._saved_step = step
        return tensors, facts

    @contextlib.contextmanager
    def kept_if_begun(self) -> Iterator[None]:
        """Removes a new directory again where something that the user can mend ends the run with nothing to go on
        from: no state, no finished part; else the error says that it is kept."""
        try:
            yield
        except Lost:
            if self._new and not any(self.directory.rglob("steps.jsonl")):
                shutil.rmtree(self.directory, ignore_errors=True)
            raise
        except SegpatchError as error:
            parts = (path for name in KEPT for path in self.directory.rglob(name))
            if any(path.with_name("config.json").is_file() for path in parts):
                if "--resume" in str(error):
                    raise
                raise type(error)(
                    f"{error}; {self.directory} is kept: --resume goes on if its data are still the same, "
                    "--overwrite begins anew"
                ) from error
            if self._new:
                shutil.rmtree(self.directory, ignore_errors=True)
            raise

    def finish(self) -> None:
        """Removes the state that a finished run no longer needs."""
        if self.processes.first:
            remove(self.directory / STATE)
        self.finished = True


def open_run(
    directory: Path,
    config: Mapping[str, Any],
    result: str,
    *,
    resume: bool = False,
    overwrite: bool = False,
    processes: Processes = ALONE,
    patience: float = 0.0,
) -> Run:
    """A run directory to write to, with config.json and environment.json in it.

    result: the file whose presence means that the run is finished. An existing run is refused (BadInput)
    unless `resume` (then its config must be the same, but for "argv") or `overwrite` (then it is removed
    first). A directory that holds something else than a run is never touched, and one that another process
    writes to is refused, after `patience` seconds.
    """
    locks: list[BaseFileLock] = []

    def prepare() -> tuple[bool, bool]:
        if resume and not overwrite and (directory / result).is_file():
            _must_be_same(directory, _plain(config))
            _tidy(directory)
            return True, False
        machine.git_revision()  # first: what asks git would outlive this process by a moment, with its lock
        locks.append(_locked(directory, patience))
        try:
            return _prepare(directory, _plain(config), result, resume, overwrite)
        except BaseException:
            locks.pop().release()
            raise

    finished, new = processes.by_first(prepare)
    return Run(directory, finished, processes, _new=new and processes.first, _lock=locks[0] if locks else None)


def _locked(directory: Path, patience: float) -> BaseFileLock:
    """The lock of a directory, which is made where it is not there; refused where another process has it."""
    _refuse_other(directory)
    with guarded(directory):
        directory.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(directory / LOCK, timeout=patience)
            lock.acquire()
        except Timeout as error:
            raise BadInput(
                f"another process is writing to {directory}; wait until it is done, or choose another --out"
            ) from error
    return lock


def _refuse_other(directory: Path) -> None:
    """BadInput for what is there and is no run."""
    if directory.exists() and (not directory.is_dir() or (any(directory.iterdir()) and not _is_run(directory))):
        raise BadInput(f"{directory} exists and is no segpatch run; choose another --out")


def _is_run(directory: Path) -> bool:
    """Whether a directory is ours; the lock comes first, so one with nothing else was stopped at the start."""
    return (directory / LOCK).is_file() or (directory / "config.json").is_file()


def _must_be_same(directory: Path, config: Mapping[str, Any]) -> None:
    """BadInput where the run in the directory is of another config."""
    before = read_json(directory / "config.json")
    if not isinstance(before, dict):
        raise BadInput(f"{directory / 'config.json'} is damaged (no table); start again with --overwrite")
    changed = sorted(k for k in {*before, *config} if k != "argv" and before.get(k) != config.get(k))
    if changed:
        raise BadInput(
            f"{directory} holds a run with another {in_line(', '.join(changed))}; resume with the same settings "
            "or choose another --out"
        )


def _prepare(
    directory: Path, config: Mapping[str, Any], result: str, resume: bool, overwrite: bool
) -> tuple[bool, bool]:
    """Whether the run is finished, and whether its directory is new."""
    held = (directory / "config.json").is_file()
    for path in leftovers(directory, LOCK):
        remove(path)
    if held and overwrite:
        # The result first and the config last: at no instant does a result stand beside another run's config.
        entries = {entry.name: entry for entry in directory.iterdir() if entry.name != LOCK}
        for name in sorted(entries, key=lambda name: (name == "config.json", name != result)):
            remove(entries[name])
    elif held and not resume:
        raise BadInput(f"{directory} already holds a run; use --resume, --overwrite or another --out")
    elif held:
        _must_be_same(directory, config)
        return (directory / result).exists(), False
    with Run(directory, _new=True).kept_if_begun():
        write_json(directory / "environment.json", machine.environment())
        write_json(directory / "config.json", config)
    return False, True


def _tidy(directory: Path) -> None:
    """Removes what a process killed after its result left in a finished run, unless that is still at work."""
    left = [directory / STATE, *leftovers(directory, LOCK)]
    if any(path.exists() for path in left):
        with contextlib.suppress(SegpatchError):
            lock = _locked(directory, 0.0)
            try:
                for path in left:
                    remove(path)
            finally:
                lock.release()


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, indented; NaN becomes null; the file appears whole or not at all."""
    write_whole(path, (json.dumps(_plain(content), indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """The content of a JSON file; BadInput where it is none."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is no readable JSON file ({error})") from error


def read_steps(directory: Path) -> list[dict[str, Any]]:
    """The rows of steps.jsonl; a last line cut short by a crash is left out, and so is what is no step."""
    path = directory / "steps.jsonl"
    rows = []
    if path.is_file():
        for line in read_bytes(path).decode(errors="replace").splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                row = json.loads(line)
                if isinstance(row, dict) and isinstance(row.get("step"), int):
                    rows.append(row)
    return rows


def _digest(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    """Of a state, so that one that a disk or a hand has changed is not gone on with."""
    return hashlib.sha256(json.dumps(facts).encode() + save(dict(tensors))).hexdigest()


def _plain(content: Any) -> Any:
    """JSON-ready: tuples as lists, paths as text, NaN and infinity as null."""
    if isinstance(content, Mapping):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, str | int | bool) or content is None:
        return content
    if isinstance(content, float):
        return content if content == content and abs(content) != float("inf") else None
    if isinstance(content, Path):
        return str(content)
    if isinstance(content, Iterable):
        return [_plain(value) for value in content]
    raise TypeError(f"cannot write {type(content).__name__} as JSON")
