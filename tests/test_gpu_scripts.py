"""The scripts of benchmarks/gpu at a tiny size on a CPU: they run from end to end, and keep what they finished."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from segpatch.models.networks import MODELS
from segpatch.report import write_report
from segpatch.report.record import read_study
from segpatch.results import read_scores
from segpatch.studies.paper import run_paper
from segpatch.studies.progress import Progress
from test_study_paper import PLAN, VICTIMS
from tiny import TINY_SPEC, learnable_dataset

SCRIPTS = Path(__file__).parents[1] / "benchmarks/gpu"
SMALL = ["--height", "32", "--train", "20", "--val", "2", "--fit-steps", "2", "--steps", "2"]


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tiny", "tiny-too"):
        monkeypatch.setitem(MODELS, name, TINY_SPEC)
    for folder in (SCRIPTS, SCRIPTS.parent):
        monkeypatch.syspath_prepend(folder)


@pytest.fixture
def kept() -> ModuleType:
    import kept

    return kept


def run(script: str, *options: object) -> None:
    """The script in this process, so that it knows the tiny networks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(SCRIPTS / script), *map(str, options)])
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")


def unpack(out: Path, into: Path) -> Path:
    into.mkdir()
    parts = sorted(out.glob("run.tar.xz.*"))
    subprocess.run("cat " + " ".join(map(str, parts)) + f" | tar -xJi -C {into}", shell=True, check=True)
    return into


@pytest.mark.long
@pytest.mark.parametrize(
    ("script", "more", "matrices", "parts"),
    [
        ("3_networks.py", ["--network", "tiny", "--network", "tiny-too"], 1, {"drives", "alignment", "locality"}),
        ("4_losses.py", ["--network", "tiny"], 1, set()),
        ("5_full_size.py", ["--network", "tiny"], 1, {"curves", "sizes", "locality"}),
        ("6_ablations.py", ["--network", "tiny", "--ablation", "scenes", "--ablation", "place"], 2, {"distances"}),
    ],
)
def test_a_study_runs_and_is_kept(tmp_path: Path, script: str, more: list[str], matrices: int, parts: set[str]):
    run(script, "--out", tmp_path / "out", *SMALL, *more)
    facts = json.loads((tmp_path / "out/fits.json").read_text())
    assert facts["left_out"] == [] and "stopped" not in facts and set(facts["fits"]) <= {"tiny", "tiny-too"}
    assert len(list((tmp_path / "out").iterdir())) == 2, "the fits, and one part of the archive"
    study = read_study(unpack(tmp_path / "out", tmp_path / "run"))
    assert len(study.matrices) == matrices
    assert {name.split("/")[0] for name in study.record["cells"]} == parts
    for name, result in study.matrices.items():
        assert read_scores(study.directory / name)["0/patched"].shape == (result.dataset.images, 19, 19)
        assert (study.directory / name / "report/plots").is_dir()
    assert (study.directory / "report/index.html").is_file()
    write_report(study.directory, tmp_path / "again")


def test_a_run_that_is_cut_off_keeps_what_it_finished(
    tmp_path: Path, kept: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    """A part at a time, and stopped as if killed: nothing is kept after the last look."""
    monkeypatch.setattr("segpatch.studies.matrix.write_report", lambda run, out, **how: None)  # the last line's
    data, out = learnable_dataset(tmp_path / "data"), tmp_path / "out"
    out.mkdir()
    keeper = kept.Keeper(tmp_path / "s", out, time.monotonic() + 600)

    def until_cut_off(progress: Progress) -> None:
        keeper.keep()
        if progress.stage == "alignment/b_paper_s0@4":
            raise KeyboardInterrupt

    plan = replace(PLAN, presets=("paper",), seeds=(0,), only=("alignment",))
    with pytest.raises(KeyboardInterrupt):
        run_paper(VICTIMS, data, plan, tmp_path / "s", on_progress=until_cut_off)
    found = unpack(out, tmp_path / "unpacked")
    done = {"clean", "random", "a_paper_s0@2", "a_paper_s0@4", "b_paper_s0@2"}
    assert {path.parent.name for path in found.glob("cells/alignment/*/result.json")} == done
    assert (found / "matrix/cells/b_paper_s0/steps.jsonl").is_file()
    unpacked = {path.relative_to(found) for path in found.rglob("*") if path.is_file()}
    assert all((found / path).read_bytes() == (tmp_path / "s" / path).read_bytes() for path in unpacked)
    assert not any({"snapshots", "scenes"} & set(path.parts) for path in unpacked)
    ours, theirs = read_scores(found / "matrix"), read_scores(tmp_path / "s/matrix")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    write_report(found / "matrix", tmp_path / "page")


def test_the_archive_is_cut_into_parts_and_says_what_had_no_room(
    tmp_path: Path, kept: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    files = {"a.bin": 900, "b.bin": 300, "scores.safetensors": 5000}
    (tmp_path / "s").mkdir()
    (tmp_path / "out").mkdir()
    for name, size in files.items():
        (tmp_path / "s" / name).write_bytes(torch.randint(256, (size,), dtype=torch.uint8).numpy().tobytes())
    monkeypatch.setattr(kept, "PART", 1000)
    keeper = kept.Keeper(tmp_path / "s", tmp_path / "out", 0.0)
    keeper.keep()
    keeper.keep()  # nothing is new
    assert [path.stat().st_size < 1000 for path in sorted((tmp_path / "out").iterdir())] == [False, True]
    assert keeper.left_out == ["scores.safetensors"]
    found = unpack(tmp_path / "out", tmp_path / "unpacked")
    assert {p.name: p.read_bytes() for p in found.iterdir()} == {
        name: (tmp_path / "s" / name).read_bytes() for name in ("a.bin", "b.bin")
    }


def test_the_deadline_stops_a_run_and_what_is_finished_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: ModuleType
):
    import fitted

    asked = SimpleNamespace(out=tmp_path / "out", minutes=9.0, until=8.0, height=32, train=2, val=2, fit_steps=1)
    begin = kept.Keeper.__call__

    def late(self: Any, progress: Progress) -> None:
        self.deadline -= 1e9 * progress.stage.startswith("measure")
        begin(self, progress)

    monkeypatch.setattr(kept.Keeper, "__call__", late)
    plan = replace(PLAN, presets=("paper",), seeds=(0,), only=("matrix",), overrides={"steps": 1})
    fitted.study(asked, ["tiny"], plan, fitted.recipe(asked))
    facts = json.loads((tmp_path / "out/fits.json").read_text())
    assert facts["stopped"] == "stopped in measure" and facts["fits"]["tiny"]["miou"] >= 0
    assert (unpack(tmp_path / "out", tmp_path / "run") / "matrix/cells/tiny_paper_s0/patch.png").is_file()


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("[1-9]_*.py")))
def test_every_script_says_what_it_takes(script: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="0"):
        run(script, "--help")
    assert "--out" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        run(script, "--out", "x", "--nonsense")


def test_the_hours_of_table_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import table1

    timing = SimpleNamespace(median=3.6)
    row = SimpleNamespace(timings={"step": timing, "evaluation": timing})
    monkeypatch.setattr(table1, "bench_network", lambda name, plan, device: row)
    monkeypatch.setattr(table1, "decoding_seconds", lambda repeats: 0.0)
    run("2_table1.py", "--out", tmp_path, "--precision", "bf16")
    hours = json.loads((tmp_path / "table1.json").read_text())["hours"]
    assert hours["patch of pidnet-s"] == pytest.approx(14_880 * 6 * 3.6 / 3600)
    assert hours["8 rows on pidnet-s"] == pytest.approx(500 * 8 * 3.6 / 5 / 3600)


@pytest.mark.long
def test_speed(tmp_path: Path):
    run("1_speed.py", "--out", tmp_path, "--network", "pidnet-s", "--size", 64, "--repeats", 1)
    rows = json.loads((tmp_path / "speed.json").read_text())["rows"]
    assert [row["plan"]["precision"] for row in rows] == ["fp32", "bf16"]
