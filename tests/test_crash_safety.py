"""Runs that are killed, or whose disk fails, and gone on with: the same bytes as a run that was never stopped.

The long ones print what they did (`-s`); docs/results/crash-safety.md is made of that.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from disk import FAULTS, Disk
from jobs import JOBS, SETTINGS, begin, held, no_revision
from segpatch import runs, writing
from segpatch.errors import SegpatchError
from segpatch.models.download import LEDGER
from segpatch.runs import LOCK
from segpatch.studies.rows import FOLDER
from segpatch.writing import leftovers, remove
from test_download import CONTENT, Handler, ranged
from tiny import write_learnable

SEED = int(os.environ.get("SEGPATCH_KILL_SEED", "0"))
KILLS = {"attack": 2, "fit": 1, "transfer": 1, "study": 1}
MANY = {"attack": 13, "fit": 13, "transfer": 12, "study": 12}
MOMENTS = ("before", "within", "after")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_learnable(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def unbroken(data: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The bytes of a job's run that is never stopped, and the seconds it takes, once per job."""
    finish("attack", data, tmp_path_factory.mktemp("first") / "run")  # waits for the server that forks
    done: dict[str, tuple[dict[str, bytes], float]] = {}

    def of(job: str) -> tuple[dict[str, bytes], float]:
        if job not in done:
            out = tmp_path_factory.mktemp(job) / "run"
            start = time.monotonic()
            finish(job, data, out)
            done[job] = held(out), time.monotonic() - start
        return done[job]

    return of


def finish(job: str, data: str, out: Path) -> None:
    process = begin(job, data, out)
    process.join(120)
    assert process.exitcode == 0


def must_be(out: Path, whole: dict[str, bytes]) -> None:
    found = held(out)
    assert found.keys() == whole.keys()
    assert [name for name in whole if found[name] != whole[name]] == []


def must_be_valid(out: Path, whole: dict[str, bytes]) -> None:
    """Every file under its own name is as it will be, or the beginning of what will be appended to; rows of a
    matrix are there until it is whole."""
    for name, content in held(out).items():
        if name.endswith("steps.jsonl"):
            assert whole[name].startswith(content[: content.rfind(b"\n") + 1])
        elif Path(name).name.startswith(".") or name.endswith("state.safetensors"):
            continue
        elif Path(name).parent.name == FOLDER:
            load(content)
        else:
            assert content == whole[name], name


def killed_and_resumed(job: str, data: str, out: Path, unbroken: Any, kills: int) -> Counter[str]:
    """Kills a job at random moments, so many times in all, each time in the run that the last kill left, and a new
    run where it was done by then; what was found."""
    whole, seconds = unbroken(job)
    chance = random.Random(f"{SEED} {job}")
    found: Counter[str] = Counter()
    while found["kills"] < kills:
        place = out / f"{job}{found['done']}"
        process = begin(job, data, place)
        process.join(chance.uniform(0, seconds))
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        if process.exitcode == -signal.SIGKILL:
            found["kills"] += 1
            found["unfinished files left"] += len([n for n in held(place) if n.endswith(".unfinished")])
            must_be_valid(place, whole)
        if process.exitcode == 0 or found["kills"] == kills or chance.random() < 0.5:
            finish(job, data, place)
            must_be(place, whole)
            found["done"] += 1
    return found


@pytest.mark.parametrize("job", KILLS)
def test_killed_at_random_moments(data: str, tmp_path: Path, unbroken: Any, job: str):
    assert killed_and_resumed(job, data, tmp_path, unbroken, KILLS[job])["kills"] == KILLS[job]


@pytest.mark.long
@pytest.mark.parametrize("job", MANY)
def test_killed_at_many_random_moments(data: str, tmp_path: Path, unbroken: Any, job: str):
    found = killed_and_resumed(job, data, tmp_path, unbroken, MANY[job])
    print(f"| {job} | {found['kills']} | {found['done']} | {found['unfinished files left']} |")
    assert found["kills"] == MANY[job]


def killed_at_writes(job: str, data: str, out: Path, whole: dict[str, bytes], every: int) -> int:
    """Kills a job before, within and after its 1st, 1 + every-th .. call that writes, in turn; how many kills."""
    for kills, n in enumerate(range(1, 10_000, every)):
        place = out / str(n)
        process = begin(job, data, place, kill=(n, MOMENTS[kills % 3]))
        process.join(120)
        if process.exitcode == 0:  # it writes less often than that
            must_be(place, whole)
            return kills
        assert process.exitcode == -signal.SIGKILL
        must_be_valid(place, whole)
        finish(job, data, place)
        must_be(place, whole)
    raise AssertionError("the job does not end")


@pytest.mark.parametrize(("job", "every"), [("attack", 8), ("fit", 8)])
def test_killed_at_writes(data: str, tmp_path: Path, unbroken: Any, job: str, every: int):
    assert killed_at_writes(job, data, tmp_path, unbroken(job)[0], every) > 4


@pytest.mark.long
@pytest.mark.parametrize(("job", "every"), [("attack", 1), ("fit", 1), ("transfer", 7), ("study", 53)])
def test_killed_at_many_writes(data: str, tmp_path: Path, unbroken: Any, job: str, every: int):
    print(f"| {job} | {killed_at_writes(job, data, tmp_path, unbroken(job)[0], every)} |")


def test_streets_killed_at_writes(data: str, tmp_path: Path):
    finish("data make", data, tmp_path / "whole")
    assert killed_at_writes("data make", data, tmp_path / "killed", held(tmp_path / "whole"), 8) > 3


@pytest.fixture
def slow() -> Iterator[tuple[str, list[str | None]]]:
    """A server that takes a while over a checkpoint: its address, and from where each request wanted it."""
    asked: list[str | None] = []

    def behave(handler: Handler) -> None:
        asked.append(handler.headers.get("Range"))
        write, handler.wfile.write = handler.wfile.write, lambda body: dribble(write, body)
        with contextlib.suppress(OSError):
            ranged()(handler)

    def dribble(write: Any, body: bytes) -> None:
        for start in range(0, len(body), 4096):
            write(body[start : start + 4096])
            time.sleep(0.004)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.seen, server.content, server.behave = [], CONTENT, behave
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/net.safetensors", asked
        server.shutdown()


def downloads_killed(address: str, out: Path, kills: int) -> None:
    """Kills downloads at random moments, so many times; what is there is whole at any time, and at the end."""
    finish("models download", address, out / "warm")  # waits for the server that forks
    chance, start = random.Random(SEED), time.monotonic()
    finish("models download", address, out / "first")
    seconds = time.monotonic() - start
    for place in (out / str(n) for n in range(kills)):
        code = None
        while code != -signal.SIGKILL:
            process = begin("models download", address, place)
            process.join(chance.uniform(0, seconds))
            if process.exitcode is None:
                os.kill(process.pid, signal.SIGKILL)
                process.join()
            code = process.exitcode
            must_be_valid(place, held(out / "first"))
            if code == 0:
                remove(place)
        finish("models download", address, place)
        visible = {name: content for name, content in held(place).items() if not name.startswith(".")}
        assert visible == {name: content for name, content in held(out / "first").items() if name in visible}
        assert set(visible) == {"net.safetensors", LEDGER}


def test_downloads_killed_at_random_moments(tmp_path: Path, slow: tuple[str, list[str | None]]):
    downloads_killed(slow[0], tmp_path, 2)


@pytest.mark.long
def test_downloads_killed_at_many_moments(tmp_path: Path, slow: tuple[str, list[str | None]]):
    downloads_killed(slow[0], tmp_path, 30)
    assert any(slow[1]), "some went on where they ended"


def failed_at_writes(job: str, data: str, out: Path, whole: dict[str, bytes], fault: str, every: int) -> int:
    """Lets each `every`-th call fail that a fault concerns, once and for good in turn; how many failed."""
    for failures, n in enumerate(range(1, 10_000, every)):
        place, lasting = out / str(n), bool(failures % 2)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(writing, "os", Disk(fault, n, lasting=lasting))
            if not fails(job, data, place):
                must_be(place, whole)
                return failures
        if place.exists():
            must_be_valid(place, whole)
            assert lasting or not leftovers(place, LOCK)
        JOBS[job](data, place)
        must_be(place, whole)
    raise AssertionError("the job does not end")


def fails(job: str, data: str, out: Path) -> bool:
    """Whether a job ends with an error of one line."""
    try:
        JOBS[job](data, out)
    except SegpatchError as error:
        assert str(error).startswith("cannot write to ") and "\n" not in str(error)
        return True
    return False


@pytest.fixture
def as_in_a_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in SETTINGS.items():
        monkeypatch.setattr(runs, name, value)
    monkeypatch.setattr("segpatch.machine.git_revision", no_revision)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the jobs that run in processes of their own; it is part of the record
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("as_in_a_process")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_disk_that_fails(data: str, tmp_path: Path, unbroken: Any, fault: str):
    assert failed_at_writes("attack", data, tmp_path, unbroken("attack")[0], fault, 3) > 2


@pytest.mark.long
@pytest.mark.usefixtures("as_in_a_process")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("job", "every"), [("attack", 1), ("fit", 1), ("transfer", 7), ("study", 53)])
def test_a_disk_that_fails_at_any_write(
    data: str, tmp_path: Path, unbroken: Any, fault: str, job: str, every: int
):
    failures = failed_at_writes(job, data, tmp_path, unbroken(job)[0], fault, every)
    print(f"| {job} | {fault} | {failures} |")
