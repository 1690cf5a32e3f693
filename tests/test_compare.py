"""Two runs side by side, on tiny networks and made-up rows with known answers; and the gate."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from segpatch.cli import main
from segpatch.errors import BadInput, Missing, SegpatchError
from segpatch.metrics import miou
from segpatch.report.compare import compare, gate, matrix_run, sentences, write_comparison
from segpatch.results import read_scores, read_transfer
from segpatch.statistics import interval, resampled_miou
from segpatch.studies.matrix import run_matrix
from segpatch.studies.planned import MatrixPlan
from segpatch.transfer import bootstrap_counts
from tiny import conv_victim, learnable_dataset

PLAN = MatrixPlan(
    overrides={"steps": 2, "batch_size": 2, "patch_size": (4, 4), "crop": (10, 10)}, batch_size=2, pictures=0
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same networks, one patch seed more in the second run."""
    root = tmp_path_factory.mktemp("runs")
    data = learnable_dataset(root / "data")
    victims = [conv_victim(0, name="a"), conv_victim(1, name="b")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segpatch.studies.matrix.write_report", lambda run, out, **how: None)  # pages of their own
        run_matrix(victims, data, PLAN, root / "first")
        run_matrix(victims, data, replace(PLAN, seeds=(0, 1)), root / "second")
    return root / "first", root / "second"


def worsened(run: Path, out: Path, **changes: Any) -> Path:
    """A copy of a run in which every trained patch makes all pixels wrong on network a."""
    record = json.loads((run / "transfer.json").read_text())
    scores = read_scores(run)
    trained = {patch["name"] for patch in record["patches"] if patch["kind"] == "trained"}
    for index, cell in enumerate(record["cells"]):
        if cell["patch"] in trained and cell["victim"] == "a":
            rows = torch.diag_embed(scores[f"{index}/patched"].sum(2)).roll(1, 2)
            scores[f"{index}/patched"] = rows.to(torch.int32).contiguous()
            drop = float(miou(scores[f"{index}/clean_outside"].sum(0)) - miou(rows.sum(0)))
            cell |= {"miou_drop": drop, "ci95": [drop - 0.01, drop + 0.01]}
    record["dataset"] |= changes
    out.mkdir()
    save_file(scores, out / "scores.safetensors")
    (out / "transfer.json").write_text(json.dumps(record))
    return out


def test_a_run_and_itself_do_not_differ(runs: tuple[Path, Path]):
    found = compare(runs[0], runs[0])
    assert found.paired and not found.notes and not found.only_first and not found.only_second
    assert {(cell.difference, cell.ci95) for cell in found.cells} == {(0.0, (0.0, 0.0))}


def test_what_only_one_run_has_is_named(runs: tuple[Path, Path], tmp_path: Path):
    found = compare(*runs)
    new = [(cell.patch, cell.victim) for cell in found.only_second]
    assert new == [(f"{who}/paper/s1", on) for who in "ab" for on in "ab"]
    assert not found.only_first and len(found.cells) == 2 * (3 + 2)
    assert compare(*runs[::-1]).only_first == found.only_second
    page = write_comparison(*runs, tmp_path).read_text()
    assert ">In one run only<" in page and "a/paper/s1 on b" in page
    assert ">In one run only<" not in write_comparison(runs[0], runs[0], tmp_path).read_text()


def test_patches_are_the_same_by_their_pixels(runs: tuple[Path, Path], tmp_path: Path):
    found = compare(*runs)
    assert {patch.verdict for patch in found.patches} == {"the same"} and len(found.patches) == 3 + 2
    other = worsened(runs[0], tmp_path / "other")
    record = json.loads((other / "transfer.json").read_text())
    hashes = {"a/paper/s0": "f" * 64, "b/paper/s0": None}
    for patch in record["patches"]:
        patch["sha256"] = hashes.get(patch["name"], patch["sha256"])
    (other / "transfer.json").write_text(json.dumps(record))
    found = compare(runs[0], other)
    known = {patch.name: patch.verdict for patch in found.patches}
    assert (known["a/paper/s0"], known["b/paper/s0"], known["grey"]) == ("another", "not known", "the same")
    assert sentences(found)[-1].startswith("1 of 2 trained patches are others in the second run")
    assert "<code>ffffffffffff</code>" in write_comparison(runs[0], other, tmp_path / "page").read_text()


def test_a_new_name_is_no_way_through_the_gate(runs: tuple[Path, Path], tmp_path: Path):
    first, second = worsened(runs[0], tmp_path / "first"), worsened(runs[1], tmp_path / "second")
    gate(1.0, first, second)
    with pytest.raises(
        SegpatchError, match=r"[12] of 8 cells .* 0\.05 mIoU: [ab]/paper/s1 \(only in the second run\) on a"
    ):
        gate(0.05, first, second)
    gate(0.05, second, first)  # what only the first run has, is gone


def test_differences_are_paired_over_images(runs: tuple[Path, Path], tmp_path: Path):
    bad = worsened(runs[0], tmp_path / "bad")
    cell = next(c for c in compare(runs[0], bad).cells if (c.patch, c.victim) == ("a/paper/s0", "a"))
    about = read_transfer(bad).dataset
    counts = bootstrap_counts(about.groups, about.block, 0)
    index = next(i for i, c in enumerate(read_transfer(bad).cells) if (c.patch, c.victim) == ("a/paper/s0", "a"))
    before, after = (resampled_miou(read_scores(run)[f"{index}/patched"], counts) for run in (runs[0], bad))
    assert cell.ci95 == pytest.approx(interval(before - after), abs=1e-12), "clean rows are the same and cancel"
    assert cell.difference > 0.05
    said = sentences(compare(runs[0], bad))
    assert said[0].startswith("a under its own patches") and "1 surely more" in said[0]


def test_other_images_are_not_paired(runs: tuple[Path, Path], tmp_path: Path):
    other = worsened(runs[0], tmp_path / "other", fingerprint="another")
    found = compare(runs[0], other)
    assert not found.paired and any("fingerprint differ" in note for note in found.notes)
    same = compare(runs[0], worsened(runs[0], tmp_path / "same"))
    for one, two in zip(found.cells, same.cells, strict=True):
        assert one.difference == two.difference
        if one.victim == "b":
            assert two.ci95 == (0.0, 0.0), "the same rows of the same images cancel"
    assert any(one.ci95[0] < 0 < one.ci95[1] for one in found.cells if one.victim == "b")


def test_the_page_and_the_table(runs: tuple[Path, Path], tmp_path: Path):
    bad = worsened(runs[0], tmp_path / "<bad>")
    page = write_comparison(runs[0], bad, tmp_path / "out").read_text()
    assert "costs more" in page and "&lt;bad&gt;" in page and "<bad>" not in page and "<script" not in page
    with (tmp_path / "out/comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10 and {row["paired"] for row in rows} == {"True"}
    row = next(row for row in rows if (row["patch"], row["victim"]) == ("a/paper/s0", "a"))
    assert float(row["drop_second"]) - float(row["drop_first"]) == pytest.approx(float(row["difference"]))


def test_the_gate_looks_at_the_lower_end(runs: tuple[Path, Path], tmp_path: Path):
    bad = worsened(runs[0], tmp_path / "bad")
    low = min(c.ci95[0] for c in read_transfer(bad).cells if c.victim == "a" and "/paper/" in c.patch)
    gate(1.0, bad)
    with pytest.raises(SegpatchError, match=r"2 of 4 cells surely lose more than .* mIoU: [ab]/paper/s0 on a "):
        gate(low - 1e-6, bad)
    gate(1.0, runs[0], bad)
    gate(0.0, bad, runs[0])
    with pytest.raises(SegpatchError, match=r"surely lose more in the second run, by more than 0\.001"):
        gate(0.001, runs[0], bad)


def test_what_else_differs_is_said_by_the_command(
    runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    other = worsened(runs[0], tmp_path / "other", fingerprint="f" * 64)
    for second, said in ((runs[0], ""), (other, "warning: data set's fingerprint differ: ")):
        monkeypatch.setattr(
            "sys.argv", ["segpatch", "report", str(runs[0]), str(second), "--out", str(tmp_path / "page")]
        )
        with pytest.raises(SystemExit, match=r"^0$"):
            main()
        done = capsys.readouterr()
        assert done.out == f"{tmp_path}/page/index.html\n"
        assert done.err.startswith(said) and done.err.count("\n") == bool(said)


@pytest.mark.parametrize("limit", [float("nan"), float("inf"), float("-inf")])
def test_a_limit_that_nothing_can_exceed_is_refused(runs: tuple[Path, Path], limit: float):
    for given in (runs[:1], runs):
        with pytest.raises(BadInput, match="must be in"):
            gate(limit, *given)


def test_what_is_not_known_passes_no_gate(runs: tuple[Path, Path], tmp_path: Path):
    record = json.loads((runs[0] / "transfer.json").read_text())
    next(c for c in record["cells"] if (c["patch"], c["victim"]) == ("b/paper/s0", "a"))["ci95"] = [None, None]
    (tmp_path / "transfer.json").write_text(json.dumps(record))
    with pytest.raises(BadInput, match=r"1 of 4 cells have no interval to hold against 1, b/paper/s0 on a among"):
        gate(1.0, tmp_path)


def test_a_run_of_controls_alone_has_nothing_to_fail_on(runs: tuple[Path, Path], tmp_path: Path):
    record = json.loads((runs[0] / "transfer.json").read_text())
    record["patches"] = [patch for patch in record["patches"] if patch["kind"] != "trained"]
    left = {patch["name"] for patch in record["patches"]}
    record["cells"] = [cell for cell in record["cells"] if cell["patch"] in left]
    (tmp_path / "transfer.json").write_text(json.dumps(record))
    with pytest.raises(BadInput, match="there is no trained patch to fail on"):
        gate(1.0, tmp_path)


def test_a_run_without_its_counts_is_refused(runs: tuple[Path, Path], tmp_path: Path):
    shutil.copy(runs[0] / "transfer.json", tmp_path)
    with pytest.raises(Missing, match=r"no scores\.safetensors in .*; give a finished `segpatch transfer` run"):
        compare(runs[0], tmp_path)


def test_nothing_in_common_is_refused(runs: tuple[Path, Path], tmp_path: Path):
    record = json.loads((runs[0] / "transfer.json").read_text())
    for cell in record["cells"]:
        cell["victim"] += "z"
    for victim in record["victims"]:
        victim["name"] += "z"
    (tmp_path / "other").mkdir()
    (tmp_path / "other/transfer.json").write_text(json.dumps(record))
    (tmp_path / "other/scores.safetensors").write_bytes((runs[0] / "scores.safetensors").read_bytes())
    with pytest.raises(BadInput, match="no patch on a network in common"):
        compare(runs[0], tmp_path / "other")


def test_a_study_is_compared_by_its_matrix(tmp_path: Path):
    (tmp_path / "study.json").write_text("{}")
    assert matrix_run(tmp_path) == tmp_path / "matrix" and matrix_run(tmp_path / "x") == tmp_path / "x"
