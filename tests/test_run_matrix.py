from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from segpatch.data import CAMVID, CITYSCAPES, Dataset, open_data
from segpatch.errors import BadInput, Missing
from segpatch.models.victim import Victim
from segpatch.patch import FULL_RANGE, Patch, grey_patch, load_patch, random_patch, save_patch
from segpatch.results import TransferResult, read_scores, read_transfer
from segpatch.studies.attack import run_attack
from segpatch.studies.matrix import control_patches, measured_indices, run_matrix
from segpatch.studies.planned import MatrixPlan, planned_patches
from segpatch.studies.progress import Progress
from tiny import TINY, conv_victim, learnable_dataset, pictures, write_learnable

SHORT = {"steps": 2, "batch_size": 2, "patch_size": (4, 4), "crop": (10, 10)}
VICTIMS = [conv_victim(0, name="a"), conv_victim(1, name="b")]


@pytest.fixture(autouse=True)
def pages(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, bool]]:
    """The pages that were asked for, and whether with photographs; test_report.py looks at real ones."""
    asked: list[tuple[Path, bool]] = []

    def ask(run: Path, out: Path, *, photographs: bool) -> None:
        asked.append((out, photographs))

    monkeypatch.setattr("segpatch.studies.matrix.write_report", ask)
    return asked


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return learnable_dataset(tmp_path / "data")


def matrix(dataset: Dataset, out: Path, plan: dict[str, Any] | None = None, **more) -> TransferResult:
    return run_matrix(VICTIMS, dataset, MatrixPlan(overrides=SHORT, **(plan or {})), out, **more)


def test_all_against_all_with_controls(dataset: Dataset, tmp_path: Path, pages: list[tuple[Path, bool]]):
    seen: list[Progress] = []
    plan = {"seeds": (0, 1), "ensembles": (("a", "b"),), "pictures": 2, "photographs": True}
    result = matrix(dataset, tmp_path / "run", plan, command="segpatch transfer", on_progress=seen.append)
    trained = [f"{who}/paper/s{seed}" for who in ("a", "b", "a+b") for seed in (0, 1)]
    assert [p.name for p in result.patches] == ["none", "grey", "random/full/s0", "natural", *trained]
    assert len(result.cells) == 2 * 10 and len(result.groups) == 2 * 3
    assert result.cell("a+b/paper/s0", "b").white_box and not result.cell("a/paper/s0", "b").white_box
    assert (result.dataset.kind, result.dataset.split, result.dataset.images) == ("folder", "val", 4)
    assert read_transfer(tmp_path / "run").model_dump_json() == result.model_dump_json()
    assert pages == [(tmp_path / "run/report", True)]
    assert len(read_scores(tmp_path / "run")) == 4 * 20
    for patch in result.patches[1:]:
        held = load_patch(tmp_path / "run" / patch.file)
        assert (held.name, held.sha256()) == (patch.name, patch.sha256)
    scenes = sorted(path.name for path in (tmp_path / "run/scenes").iterdir())
    assert scenes == ["val1", "val3"]
    assert (tmp_path / "run/scenes/val1/image.png").is_file()
    assert len(list((tmp_path / "run/scenes/val1/b").iterdir())) == 1 + 9
    assert [p.stage for p in seen if p.done == p.total] == [*(f"attack {name}" for name in trained), "measure"]


def test_names_must_differ_before_anything_is_trained(dataset: Dataset, tmp_path: Path):
    plan = MatrixPlan(overrides=SHORT)
    with pytest.raises(BadInput, match="victims must have different names; a occurs more than once"):
        run_matrix([VICTIMS[0], VICTIMS[0]], dataset, plan, tmp_path / "run")
    given = replace(grey_patch((4, 4)), name="a/paper/s0")
    with pytest.raises(BadInput, match="patches must have different names; a/paper/s0 occurs more than once"):
        run_matrix(VICTIMS, dataset, plan, tmp_path / "run", given=[given])
    assert not (tmp_path / "run").exists()


def test_measuring_again_gives_the_same_rows(dataset: Dataset, tmp_path: Path):
    one, other = (matrix(dataset, tmp_path / name) for name in "ab")
    assert one.model_dump_json() == other.model_dump_json()
    assert (tmp_path / "a/transfer.csv").read_bytes() == (tmp_path / "b/transfer.csv").read_bytes()


@pytest.mark.parametrize("stage", ["attack a/paper/s0", "attack b/paper/s0", "measure"])
def test_interrupted_and_resumed_gives_the_same_result(dataset: Dataset, tmp_path: Path, stage: str):
    def stop(progress: Progress) -> None:
        if progress.stage == stage:
            raise KeyboardInterrupt

    whole = matrix(dataset, tmp_path / "whole", command="segpatch transfer")
    with pytest.raises(KeyboardInterrupt):
        matrix(dataset, tmp_path / "run", command="segpatch transfer", on_progress=stop)
    assert not (tmp_path / "run/transfer.json").exists()
    with pytest.raises(BadInput, match="already holds a run"):
        matrix(dataset, tmp_path / "run")
    seen: list[Progress] = []
    again = matrix(
        dataset, tmp_path / "run", command="segpatch transfer --resume", resume=True, on_progress=seen.append
    )
    assert again.cells == whole.cells
    assert seen[0].stage == stage or stage == "attack a/paper/s0"
    finished: list[Progress] = []
    assert matrix(dataset, tmp_path / "run", resume=True, on_progress=finished.append).cells == again.cells
    assert finished == []


def test_ready_patches_are_measured(dataset: Dataset, tmp_path: Path):
    ready = run_attack(VICTIMS[:1], train_images(dataset), TINY, tmp_path / "attack")
    result = matrix(dataset, tmp_path / "run", {"presets": ()}, given=[ready])
    assert [p.kind for p in result.patches] == ["none", "grey", "random", "natural", "trained"]
    assert result.cell("a/paper/s0", "a").white_box
    assert load_patch(tmp_path / "run/given/a_paper_s0.safetensors").sha256() == ready.sha256()


def train_images(dataset: Dataset):
    from segpatch.data.images import split_images

    return split_images(dataset, "train")


def test_some_images_some_drives(tmp_path: Path):
    data = tmp_path / "data"
    learnable_dataset(data)
    for kind in ("images", "labels"):
        for drive, index in (("day", 0), ("day", 1), ("night", 2), ("night", 3)):
            (data / kind / "val" / drive).mkdir(exist_ok=True)
            (data / kind / f"val/val{index}.png").rename(data / kind / f"val/{drive}/{index}.png")
    dataset = open_data(f"folder:{data}")
    assert measured_indices(dataset, "val", MatrixPlan(groups=("night",))) == [2, 3]
    assert measured_indices(dataset, "val", MatrixPlan(measured=2)) == [1, 3]
    with pytest.raises(BadInput, match="unknown group 'nihgt'; did you mean 'night'"):
        measured_indices(dataset, "val", MatrixPlan(groups=("nihgt",)))
    result = matrix(dataset, tmp_path / "run", {"groups": ("night",), "measured": 1})
    assert result.dataset.names == ["night_3"] and result.dataset.groups == ["night"]


def test_controls_have_the_patches_size_and_ranges():
    low = Patch(torch.zeros(3, 4, 5), range=((0.0, 0.0, 0.0), (0.5, 0.5, 0.5)))
    controls = control_patches([low, random_patch((4, 5), FULL_RANGE, 7)], pictures(), 0)
    assert [p.kind for p in controls] == ["grey", "random", "random", "natural"]
    assert {p.size for p in controls} == {(4, 5)}
    assert [p.range for p in controls[1:3]] == [low.range, FULL_RANGE]


def test_a_plan_is_a_patch_per_network_preset_and_seed():
    plan = MatrixPlan(presets=("paper", "strong"), seeds=(3, 4), ensembles=(("b", "a"),), overrides={"steps": 5})
    todo = planned_patches(VICTIMS, plan)
    assert [item.name for item in todo[:6]] == [f"{who}/paper/s{s}" for who in ("a", "b", "b+a") for s in (3, 4)]
    assert len(todo) == 12 and {item.config.steps for item in todo} == {5}
    assert todo[-1].folder == "cells/b+a_strong_s4"


@pytest.mark.parametrize(
    ("plan", "given", "message"),
    [
        ({"presets": ("papper",)}, [], "unknown preset 'papper'; did you mean 'paper'"),
        ({"ensembles": (("a", "c"),)}, [], "unknown victim in --ensemble 'c'"),
        ({"presets": ()}, [], "must have one size; got none"),
        ({}, [grey_patch((3, 3))], "must have one size; got 3x3, 4x4"),
        ({}, [Patch(torch.zeros(3, 4, 4), name="a/paper/s0")], "a/paper/s0 occurs more than once"),
        ({"presets": ()}, [Patch(torch.zeros(3, 13, 4))], "does not fit"),
        ({"split": "test"}, [], "no split 'test'"),
    ],
)
def test_bad_input_leaves_nothing(dataset: Dataset, tmp_path: Path, plan: dict, given: list, message: str):
    with pytest.raises((BadInput, Missing), match=message):
        matrix(dataset, tmp_path / "run", plan, given=given)
    assert not (tmp_path / "run").exists()


def test_a_bad_image_keeps_what_was_trained(dataset: Dataset, tmp_path: Path):
    label = tmp_path / "data/labels/val/val1.png"
    label.write_bytes(label.read_bytes()[:45])  # its header is whole, its pixels are not
    with pytest.raises(BadInput, match=r"val1\.png"):
        matrix(dataset, tmp_path / "run")
    assert (tmp_path / "run/cells/a_paper_s0/patch.safetensors").is_file()
    assert not (tmp_path / "run/transfer.json").exists()


def test_measuring_fails_and_nothing_was_trained(dataset: Dataset, tmp_path: Path):
    label = tmp_path / "data/labels/val/val1.png"
    label.write_bytes(label.read_bytes()[:45])  # its header is whole, its pixels are not
    with pytest.raises(BadInput, match=r"val1\.png"):
        matrix(dataset, tmp_path / "run", {"presets": ()}, given=[Patch(torch.zeros(3, 4, 4))])
    assert not (tmp_path / "run").exists()


def test_the_record_is_enough_to_run_it_again(dataset: Dataset, tmp_path: Path):
    matrix(dataset, tmp_path / "run", {"seeds": (0, 2)}, command="segpatch transfer --seeds 0,2")
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["argv"] == "segpatch transfer --seeds 0,2"
    assert config["plan"]["seeds"] == [0, 2] and config["overrides"]["steps"] == 2
    assert config["data"]["fingerprint"] == dataset.fingerprint("val")


def test_a_patch_file_that_was_copied_still_measures(dataset: Dataset, tmp_path: Path):
    save_patch(Patch(torch.ones(3, 4, 4), name="white"), tmp_path / "p.safetensors")
    result = matrix(dataset, tmp_path / "run", {"presets": ()}, given=[load_patch(tmp_path / "p.safetensors")])
    assert result.patches[-1].name == "white" and not result.cell("white", "a").white_box


def test_victims_of_other_classes_are_mapped_or_refused(tmp_path: Path):
    names = "\n".join(CAMVID.names)
    camvid = open_data(write_learnable(tmp_path / "data", classes=names))
    network = torch.nn.Conv2d(3, 19, 1)
    plan = MatrixPlan(presets=(), pictures=0)
    given = [grey_patch((4, 4))]
    cityscapes = Victim.of(network, CITYSCAPES, name="nineteen")
    result = run_matrix([cityscapes], camvid, plan, str(tmp_path / "run"), given=[replace(given[0], name="mine")])
    assert (result.dataset.class_map, result.victims[0].checkpoint_sha256) == (
        "cityscapes -> camvid", cityscapes.provenance.sha256
    )  # fmt: skip
    with pytest.raises(BadInput, match="no class map"):
        run_matrix([conv_victim(0)], camvid, plan, tmp_path / "other", given=given)
    assert not (tmp_path / "other").exists()


def test_a_network_left_in_training_is_named_in_the_result_and_on_the_page(dataset: Dataset, tmp_path: Path):
    from segpatch.report import write_report

    class Training(torch.nn.Module):
        """Uses the statistics of the batch whatever its mode, and keeps those it has seen."""

        def __init__(self) -> None:
            super().__init__()
            self.last = torch.nn.Conv2d(3, 3, 3, padding=1)
            self.norm = torch.nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.norm.train()(x))

    victim = replace(conv_victim(name="a"), module=Training())
    result = run_matrix([victim], dataset, MatrixPlan(overrides=SHORT), tmp_path / "run")
    found = [text for text in result.warnings if text.startswith("a: predicting changes its norm.running_mean")]
    assert len(found) == 1  # the training and the measurement say the same
    assert read_transfer(tmp_path / "run").warnings == result.warnings
    page = write_report(tmp_path / "run", tmp_path / "page").read_text()
    assert "Before you read the numbers" in page and found[0] in page
