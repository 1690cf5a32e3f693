from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from segpatch.patch import FULL_RANGE, Patch, as_png, grey_patch, random_patch, rounded, save_patch
from segpatch.patches import catalogue
from segpatch.results import DatasetRecord, transfer_result, write_transfer
from segpatch.transfer import transfer_matrix
from tiny import conv_victim, in_batches, pictures

PATCH = Patch(
    torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0)),
    name="a+b/paper/s0",
    preset="paper",
    trained_on=("a", "b"),
    steps=3,
    seed=0,
)


def write_run(run: Path, images: int) -> dict[tuple[str, str], float]:
    """A transfer run of PATCH with controls; its drops by patch and network."""
    victims = [conv_victim(seed, name=name) for seed, name in enumerate("abc")]
    controls = [grey_patch((4, 4)), random_patch((4, 4), FULL_RANGE, 0)]
    matrix = transfer_matrix(victims, in_batches(pictures(images), images), [*controls, PATCH])
    names = [f"picture{i}" for i in range(images)]
    about = DatasetRecord(
        kind="tiny", split="val", images=images, height=12, width=16, fingerprint="f", names=names,
        groups=names, block=1,
    )  # fmt: skip
    result = transfer_result(
        matrix,
        victims,
        about,
        command="",
        precision="fp32",
        warnings=[],
        files={PATCH.name: "given/p.safetensors"},
    )
    (run / "given").mkdir(parents=True)
    save_patch(PATCH, run / "given/p.safetensors")
    write_transfer(run, result, matrix)
    return {(cell.patch, cell.victim): cell.scores.miou_drop for cell in matrix.cells}


def test_each_patch_once_with_all_that_was_measured_of_it(tmp_path: Path):
    few, many = write_run(tmp_path / "few", 2), write_run(tmp_path / "many", 5)
    (tmp_path / "attack").mkdir()
    save_patch(PATCH, tmp_path / "attack/patch.safetensors")
    (entry,) = catalogue(tmp_path)
    assert entry.files == ("attack/patch.safetensors", "few/given/p.safetensors", "many/given/p.safetensors")
    key = PATCH.name
    drops = {(cell.run, cell.victim): (cell.drop, cell.white_box, cell.verdict is None) for cell in entry.measured}
    assert drops == {
        (run, victim): (pytest.approx(of[key, victim]), victim != "c", victim != "c")
        for run, of in (("few", few), ("many", many))
        for victim in "abc"
    }
    assert [(cell.victim, cell.images) for cell in entry.own] == [("a", 5), ("b", 5)]
    assert entry.drop == pytest.approx(max(many[key, "a"], many[key, "b"]))
    over = many[key, "a"] - many["random/full/s0", "a"]
    assert entry.own[0].over_random == pytest.approx(over) and entry.own[0].over_random_ci95[0] <= over
    facts = json.loads(json.dumps(entry.facts()))
    assert (facts["file"], facts["sha256"], len(facts["measured"])) == (entry.files[0], PATCH.sha256(), 6)


def test_pictures_that_say_so_are_patches_and_all_else_is_passed_over(tmp_path: Path):
    save_patch(grey_patch((2, 2)), tmp_path / "grey.safetensors")  # with its picture beside it
    (tmp_path / "mine.png").write_bytes(as_png(PATCH))
    Image.new("RGB", (4, 4)).save(tmp_path / "street.png")
    (tmp_path / "text.png").write_text("no picture")
    save_file({"conv.weight": torch.zeros(2)}, tmp_path / "network.safetensors")
    (tmp_path / ".patch.safetensors.123").write_bytes(b"half")
    (tmp_path / "snapshots").mkdir()
    save_file({"pixels": torch.zeros(3, 2, 2)}, tmp_path / "snapshots/000001.safetensors")
    (tmp_path / "dangling.safetensors").symlink_to("nowhere")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/transfer.json").write_text("{}")
    found = catalogue(tmp_path)
    assert [(entry.patch.name, entry.files) for entry in found] == [
        ("grey", ("grey.safetensors",)),
        (f"png/{PATCH.name}", ("mine.png",)),
    ]
    assert found[1].patch.sha256() == rounded(PATCH).sha256() and found[1].drop == float("-inf")


def test_of_files_with_the_same_pixels_the_nearest_speaks(tmp_path: Path):
    (tmp_path / "deep").mkdir()
    save_patch(replace(PATCH, name="deep"), tmp_path / "deep/a.safetensors")
    save_patch(replace(PATCH, name="near"), tmp_path / "b.safetensors")
    assert [entry.patch.name for entry in catalogue(tmp_path)] == ["near"]
