from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reference import LAW
from segpatch.attack_config import PRESETS, AttackConfig, resolve
from segpatch.attack_step import draw_samples
from segpatch.compositing import centre_region, paste
from segpatch.data import Dataset, batches
from segpatch.data.images import split_images
from segpatch.errors import BadInput
from segpatch.evaluation import predict_prepared
from segpatch.losses import LOSSES
from segpatch.metrics import confusion_matrix, iou_per_class, miou
from segpatch.models.catalogue import entries_of
from segpatch.models.victim import Provenance, Victim
from segpatch.patch import load_patch
from segpatch.published import VICTIM_FIELDS, published_matrix, updates_as_released, victim_as_released
from segpatch.results import read_scores, read_transfer
from segpatch.runs import read_json, write_json
from segpatch.studies.attack import read_snapshots
from segpatch.studies.estimate import Estimate
from segpatch.studies.paper import PARTS, PaperPlan, as_released, run_paper
from segpatch.studies.paper.ablations import ablation_plans
from segpatch.studies.paper.context import Context
from segpatch.studies.paper.cost import estimate_paper
from segpatch.studies.paper.curves import level_sentence, loss_change
from segpatch.studies.paper.drives import drive_cells
from segpatch.studies.paper.local import locality_cells
from segpatch.studies.paper.matrices import matrix_plan, study_matrices
from segpatch.studies.paper.places import at, place_cells
from segpatch.studies.paper.plan import OWN_PATCHES
from segpatch.studies.paper.released import released_warnings
from segpatch.studies.paper.sizes import cases
from segpatch.studies.planned import planned_patches
from segpatch.studies.progress import Progress, silent
from segpatch.transfer import transfer_matrix
from segpatch.types import Region
from tiny import CLASSES, conv_victim, learnable_dataset

_EMPTY = Dataset(kind="folder", spec="folder:x", classes=CLASSES, splits={}, eval_split="val")
VICTIMS = [conv_victim(0, name="a"), conv_victim(1, name="b", family="transformer")]
OVERRIDES = {"steps": 4, "batch_size": 2, "patch_size": (4, 4), "crop": (10, 10), "scales": (0.8, 1.2)}
PLAN = PaperPlan(
    presets=("released", "paper"),
    seeds=(0, 1),
    overrides=OVERRIDES,
    draws=4,
    along=2,
    snapshots=2,
    scales=(0.5, 1.0, 2.0),
    grid=(2, 3),
    batch_size=2,
)


@pytest.fixture(autouse=True)
def no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("matrix", "paper.run"):  # test_study_report.py looks at real ones
        monkeypatch.setattr(f"segpatch.studies.{module}.write_report", lambda run, out, **how: None)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return learnable_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A study of everything but the ablations."""
    out = tmp_path_factory.mktemp("study") / "s"
    with pytest.MonkeyPatch.context() as patch:
        for module in ("matrix", "paper.run"):
            patch.setattr(f"segpatch.studies.{module}.write_report", lambda run, out, **how: None)
        parts = tuple(part for part in PARTS if part not in OWN_PATCHES)
        return out, run_paper(VICTIMS, dataset, replace(PLAN, only=parts), out)


def test_every_cell_is_there(whole: tuple[Path, dict[str, Any]]):
    out, study = whole
    patches = [f"{who}_{preset}_s0" for preset in ("released", "paper") for who in ("a", "b")]
    owned = [f"{patch}_on_{patch[0]}" for patch in patches]
    wanted = ["drives/all"]
    wanted += [
        f"alignment/{at}" for at in ("clean", "random", *(f"{p}@{step}" for p in patches for step in (2, 4)))
    ]
    wanted += [f"{part}/{one}" for part in ("curves", "sizes", "locality", "places") for one in owned]
    assert list(study["cells"]) == wanted
    assert len(read_transfer(out / study["matrices"][0]).patches) == 1 + 4 + 8  # none, controls, trained
    assert json.loads((out / "study.json").read_text()) == json.loads(json.dumps(study))
    assert list(read_snapshots(out / "matrix/cells/a_paper_s0")) == [2, 4]


def test_drives_of_all_images_are_the_matrix(whole: tuple[Path, dict[str, Any]]):
    out, study = whole
    result = read_transfer(out / "matrix")
    for ours, cell in zip(study["cells"]["drives/all"]["cells"], result.cells, strict=True):
        assert (ours["patch"], ours["victim"], ours["drop"]) == (cell.patch, cell.victim, cell.miou_drop)
        assert tuple(ours["ci95"]) == cell.ci95
        if cell.over_random:
            assert tuple(ours["over_random_ci95"]) == cell.over_random.ci95
            assert ours["verdicts"]["0.01"] == cell.over_random.verdict
            assert ours["p_holm"] == cell.over_random.p_holm


def test_drives_apart_are_what_a_run_on_each_alone_gives(whole: tuple[Path, dict[str, Any]], dataset: Dataset):
    """Two drives of ten images: the rows of the first as `judged` gives them for its images alone."""
    out, _ = whole
    result = read_transfer(out / "matrix")
    many = result.dataset.model_copy(
        update={"names": [f"n{k}" for k in range(20)], "groups": ["x"] * 10 + ["y"] * 10}
    )
    scores = {
        key: torch.cat([rows * (1 + k) for k in range(5)]) for key, rows in read_scores(out / "matrix").items()
    }
    context = Context(
        VICTIMS, dataset, PLAN, split_images(dataset, "train"), "val", range(20), 1, out / "matrix",
        result.model_copy(update={"dataset": many}), silent,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segpatch.studies.paper.drives.read_scores", lambda directory: scores)
        found = {cell.name: cell.work(lambda done, total: None) for cell in drive_cells(context)}
    assert {name: one["images"] for name, one in found.items()} == {
        "drives/all": 20,
        "drives/x": 10,
        "drives/y": 10,
    }
    row = next(c for c in found["drives/y"]["cells"] if (c["patch"], c["victim"]) == ("a/paper/s0", "a"))
    number = [(c.patch, c.victim) for c in result.cells].index(("a/paper/s0", "a"))
    clean, patched = (scores[f"{number}/{which}"][10:].sum(0) for which in ("clean_outside", "patched"))
    assert row["drop"] == pytest.approx(float(miou(clean) - miou(patched)))


def test_alignment_agrees_with_itself_and_is_symmetric(whole: tuple[Path, dict[str, Any]]):
    for name, cell in whole[1]["cells"].items():
        if name.startswith("alignment/"):
            cosine = torch.tensor(cell["cosine"])
            torch.testing.assert_close(cosine.diagonal(), torch.tensor(cell["itself"]))
            torch.testing.assert_close(torch.tensor(cell["cosine_of_same_scenes"]).diagonal(), torch.ones(2))
            torch.testing.assert_close(cosine, cosine.T)
            assert cosine.abs().max() <= 4 / 3 and cell["victims"] == ["a", "b"]


def test_curves_begin_at_the_start_and_end_at_the_matrix(whole: tuple[Path, dict[str, Any]]):
    out, study = whole
    matrix = read_transfer(out / "matrix")
    for who in ("a", "b"):
        curve = study["cells"][f"curves/{who}_paper_s0_on_{who}"]
        assert [point["step"] for point in curve["points"]] == [0, 2, 4]
        assert curve["points"][0]["loss"] is None
        assert curve["points"][-1]["miou"] == pytest.approx(matrix.cell(f"{who}/paper/s0", who).miou)
        assert curve["clean_miou"] == pytest.approx(matrix.cell(f"{who}/paper/s0", who).miou_clean_outside)
        assert curve["sentence"].startswith(f"{who}/paper/s0 on {who}: mIoU")


def test_curves_on_crops_are_those_of_the_drawn_scenes(dataset: Dataset, whole: tuple[Path, dict[str, Any]]):
    curve = whole[1]["cells"]["curves/a_paper_s0_on_a"]
    training = split_images(dataset, "train")
    config = resolve(replace(PRESETS["paper"], **OVERRIDES), training, VICTIMS[:1])
    last = read_snapshots(whole[0] / "matrix/cells/a_paper_s0")[4]
    clean, patched = torch.zeros(3, 3), torch.zeros(3, 3)
    for draw in range(2):  # four crops, as many as there are images held out
        samples = draw_samples(training, range(6), draw, config)
        clean += confusion_matrix(VICTIMS[0](samples.scenes).argmax(1), samples.labels, 3).sum(0)
        region = centre_region(10, 10, 4, 4)
        shown = torch.stack([paste(scene, last, region) for scene in samples.scenes])
        patched += confusion_matrix(VICTIMS[0](shown).argmax(1), samples.labels, 3).sum(0)
    assert curve["crops"] == 4
    assert curve["clean_crop_miou"] == pytest.approx(float(miou(clean)))
    assert curve["points"][-1]["crop_miou"] == pytest.approx(float(miou(patched)))


def test_sizes_hold_the_matrix_cell_at_the_native_size(whole: tuple[Path, dict[str, Any]]):
    out, study = whole
    matrix = read_transfer(out / "matrix")
    rows = study["cells"]["sizes/a_paper_s0_on_a"]["rows"]
    native = next(r for r in rows if (r["scale"], r["frame"], r["images"]) == (1.0, "frame", "unseen"))
    cell = matrix.cell("a/paper/s0", "a")
    assert native["drop"] == pytest.approx(cell.miou_drop)
    assert native["over_random"] == pytest.approx(cell.over_random.drop)
    assert {(r["scale"], r["fixed"]): r["patch_size"] for r in rows if r["scale"] == 2.0} == {
        (2.0, "pixels"): [4, 4],
        (2.0, "share"): [8, 8],
    }
    halved = next(r for r in rows if (r["scale"], r["fixed"]) == (0.5, "pixels"))
    assert "left_out" in halved and (halved["height"], halved["width"]) == (6, 8)
    crop = next(r for r in rows if r["frame"] == "crop" and r["images"] == "unseen")
    assert (crop["height"], crop["width"]) == (12, 12)


def test_the_middle_of_an_odd_grid_is_the_centre():
    assert at(1, 2, 3, 5)((12, 16), (4, 4)) == centre_region(12, 16, 4, 4)
    assert at(0, 0, 1, 1)((12, 16), (4, 4)) == centre_region(12, 16, 4, 4)
    assert at(0, 0, 5, 9)((12, 16), (4, 4)) == Region(0, 0, 4, 4)
    assert at(4, 8, 5, 9)((12, 16), (4, 4)) == Region(8, 12, 4, 4)


def test_places_in_one_pass_are_each_place_alone(whole: tuple[Path, dict[str, Any]], dataset: Dataset):
    out, study = whole
    patch = load_patch(out / "matrix/cells/a_paper_s0")
    control = load_patch(out / "matrix/controls/random_full_s0.safetensors")
    for place in study["cells"]["places/a_paper_s0_on_a"]["places"]:
        matrix = transfer_matrix(
            VICTIMS[:1],
            batches(dataset, "val", batch_size=2),
            [control, patch],
            groups=dataset.groups("val"),
            place=at(place["row"], place["column"], 2, 3),
        )
        cell = matrix.cell(patch.name, "a")
        assert (place["clean_miou"], place["drop"]) == (cell.scores.miou_clean_outside, cell.scores.miou_drop)
        intervals = [place["ci95"], place["over_random_ci95"]]
        assert [tuple(bounds) for bounds in intervals] == [cell.ci95, cell.over_random.ci95]


def test_clean_images_are_predicted_once_a_network_and_part(
    whole: tuple[Path, dict[str, Any]], dataset: Dataset, tmp_path: Path
):
    """Two networks, two patches each, four images, six places: as many predictions as the estimate counts."""
    matrix = whole[0] / "matrix"
    made: list[int] = []

    def counted(victim: Victim, x: torch.Tensor, precision: str) -> torch.Tensor:
        made.append(len(x))
        return predict_prepared(victim, x, precision)

    for cells, predictions in ((place_cells, 4 * 2 * 6 * 4 + 2 * 4), (locality_cells, 4 * 2 * 4 + 2 * 4)):
        context = Context(
            VICTIMS, dataset, PLAN, split_images(dataset, "train"), "val", range(4), 1, matrix,
            read_transfer(matrix), silent,
        )  # fmt: skip
        made.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("segpatch.evaluation.predict_prepared", counted)
            results = [(cell.name, cell.work(lambda done, total: None)) for cell in cells(context)]
        assert sum(made) == predictions
        for name, result in results:
            write_json(tmp_path / "again.json", result)
            assert read_json(tmp_path / "again.json") == read_json(whole[0] / "cells" / name / "result.json")
    with pytest.MonkeyPatch.context() as patch:
        for module in ("estimate", "paper.cost"):
            patch.setattr(f"segpatch.studies.{module}.seconds_of", lambda work: 60.0)
        minutes = dict(estimate_paper(VICTIMS, dataset, PLAN).pieces)
    assert (minutes["places, 4 cells"], minutes["locality, 4 cells"]) == (200, 40)
    assert minutes["curves, 4 cells"] == 4 * 2 * 4 * 4
    assert minutes["drives, 1 cells"] == 2 * (4 + 8) * 2


def test_a_patch_needs_the_control_of_its_size(whole: tuple[Path, dict[str, Any]], dataset: Dataset):
    matrix = whole[0] / "matrix"
    result = read_transfer(matrix)
    trained = [patch for patch in result.patches if patch.kind == "trained"]
    context = Context(
        VICTIMS, dataset, PLAN, split_images(dataset, "train"), "val", range(4), 1, matrix,
        result.model_copy(update={"patches": trained}), silent,
    )  # fmt: skip
    with pytest.raises(BadInput, match=r"holds no random control of a/released/s0; run it again"):
        context.control(context.patches()[0])


def test_places_differ(whole: tuple[Path, dict[str, Any]]):
    cell = whole[1]["cells"]["places/a_paper_s0_on_a"]
    assert [(p["row"], p["column"]) for p in cell["places"]] == [(r, c) for r in range(2) for c in range(3)]
    assert len({p["clean_miou"] for p in cell["places"]}) > 1, "other pixels are covered"


def test_locality_counts_what_the_matrix_counts(whole: tuple[Path, dict[str, Any]]):
    out, study = whole
    scores, result = read_scores(out / "matrix"), read_transfer(out / "matrix")
    cell = study["cells"]["locality/a_paper_s0_on_a"]
    at = {(c.patch, c.victim): number for number, c in enumerate(result.cells)}
    own, control = (at[name, "a"] for name in ("a/paper/s0", "random/full/s0"))
    assert sum(one["pixels"] for one in cell["bins"]) == int(scores[f"{own}/patched"].sum())
    rows = [scores[f"{number}/patched"].sum(0).double() for number in (own, control)]
    more = [row / row.sum(1, keepdim=True) for row in rows]
    for k, one in enumerate(cell["classes"]):
        drops = [
            iou_per_class(scores[f"{n}/clean_outside"].sum(0)) - iou_per_class(scores[f"{n}/patched"].sum(0))
            for n in (own, control)
        ]
        assert one["share"] == pytest.approx(float(rows[0].sum(1)[k] / rows[0].sum()))
        assert one["drop"]["value"] is None or one["drop"]["value"] == pytest.approx(
            float(drops[0][k] - drops[1][k])
        )
        for target in one["turned_into"]:
            j = result.classes.index(target["class"])
            assert target["share"] == pytest.approx(float(more[0][k, j] - more[1][k, j])) and target["share"] > 0
            assert target["ci95"][0] <= target["ci95"][1]


def test_a_stopped_study_goes_on_and_nothing_is_done_twice(
    dataset: Dataset, whole: tuple[Path, dict[str, Any]], tmp_path: Path
):
    parts = tuple(part for part in PARTS if part not in OWN_PATCHES)
    plan = replace(PLAN, only=parts)
    for stop in ("attack b/released/s1", "measure", "alignment/clean", "curves/a_paper_s0_on_a", "places/b"):

        def interrupt(progress: Progress, stop: str = stop) -> None:
            if progress.stage.startswith(stop):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_paper(VICTIMS, dataset, plan, tmp_path / "s", resume=True, on_progress=interrupt)
    seen: list[Progress] = []
    run_paper(VICTIMS, dataset, plan, tmp_path / "s", resume=True, on_progress=seen.append)
    assert {progress.stage.split("/")[0] for progress in seen} == {"places"}
    for name in ("study.json", "matrix/transfer.json", "matrix/scores.safetensors"):
        assert (tmp_path / "s" / name).read_bytes() == (whole[0] / name).read_bytes()
    again: list[Progress] = []
    assert run_paper(VICTIMS, dataset, plan, tmp_path / "s", resume=True, on_progress=again.append) and not again


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning:ray")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_study_on_ray_is_the_study(
    dataset: Dataset, whole: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    plan, seen = replace(PLAN, only=("alignment", "sizes", "places")), []
    study = run_paper(VICTIMS, dataset, plan, tmp_path / "s", ray="local", on_progress=seen.append)
    assert {progress.stage for progress in seen} == {"train", "measure", "cells"}
    whole_cells = {name: cell for name, cell in whole[1]["cells"].items() if name.split("/")[0] in plan.only}
    assert study["cells"] == whole_cells
    for name in ("transfer.json", "scores.safetensors"):
        assert (tmp_path / "s/matrix" / name).read_bytes() == (whole[0] / "matrix" / name).read_bytes()


def test_losses_are_a_matrix_of_equal_trainings(dataset: Dataset, tmp_path: Path):
    plan = replace(PLAN, only=("losses",), losses=("correct-pixel", "correct-pixel-fixed", "segpgd"), seeds=(0,))
    study = run_paper(VICTIMS, dataset, plan, tmp_path / "s")
    assert study["matrices"] == ["ablations/losses"] and not (tmp_path / "s/matrix").exists()
    result = read_transfer(tmp_path / "s/ablations/losses")
    trained = {patch.name: patch for patch in result.patches if patch.kind == "trained"}
    assert list(trained) == [f"a/{loss}/s0" for loss in plan.losses]
    assert trained["a/correct-pixel/s0"].sha256 == trained["a/correct-pixel-fixed/s0"].sha256, (
        "a sign step cannot tell what the mean is over"
    )
    assert trained["a/segpgd/s0"].sha256 != trained["a/correct-pixel/s0"].sha256
    assert all(patch.steps == 4 for patch in trained.values())


def test_ablations_change_one_thing_each(dataset: Dataset):
    training = split_images(dataset, "train")
    plans = ablation_plans(("losses", "ablations"), VICTIMS, training, replace(PLAN, overrides={"steps": 8}))
    assert {config.loss for config in plans["losses"].variants} == set(LOSSES)
    assert [config.steps for config in plans["steps"].variants] == [2, 4, 8, 16]
    assert [config.step_size for config in plans["step-size"].variants] == [0.0005, 0.0015, 0.005, 0.015, 0.05]
    scenes = [(config.scales, config.flip, config.crop) for config in plans["scenes"].variants[:4]]
    drawn, whole = (12, 12), (12, 16)
    assert scenes[:2] == [((0.5, 2.0), 0.5, drawn), ((1.0, 1.0), 0.5, drawn)]
    assert scenes[2:] == [((1.0, 1.0), 0.0, drawn), ((1.0, 1.0), 0.0, whole)]
    assert plans["scenes"].variants[4].patch_eot and plans["place"].place == "drawn"
    sides = [plan.variants[0].patch_size for name, plan in plans.items() if name.startswith("patch-")]
    assert sides == [(1, 1), (2, 2), (2, 2), (4, 4), (5, 5), (1, 5)]
    names = [config.preset for plan in plans.values() for config in plan.variants]
    assert len(names) == len(set(names))
    base = plans["scenes"].variants[0]
    for config in plans["losses"].variants:
        assert replace(config, preset=base.preset, loss=base.loss) == base


def test_ablations_can_be_chosen(dataset: Dataset):
    training = split_images(dataset, "train")
    plan = replace(PLAN, only=("ablations",), ablations=("place", "patch-size"))
    plans = ablation_plans(plan.parts, VICTIMS, training, plan)
    assert list(plans) == ["place", *(f"patch-{side}" for side in (100, 150, 200, 300, 400)), "patch-100x400"]


def test_networks_of_each_matrix(dataset: Dataset):
    training = split_images(dataset, "train")

    def names(**changes: Any) -> dict[str, list[str]]:
        asked = study_matrices(VICTIMS, training, replace(PLAN, **changes))
        return {name: [victim.name for victim in victims] for name, (victims, _) in asked.items()}

    found = names()
    assert found["matrix"] == ["a", "b"] and found["ablations/losses"] == ["a"]
    assert "ablations/accuracy" not in found, "no checkpoints are named"
    assert names(only=("losses",), ablation_victims=("b",)) == {"ablations/losses": ["b"]}
    assert names(only=("accuracy",), checkpoints=("b", "a")) == {"ablations/accuracy": ["b", "a"]}
    with pytest.raises(BadInput, match="unknown victim in ablation_victims 'c'"):
        names(ablation_victims=("c",))
    with pytest.raises(BadInput, match="every victim is one of the checkpoints"):
        names(checkpoints=("a", "b"))


def test_a_finished_study_takes_more_parts(dataset: Dataset, tmp_path: Path):
    plan = replace(PLAN, only=("drives",), seeds=(0,))
    first = run_paper(VICTIMS, dataset, plan, tmp_path / "s")
    assert first["parts"] == ("matrix", "drives")
    seen: list[Progress] = []
    more = replace(plan, only=("places",))
    study = run_paper(VICTIMS, dataset, more, tmp_path / "s", resume=True, on_progress=seen.append)
    assert {progress.stage.split("/")[0] for progress in seen} == {"places"}
    assert study["parts"] == ("matrix", "drives", "places") and study["cells"].items() >= first["cells"].items()
    seen.clear()
    fewer = run_paper(VICTIMS, dataset, plan, tmp_path / "s", resume=True, on_progress=seen.append)
    assert not seen and fewer == json.loads(json.dumps(study))


def test_what_a_study_costs_is_said_before(dataset: Dataset):
    estimate = estimate_paper(VICTIMS, dataset, PLAN)
    names = [name for name, _ in estimate.pieces]
    parts = {"drives": 1, "alignment": 10, "curves": 4, "sizes": 4, "locality": 4, "places": 4}
    assert {f"{part}, {cells} cells" for part, cells in parts.items()} <= set(names)
    assert {"ablations/losses, 44 patches on a", "distances, 5 cells"} <= set(names)
    assert sum(name.endswith(" 4 steps") for name in names) == 8 and estimate.minutes > 0
    trained = 2 * (2 * 2 + len(LOSSES) + 5 + 5 + 4 + 4 + 2 + 6)
    assert estimate.counts == f"patches to train: {trained}, matrices to measure: 13, other cells: 32"
    assert estimate.counts in estimate.describe().splitlines()


def test_what_is_left_to_do_is_said_and_no_more(dataset: Dataset, tmp_path: Path):
    plan = replace(PLAN, only=("drives", "alignment", "curves"), seeds=(0,))
    said: list[Estimate] = []

    def go_on(stop: str) -> None:
        def interrupt(progress: Progress) -> None:
            if stop and progress.stage.startswith(stop):
                raise KeyboardInterrupt

        run_paper(
            VICTIMS, dataset, plan, tmp_path / "s", resume=True, on_progress=interrupt, on_estimate=said.append
        )

    for stop in ("attack b/released", "alignment/random", "curves/b_paper"):
        with pytest.raises(KeyboardInterrupt):
            go_on(stop)
    go_on("")
    assert [estimate.counts for estimate in said] == [
        "patches to train: 4, matrices to measure: 1, other cells: 15",
        "patches to train: 3, matrices to measure: 1, other cells: 15",
        "patches to train: 0, matrices to measure: 0, other cells: 13",
        "patches to train: 0, matrices to measure: 0, other cells: 1",
    ]
    assert [name for name, _ in said[2].pieces] == ["alignment, 9 cells", "curves, 4 cells"]
    assert [name for name, _ in said[3].pieces] == ["curves, 1 cells"]
    tried: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        for module in ("estimate", "paper.cost"):
            patch.setattr(f"segpatch.studies.{module}.seconds_of", lambda work: tried.append(work) or 1.0)
        go_on("")
        done = estimate_paper(VICTIMS, dataset, plan, tmp_path / "s")
    assert len(said) == 4 and not tried, "a finished study is only read"
    assert done.counts == "patches to train: 0, matrices to measure: 0, other cells: 0" and not done.pieces


def test_points_along_training_are_at_most_those_kept():
    assert PaperPlan().along == 4 <= PaperPlan().snapshots
    assert replace(PLAN, along=3).snapshots == 2, "then both are looked at"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"only": ("curvs",)}, "did you mean 'curves'"),
        ({"losses": ("segpg",)}, "did you mean 'segpgd'"),
        ({"ablations": ("scene",)}, "did you mean 'scenes'"),
        ({"draws": 2}, "draws must be a whole number from 4 to 10000, got 2"),
        ({"snapshots": 0}, "snapshots must be a whole number from 1"),
        ({"along": 0}, "along must be a whole number from 1"),
        ({"grid": (0, 3)}, "each number in grid must be"),
        ({"scales": (1.0, 9.0)}, "each of scales must be in"),
        ({"only": ("accuracy",), "checkpoints": ("a",)}, "accuracy needs two checkpoints"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(change: dict[str, Any], message: str):
    with pytest.raises(BadInput, match=message):
        replace(PLAN, **change)


def test_cases_cover_sizes_frames_and_seen_images():
    found = cases((0.25, 1.0, 2.0))
    assert len(found) == len(set(found)) == 2 * 2 + 4
    assert {case.fixed for case in found if case.scale == 2.0} == {"pixels", "share"}


def test_the_sentence_says_what_fell_and_how_the_loss_changed():
    def curve(last_loss: float, low: float) -> dict[str, Any]:
        points = [
            {"loss": None},
            {"loss": 1.0, "correct": 0.9},
            {"loss": last_loss, "correct": 0.5, "over_start": {"value": 0.1, "ci95": (low, 0.2)}},
        ]
        change = last_loss - 1
        known = {"value": change, "ci95": (change - 0.1, change + 0.1)}
        return {"patch": "p", "victim": "v", "blocks": 8, "points": points, "loss_change": known}

    assert "images fell (by 0.100 [0.050, 0.200] since the first step)" in level_sentence(curve(1.5, 0.05))
    assert "loss went from 1.000 to 1.500, +50% [+40%, +60%]," in level_sentence(curve(1.5, 0.05))
    assert "did not fall for sure" in level_sentence(curve(0.8, -0.01))
    assert "correct pixels from 90.0% to 50.0%" in level_sentence(curve(0.8, -0.01))
    assert "did not fall for sure" in level_sentence({**curve(1.5, 0.05), "blocks": 7})
    unknown = {**curve(0.8, -0.01), "loss_change": loss_change([], [])}
    assert "from 1.000 to 0.800, and" in level_sentence(unknown)


def test_change_of_the_loss_by_hand():
    first, last = ([{"loss": value} for value in values] for values in ((1.0, 3.0), (4.0, 6.0)))
    found = loss_change(first, last)  # means 2 and 5, each with a standard error of 1
    half = 1.96 * math.hypot(1 / 2, 1 * 2.5 / 2)
    assert found["value"] == 1.5 and found["ci95"] == pytest.approx((1.5 - half, 1.5 + half))
    assert loss_change(first[:1], last)["value"] is None, "one step does not say how far steps differ"
    assert loss_change(first, [{"loss": None}, {"loss": None}])["ci95"] == (None, None)


@LAW
@given(st.integers(0, 2**32 - 1))
def test_the_interval_of_the_change_covers_no_change_as_often_as_it_says(seed: int):
    generator = np.random.default_rng(seed)
    covered = 0
    for _ in range(100):
        first, last = ([{"loss": x} for x in generator.normal(1, 0.2, size=20)] for _ in range(2))
        low, high = loss_change(first, last)["ci95"]
        covered += low <= 0 <= high
    assert covered >= 80


KNOWN = [("pidnet-s", "cnn"), ("bisenetv2", "cnn"), ("segformer-b5", "transformer")]
RELEASED = [
    replace(conv_victim(name=name), provenance=Provenance(network=name, family=family)) for name, family in KNOWN
]
TOWNS = replace(_EMPTY, kind="cityscapes")


def test_as_released_is_the_published_run():
    """What is trained and measured, against the published table; `tests/test_published.py` has its every row."""
    shown, plan = as_released(RELEASED, TOWNS, PaperPlan(images=3, batch_size=7))
    assert plan.parts == ("matrix", "curves")
    assert as_released(RELEASED, TOWNS, PaperPlan(only=("losses",)), ["only"])[1].parts == ("losses",)
    for victim, (name, _) in zip(shown, KNOWN, strict=True):
        wanted = victim_as_released(name)
        assert {field: getattr(victim, field) for field in VICTIM_FIELDS} == {f: wanted[f] for f in VICTIM_FIELDS}
        assert victim.window is None
    asked = matrix_plan(plan)
    assert (asked.measured, asked.batch_size, asked.place, plan.precision) == (None, 1, "centre", "fp32")
    planned = planned_patches(shown, asked)
    assert [item.name for item in planned] == [f"{name}/released/s0" for name, _ in KNOWN]
    for item, (_, family) in zip(planned, KNOWN, strict=True):
        assert item.config == AttackConfig(**updates_as_released()[family])
    with pytest.raises(BadInput, match="give --data cityscapes:DIR"):
        as_released(RELEASED, _EMPTY, PaperPlan())
    with pytest.raises(BadInput, match="unknown published network"):
        as_released([conv_victim()], TOWNS, PaperPlan())


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"precision": "bf16"}, "precision is fp32 in the published run, got bf16; leave it out"),
        ({"images": 40}, "images is all in the published run, got 40"),
        ({"groups": ("aachen",)}, "groups is none in"),
        ({"ensembles": (("pidnet-s", "bisenetv2"),)}, "ensembles is none in"),
        ({"split": "train"}, "split is val in"),
        ({"presets": ("released", "strong")}, "presets is"),
        ({"batch_size": 4}, "batch_size is 1 in"),
        ({"snapshots": 10}, "snapshots is 30 in"),
        ({"overrides": {"steps": 200}}, "steps is 14880 in the published run, got 200"),
        ({"overrides": {"batch_size": 6}}, "batch_size is 1 in the published run, got 6"),  # SegFormer's
        ({"overrides": {"loss": "segpgd"}}, "loss is correct-pixel in"),
    ],
)
def test_what_contradicts_the_published_run_is_refused(chosen: dict[str, Any], words: str):
    with pytest.raises(BadInput, match=words):
        as_released(RELEASED, TOWNS, PaperPlan(**chosen), chosen)


def test_what_agrees_with_the_published_run_may_be_said():
    chosen: dict[str, Any] = {
        "presets": ("released",), "seeds": (3, 4), "split": "val",
        "overrides": {"patch_size": [200, 200], "step_size": 0.005, "micro_batch": 2},
    }  # fmt: skip
    _, plan = as_released(RELEASED, TOWNS, PaperPlan(**chosen), chosen)
    assert plan.seeds == (3, 4) and plan.overrides == {"micro_batch": 2}
    assert plan == as_released(RELEASED, TOWNS, plan, [field.name for field in fields(plan)])[1]


def test_a_plan_that_only_says_as_released_is_refused(tmp_path: Path):
    with pytest.raises(BadInput, match="presets is"):
        run_paper(RELEASED, TOWNS, PaperPlan(as_released=True), tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_weights_and_images_of_another_run_are_said(dataset: Dataset):
    def weights(network: str, taken_for: str | None, file: str | None = None) -> list[str]:
        about = Provenance(network=network, taken_for=taken_for, checkpoint=file)
        whole = replace(dataset, splits={"train": range(2975), "val": range(500)})
        whole._usable.update(("train", "val"))
        return released_warnings([replace(conv_victim(name="v"), provenance=about)], whole)

    for network, known in published_matrix().networks.items():
        file = (known.weights or "").removeprefix("nvidia/")
        used = [entry.name for entry in entries_of(network) if entry.file.removesuffix(".bin") == file]
        assert bool(weights(network, used[0] if used else None)) == (known.weights is None)
    (own,) = weights("pidnet-s", None, "network.safetensors")
    assert own.startswith(
        "v has weights of network.safetensors, the published run those of PIDNet_S_Cityscapes_test"
    )
    (other,) = weights("pidnet-s", "pidnet-s-mmseg")
    assert "unknown origin" in other
    (private,) = weights("icnet-r50", "icnet-r50-mmseg")
    assert "are not public" in private
    few = released_warnings([], dataset)
    assert few[1] == "the published run had 500 images of val; here there are 4 images of val"


def test_a_study_as_released_says_what_differs(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On tiny images for four steps, as if that were what was published."""
    monkeypatch.setattr(
        "segpatch.studies.paper.matrices.updates_as_released",
        lambda: {"cnn": {**OVERRIDES, "preset": "released", "snapshots": 2}},
    )
    towns = replace(dataset, kind="cityscapes")
    victims, plan = as_released(RELEASED[:1], towns, replace(PLAN, only=("curves",), overrides={}))
    study = run_paper(victims, towns, plan, tmp_path / "s")
    assert study["plan"]["as_released"] and len(study["warnings"]) == 3
    assert any("random patch for all images" in text for text in study["deviations"])
    assert [p["step"] for p in study["cells"]["curves/pidnet-s_released_s0_on_pidnet-s"]["points"]] == [0, 2, 4]
