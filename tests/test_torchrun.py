"""Two real processes, started as a user starts them, against one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from segpatch.cli import main
from segpatch.data import CITYSCAPES
from segpatch.models.checkpoints import read_checkpoint, write_network
from segpatch.models.networks import MODELS
from segpatch.patch import load_patch
from segpatch.runs import read_json, read_steps
from tiny import write_learnable

TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "segpatch")


def two(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *TWO, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Runs a command line in this process, with one thread as each of the two has."""

    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["segpatch", *map(str, arguments)])
        with pytest.raises(SystemExit, match=r"^0$"):
            main()

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield run
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("torchrun")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_network(root / "n.safetensors", MODELS["segformer-b0"].default.build(19, auxiliary=False), {})
    write_learnable(root / "data", train=3, val=5, classes="\n".join(CITYSCAPES.names), size=(48, 64))
    return root


def test_two_processes_make_the_patch_and_the_matrix_of_one(place: Path, tmp_path: Path, one: Callable[..., None]):
    given = ["--victim", f"segformer-b0={place}/n.safetensors", "--data", f"folder:{place}/data"]
    short = ["--steps", 2, "--batch-size", 3, "--patch-size", 8]
    done = two("transfer", *given, *short, "--place", "drawn", "--out", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("results: ") == 1 and done.stderr.count("measure: 5/5") == 1
    cell = "cells/segformer-b0_paper_s0"
    one("attack", *given, *short, "--out", tmp_path / "one")
    patches = [load_patch(path) for path in (tmp_path / "one", tmp_path / "two" / cell)]
    moved = (patches[0].pixels != patches[1].pixels).float().mean()  # the sign of a gradient of 0 may be either
    assert moved < 0.02
    for row, other in zip(read_steps(tmp_path / "one"), read_steps(tmp_path / "two" / cell), strict=True):
        assert row == pytest.approx(other, rel=1e-3)
    assert read_json(tmp_path / "two/environment.json")["processes"] == 2
    # The same patch measured by one: the same bits.
    again = ["--patch", tmp_path / "two" / cell, "--place", "drawn", "--out", tmp_path / "again"]
    one("evaluate", *given, *again)
    names = ("transfer.csv", "scores.safetensors")
    assert [(tmp_path / "two" / name).read_bytes() for name in names] == [
        (tmp_path / "again" / name).read_bytes() for name in names
    ]


def test_two_processes_fit_one_network(place: Path, tmp_path: Path):
    short = ["--steps", 2, "--batch-size", 4, "--crop", 48]
    done = two("fit", "--model", "segformer-b0", "--data", f"folder:{place}/data", *short, "--out", tmp_path / "f")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mIoU") == 1 and len(read_steps(tmp_path / "f")) == 2
    weights = read_checkpoint(tmp_path / "f/network.safetensors")[0]
    assert all(value.isfinite().all() for value in weights.values())


def test_what_the_user_can_mend_is_said_once(place: Path, tmp_path: Path):
    broken = place / "data/images/train/train2.png"
    whole = broken.read_bytes()
    broken.write_bytes(b"no picture")  # in the share of one process alone
    given = ["--victim", f"segformer-b0={place}/n.safetensors", "--data", f"folder:{place}/data"]
    done = two("attack", *given, "--steps", 1, "--batch-size", 3, "--patch-size", 8, "--out", tmp_path / "a")
    broken.write_bytes(whole)
    assert done.returncode == 1 and done.stdout == ""
    assert sum(line.startswith("segpatch: ") for line in done.stderr.splitlines()) == 1
    assert "train2.png" in done.stderr and not (tmp_path / "a").exists()
