from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from segpatch.data.images import split_images
from segpatch.errors import BadInput
from segpatch.patch import Patch
from segpatch.studies import estimate
from segpatch.studies.estimate import Estimate, estimate_attack, estimate_matrix, peak_memory
from segpatch.studies.planned import MatrixPlan
from tiny import TINY, conv_victim, learnable_dataset


@pytest.fixture(autouse=True)
def one_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every piece of work takes one second, and is really done."""

    def seconds(work) -> float:
        work()
        return 1.0

    monkeypatch.setattr(estimate, "seconds_of", seconds)


def test_an_attack_costs_its_steps(tmp_path: Path):
    images = split_images(learnable_dataset(tmp_path), "train")
    config = replace(TINY, steps=120, batch_size=6)  # measured with 2 images a step: 3 seconds for all 6
    found = estimate_attack([conv_victim()], images, config)
    assert found.pieces == (("conv/paper/s0, 120 steps", 6.0),)
    assert found.memory > 0.05
    with pytest.raises(BadInput, match="does not fit"):
        estimate_attack([conv_victim()], images, replace(TINY, patch_size=(11, 4)))


def test_a_matrix_costs_its_cells(tmp_path: Path):
    dataset = learnable_dataset(tmp_path)
    victims = [conv_victim(name="a"), conv_victim(name="b")]
    small = {"steps": 60, "batch_size": 2, "patch_size": (4, 4), "crop": (10, 10)}
    found = estimate_matrix(victims, dataset, MatrixPlan(seeds=(0, 1), overrides=small))
    # Clean, four patches, grey, natural and one random control, on four images.
    assert [name for name, _ in found.pieces][-1] == "measure 8 rows on b, 4 images"
    assert [minutes for _, minutes in found.pieces] == pytest.approx([1, 1, 1, 1, 8 * 4 / 60, 8 * 4 / 60])
    assert found.minutes == pytest.approx(4 + 2 * 32 / 60)
    ready = [Patch(torch.zeros(3, 4, 4))]
    found = estimate_matrix(victims, dataset, MatrixPlan(presets=(), measured=3), ready)
    assert [name for name, _ in found.pieces] == [f"measure 5 rows on {name}, 3 images" for name in "ab"]


def test_what_was_tried_or_is_finished_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    dataset, victims = learnable_dataset(tmp_path), [conv_victim(name="a")]
    small = {"steps": 60, "batch_size": 2, "patch_size": (4, 4), "crop": (10, 10)}
    plan, tried = MatrixPlan(seeds=(0, 1), overrides=small), {}
    first = estimate_matrix(victims, dataset, plan, tried=tried)
    monkeypatch.setattr(estimate, "seconds_of", lambda work: pytest.fail("was tried already"))
    assert estimate_matrix(victims, dataset, plan, tried=tried) == replace(first, memory=peak_memory())
    (tmp_path / "run/cells/a_paper_s1").mkdir(parents=True)
    (tmp_path / "run/cells/a_paper_s1/patch.safetensors").touch()
    left = estimate_matrix(victims, dataset, plan, out=tmp_path / "run", tried=tried)
    assert left.pieces == (first.pieces[0], first.pieces[2])
    (tmp_path / "run/transfer.json").touch()
    assert estimate_matrix(victims, dataset, plan, out=tmp_path / "run", tried=tried).pieces == first.pieces[:1]


def test_what_is_said():
    text = Estimate((("one", 1.25), ("two", 2.5)), memory=0.52).describe()
    assert text.splitlines()[:2] == ["one: about 1.2 minutes", "two: about 2.5 minutes"]
    assert text.splitlines()[2].startswith("in all about 4 minutes and 0.5 GiB of memory")
