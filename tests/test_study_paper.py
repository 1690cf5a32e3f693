from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from segpatch.attack_config import PRESETS, AttackConfig, resolve
from segpatch.attack_step import draw_samples
from segpatch.compositing import centre_region, paste
from segpatch.data import Dataset
from segpatch.data.images import split_images
from segpatch.errors import BadInput
from segpatch.losses import LOSSES
from segpatch.metrics import confusion_matrix, iou_per_class, miou
from segpatch.models.victim import Provenance
from segpatch.published import VICTIM_FIELDS, victim_as_released
from segpatch.published import as_released as released_fields
from segpatch.results import read_scores, read_transfer
from segpatch.studies.attack import read_snapshots
from segpatch.studies.paper import PARTS, PaperPlan, as_released, run_paper
from segpatch.studies.paper.ablations import ablation_plans
from segpatch.studies.paper.context import Context
from segpatch.studies.paper.cost import estimate_paper
from segpatch.studies.paper.curves import level_sentence
from segpatch.studies.paper.drives import drive_cells
from segpatch.studies.paper.matrices import matrix_plan, study_matrices
from segpatch.studies.paper.places import at
from segpatch.studies.paper.plan import OWN_PATCHES
from segpatch.studies.paper.sizes import cases
from segpatch.studies.planned import planned_patches
from segpatch.studies.progress import Progress, silent
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
            torch.testing.assert_close(cosine.diagonal(), torch.ones(2))
            torch.testing.assert_close(cosine, cosine.T)
            assert cosine.min() >= -1 and cell["victims"] == ["a", "b"]


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
    assert [config.scales for config in plans["scenes"].variants[:3]] == [(0.5, 2.0), (1.0, 1.0), (1.0, 1.0)]
    assert plans["scenes"].variants[3].patch_eot and plans["place"].place == "drawn"
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
    assert {"alignment, 10 cells", "curves, 4 cells", "sizes, 4 cells", "places, 4 cells"} <= set(names)
    assert {"ablations/losses, 42 patches on a", "distances, 4 cells"} <= set(names)
    assert sum(name.endswith(" 4 steps") for name in names) == 8 and estimate.minutes > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"only": ("curvs",)}, "did you mean 'curves'"),
        ({"losses": ("segpg",)}, "did you mean 'segpgd'"),
        ({"ablations": ("scene",)}, "did you mean 'scenes'"),
        ({"draws": 2}, "draws must be a whole number from 4 to 10000, got 2"),
        ({"snapshots": 0}, "snapshots must be a whole number from 1"),
        ({"along": 3}, "along, beside snapshots, must be a whole number from 1 to 2"),
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


def test_the_sentence_tells_level_from_falling():
    def curve(last_loss: float, low: float) -> dict[str, Any]:
        ends = [
            {"loss": 1.0, "correct": 0.9, "drop": 0.0, "ci95": (0.0, 0.0)},
            {"loss": last_loss, "correct": 0.5, "drop": 0.1, "ci95": (low, 0.2)},
        ]
        return {"patch": "p", "victim": "v", "points": [{"loss": None}, *ends]}

    assert "fell (drop 0.100 [0.050, 0.200]) and the loss stayed level" in level_sentence(curve(1.05, 0.05))
    assert "and the loss rose (1.000 to 1.500, +50%)" in level_sentence(curve(1.5, 0.05))
    assert "did not fall for sure" in level_sentence(curve(0.8, -0.01))
    assert "from 90.0% to 50.0%" in level_sentence(curve(0.8, -0.01))


def test_as_released_is_the_published_run():
    """What is trained and measured, against the published table; `tests/test_published.py` has its every row."""
    known = [("pidnet-s", "cnn"), ("bisenetv2", "cnn"), ("segformer-b5", "transformer")]
    victims = [
        replace(conv_victim(name=name), provenance=Provenance(network=name, family=family))
        for name, family in known
    ]
    cityscapes = replace(_EMPTY, kind="cityscapes")
    shown, plan = as_released(victims, cityscapes, PaperPlan(images=3, batch_size=7))
    for victim, (name, _) in zip(shown, known, strict=True):
        wanted = victim_as_released(name)
        assert {field: getattr(victim, field) for field in VICTIM_FIELDS} == {f: wanted[f] for f in VICTIM_FIELDS}
        assert victim.window is None
    asked = matrix_plan(plan)
    assert (asked.measured, asked.batch_size, asked.place, plan.precision) == (None, 1, "centre", "fp32")
    sizes = [(torch.zeros(3, 1024, 2048, dtype=torch.uint8), torch.zeros(1024, 2048, dtype=torch.uint8))] * 2975
    planned = planned_patches(shown, asked)
    assert [item.name for item in planned] == [f"{name}/released/s0" for name, _ in known]
    for item, (_, family) in zip(planned, known, strict=True):
        ours, theirs = (
            resolve(config, sizes, item.victims)
            for config in (replace(item.config, snapshots=0), AttackConfig(**released_fields(family)))
        )
        assert ours == theirs
    with pytest.raises(BadInput, match="give --data cityscapes:DIR"):
        as_released(victims, _EMPTY, PaperPlan())
    with pytest.raises(BadInput, match="unknown published network"):
        as_released([conv_victim()], cityscapes, PaperPlan())
