"""The page of a transfer run, made from a small run directory that the real functions wrote."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from segpatch.checks import still_falling
from segpatch.data.classes import ClassSet
from segpatch.errors import BadInput, Missing
from segpatch.models.victim import Victim
from segpatch.patch import Patch, grey_patch, natural_patch, random_patch, save_patch
from segpatch.plots import figure
from segpatch.report import write_report
from segpatch.report.compare import write_comparison
from segpatch.report.facts import class_table, rows_in_order, under_trained
from segpatch.report.pictures import WRONG, change_map, newly_wrong, outline, paint, png_uri
from segpatch.report.verdicts import verdicts
from segpatch.results import (
    DatasetRecord,
    read_transfer,
    safe_name,
    transfer_result,
    write_picture,
    write_transfer,
)
from segpatch.runs import write_json
from segpatch.transfer import transfer_matrix
from segpatch.types import Batch, Region

CLASSES = ClassSet(
    "tiny", ("road", "<b>sky</b>", "car", "unicorn"), ((128, 64, 128), (70, 130, 180), (0, 0, 142), (9, 9, 9))
)
WARNING = "first & worst: <script>alert(1)</script>"


class Blur(nn.Module):
    """Logits from the colour around a pixel; the last class is never predicted."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.conv = nn.Conv2d(3, 4, 7, padding=3)
        self.conv.weight.data = torch.randn(4, 3, 7, 7, generator=generator)
        self.conv.bias.data = torch.tensor([0.0, 0.0, 0.0, -1e4])

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def write_run(run: Path, *, side: int = 24, images: int = 6, photographs: bool = False) -> Path:
    """A transfer run: two networks, three trained patches (two seeds of one), three controls, two scenes."""
    victims = [
        Victim(Blur(seed), name=name, classes=CLASSES) for seed, name in enumerate(("alpha", "b<i>eta"), start=1)
    ]
    generator = torch.Generator().manual_seed(0)
    scenes = torch.rand(images, 3, side, 2 * side, generator=generator)
    labels = victims[0](scenes).argmax(1)
    labels[:, :2] = 255
    names = tuple(f"drive/{index}" for index in range(images))
    size = (side // 3, side // 3)
    trained = [
        Patch(torch.rand(3, *size, generator=generator).round(), name=f"{name}/strong/s{seed}",
              preset="strong", trained_on=(name,), loss="correct-pixel", steps=40, seed=seed)
        for name, seed in (("alpha", 0), ("alpha", 1), ("b<i>eta", 0))
    ]  # fmt: skip
    controls = [grey_patch(size), random_patch(size, trained[0].range, 0), natural_patch(size, scenes[0], 0)]
    files = {patch.name: f"controls/{safe_name(patch.name)}.safetensors" for patch in controls}
    files |= {patch.name: f"cells/{safe_name(patch.name)}/patch.safetensors" for patch in trained}
    for patch in (*controls, *trained):
        (run / files[patch.name]).parent.mkdir(parents=True, exist_ok=True)
        save_patch(patch, run / files[patch.name])
    for patch in trained:
        rows = [
            {"step": k, "loss": 1 + k / 40, "correct": 0.9 - (0.02 * k if patch.seed == 1 else 0),
             "gradient_norm": 1.0, "saturated": 0.25}
            for k in range(1, 41)
        ]  # fmt: skip
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (run / files[patch.name]).with_name("steps.jsonl").write_text(text)
    matrix = transfer_matrix(
        victims,
        [Batch(scenes, labels, names)],
        [*controls, *trained],
        on_picture=lambda picture: write_picture(run, picture),
        pictures=frozenset(names[:2]),
    )
    for name, scene in zip(names[:2] if photographs else (), scenes, strict=False):
        pixels = (scene * 255).to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(run / "scenes" / safe_name(name) / "image.png")
    record = DatasetRecord(kind="folder", split="test", images=images, height=side, width=2 * side,
                           fingerprint="f" * 64, names=list(names), groups=list(names), block=1)  # fmt: skip
    result = transfer_result(matrix, victims, record, command="segpatch transfer --out 'a <b>'",
                             precision="fp32", warnings=[WARNING], files=files)  # fmt: skip
    write_json(run / "config.json", {"command": "transfer", "overrides": {"steps": 40}})
    write_json(run / "environment.json", {"versions": {"torch": "9.9"}, "git": "abc123+"})
    write_transfer(run, result, matrix)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(run, tmp_path_factory.mktemp("out") / "report").read_text()


def test_page_asks_for_no_other_file(page):
    read = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)  # what it asks for, test_page.py watches
    asked = re.findall(r"""(?:src|href|srcset|url)\s*[=(]\s*["']?([^"'\s)>]*)""", read)
    assert asked and all(text.startswith(("data:", "#")) for text in asked)
    assert "@import" not in page


def test_page_holds_every_name_and_number_of_the_matrix(run, page):
    result = read_transfer(run)
    for cell in result.cells:
        escaped = [name.replace("<", "&lt;").replace(">", "&gt;") for name in (cell.patch, cell.victim)]
        assert all(name in page for name in escaped if name != "none")
        if cell.patch != "none":
            low, high = cell.ci95
            assert f"<b>{figure(cell.miou_drop)}</b><small>[{figure(low)}, {figure(high)}]</small>" in page
        else:
            assert f"<b>{figure(cell.miou_clean)}</b>" in page
    assert max(cell.miou_drop for cell in result.cells) > 0.05  # else the numbers above say nothing


def test_page_escapes_what_it_was_given(page):
    for tag in ("<script>alert", "<b>sky", "<i>eta", "'a <b>'"):
        assert tag not in page
    assert "first &amp; worst: &lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_page_names_classes_that_never_occur_and_how_it_was_made(page):
    assert "Never occurring: unicorn." in page
    assert "segpatch transfer --out" in page and "abc123+" in page and "f" * 64 in page
    assert "Over seeds" in page and "seeds 0, 1" in page


def test_only_the_still_falling_patch_is_called_under_trained(page):
    cards = re.findall(r"<article.*?</article>", page, re.S)
    marked = [card for card in cards if "Under-trained" in card]
    assert len(cards) == 6 and len(marked) == 1 and "alpha/strong/s1" in marked[0]


def test_photographs_are_shown_only_if_asked_for(page, tmp_path):
    assert "image/jpeg" not in page and "Cut from a scene" in page
    kept = write_run(tmp_path / "run", photographs=True)
    without = write_report(kept, tmp_path / "without").read_text()
    assert "image/jpeg" not in without and "Cut from a scene" in without
    shown = write_report(kept, tmp_path / "out", photographs=True).read_text()
    assert shown.count("data:image/jpeg") == 4 and "Cut from a scene" not in shown  # two each: viewer, no script


def test_figures_lie_beside_the_page(run, tmp_path):
    write_report(run, tmp_path)
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert {"matrix.svg", "classes-alpha.svg", "training-alpha_strong_s0.svg"} <= names


def test_a_bare_result_is_enough(run, tmp_path):
    shutil.copy(run / "transfer.json", tmp_path)
    text = write_report(tmp_path, tmp_path / "out").read_text()
    assert "No picture in the run directory" in text and 'id="scenes"' not in text


def test_pictures_outside_the_run_are_not_shown(run, tmp_path):
    (tmp_path / "run").mkdir()
    shutil.copy(run / "controls" / "grey.png", tmp_path / "secret.png")
    text = (run / "transfer.json").read_text().replace("controls/grey.", "../secret.")
    (tmp_path / "run" / "transfer.json").write_text(text)
    assert 'class="pixels"' not in write_report(tmp_path / "run", tmp_path / "out").read_text()


def test_missing_run_and_damaged_picture(run, tmp_path):
    with pytest.raises(Missing, match=r"transfer\.json"):
        write_report(tmp_path, tmp_path / "out")
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "scenes" / safe_name("drive/0") / "labels.png").write_bytes(b"no picture")
    with pytest.raises(BadInput, match=r"labels\.png"):
        write_report(tmp_path / "run", tmp_path / "out")


@pytest.mark.parametrize("link", ["config.json", "scenes/x", "report"])
def test_a_run_shows_and_writes_nothing_outside_of_it(run, tmp_path, link):
    shutil.copytree(run, tmp_path / "run")
    secret = tmp_path / "secret"
    secret.mkdir()
    (tmp_path / "run" / link).unlink(missing_ok=True)
    (tmp_path / "run" / link).symlink_to(secret)
    for write in (lambda: write_report(tmp_path / "run", tmp_path / "run/report"),
                  lambda: write_comparison(run, tmp_path / "run", tmp_path / "out")):  # fmt: skip
        with pytest.raises(BadInput, match=f"{link} is a link out of"):
            write()
    assert not list(secret.iterdir()) and not (tmp_path / "out").exists()


def test_summary_is_computed_from_the_cells(run):
    result = read_transfer(run)
    answers = verdicts(result, [])
    text = " ".join(sentence for answer in answers for sentence in answer.sentences)
    own = result.cell("alpha/strong/s0", "alpha")
    interval = f"[{figure(own.ci95[0])}, {figure(own.ci95[1])}]"
    assert f"alpha loses {figure(own.miou_drop)} mIoU {interval} to alpha/strong/s0" in text
    broken = {c.victim for c in result.cells if c.white_box and c.over_random.ci95[0] > result.margin}
    assert answers[0].figure == f"{len(broken)} of 2"
    foreign = [c.over_random.verdict for c in result.cells if "strong" in c.patch and not c.white_box]
    assert f"Of 3 measurements on other networks, {foreign.count('transfers')} transfer (more" in text
    random = [c.miou_drop for c in result.cells if c.patch.startswith("random")]
    assert f"random control costs {figure(sum(random) / 2)}" in text


def test_controls_come_first_and_foreign_is_never_own(run):
    result = read_transfer(run)
    assert [heading for heading, _ in rows_in_order(result)] == ["controls", "preset strong"]
    roles = {one.role: one.name for one in class_table(result, "alpha").series}
    assert roles["own"].startswith("own: alpha/") and roles["foreign"] == "foreign: b<i>eta/strong/s0"


def test_class_predicted_only_under_a_patch_is_a_phantom(run):
    result = read_transfer(run)
    cells = [
        replace_iou(cell, "unicorn", 0.0) if cell.patch == "grey" and cell.victim == "alpha" else cell
        for cell in result.cells
    ]
    changed = result.model_copy(update={"cells": cells})
    assert class_table(changed, "alpha").phantom == ["unicorn"]
    assert class_table(changed, "b<i>eta").phantom == []


def replace_iou(cell, name, value):
    return cell.model_copy(update={"iou": {**cell.iou, name: value}})


@pytest.mark.parametrize(
    ("correct", "falling"),
    [
        ([0.9 - 0.01 * k for k in range(40)], True),  # straight down: the last quarter loses 0.1 of 0.39
        ([0.9] * 40, False),
        ([0.9 - 0.02 * min(k, 20) for k in range(40)], False),  # flat in the last half
        ([0.9 + 0.01 * k for k in range(40)], False),
        ([0.9 - 0.0001 * k for k in range(40)], False),  # 0.001 in the last quarter
        ([0.9 - 0.001 * k + 0.2 * (k % 2) for k in range(40)], False),  # lost in noise
        ([0.9 - 0.04 * k for k in range(19)], False),  # too few steps to say
        ([], False),
    ],
)
def test_still_falling(correct, falling):
    assert still_falling(correct) is falling


def test_warning_of_the_run_makes_a_patch_under_trained():
    assert under_trained("a/paper/s0", ["a/paper/s0: under-trained, the share ..."], [])
    assert not under_trained("a/paper/s0", ["a/paper/s01: under-trained, the share ..."], [])


def test_newly_wrong_by_hand():
    labels = np.array([[0, 0, 1, 255]], np.uint8)
    clean = np.array([[0, 1, 1, 0]], np.uint8)
    patched = np.array([[1, 0, 0, 1]], np.uint8)
    nowhere, third = Region(0, 0, 0, 0), Region(0, 2, 1, 1)
    assert newly_wrong(labels, clean, patched, nowhere).tolist() == [[True, False, True, False]]
    assert newly_wrong(labels, clean, patched, third).tolist() == [[True, False, False, False]]


def test_maps_by_hand():
    colours = [(10, 20, 30), (200, 100, 0)]
    painted = paint(np.array([[0, 1, 255]], np.uint8), colours)
    assert painted[0, :2].tolist() == [[10, 20, 30], [200, 100, 0]]
    field = np.zeros((9, 9), np.uint8)
    wrong = field.copy()
    wrong[0, 0] = wrong[4, 4] = 1
    changed = change_map(field, field, wrong, Region(2, 2, 5, 5), colours)
    assert tuple(changed[0, 0]) == WRONG and tuple(changed[4, 4]) != WRONG
    framed = outline(np.full((9, 9, 3), 100, np.uint8), Region(2, 2, 5, 5))
    assert framed[:, 4, 0].tolist() == [100, 100, 0, 255, 100, 255, 0, 100, 100]


def test_large_maps_are_thinned_out():
    uri = png_uri(np.zeros((10, 2048, 3), np.uint8))
    size = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).size
    assert size == (683, 4)


def test_result_without_trained_patches(run, tmp_path):
    result = read_transfer(run)
    bare = result.model_copy(
        update={"patches": result.patches[:1], "cells": result.cells[:2], "groups": [], "warnings": []}
    )
    write_json(tmp_path / "transfer.json", bare.model_dump(by_alias=True))
    text = write_report(tmp_path, tmp_path / "out").read_text()
    assert "No trained patch was measured." in text and "Before you read" not in text


def test_the_page_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What goes on with a run that was killed takes its page for the sign that all of it is there."""
    run = write_run(tmp_path / "run")

    def killed(*what: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("segpatch.report.page.write_tables", killed)
    with pytest.raises(KeyboardInterrupt):
        write_report(run, tmp_path / "out")
    assert (tmp_path / "out/plots").is_dir() and not (tmp_path / "out/index.html").exists()
