"""What the page's script is given, and the patch files beside it."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segpatch.errors import BadInput
from segpatch.names import safe_name
from segpatch.report import gallery, viewer
from segpatch.report.fates import read_counts
from segpatch.report.pictures import NO_TRUTH, index_png, newly_wrong, region_of, told_apart
from segpatch.results import read_transfer
from test_report import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


def data_of(run: Path) -> dict[str, Any]:
    result = read_transfer(run)
    text = viewer.page_data(run, result, read_counts(run, result), {})
    assert "<" not in text  # nothing in it ends the script element
    return json.loads(text)


def indices(text: str) -> np.ndarray:
    """The palette positions of a PNG as the page holds it."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def test_scenes_hold_the_maps_of_the_run_and_exact_shares(run: Path):
    data = data_of(run)
    assert [scene["name"] for scene in data["scenes"]] == ["drive/0", "drive/1"]
    scene, folder = data["scenes"][0], run / "scenes" / safe_name("drive/0")
    seen = safe_name("b<i>eta")
    files = ("labels.png", f"{seen}/clean.png", f"{seen}/grey.png")
    labels, clean, patched = (np.asarray(Image.open(folder / name)) for name in files)
    view = scene["views"]["b<i>eta"]
    shown, share = view["under"]["grey"]
    assert np.array_equal(indices(scene["labels"]), np.where(labels == 255, 4, labels))
    assert np.array_equal(indices(view["clean"]), clean) and np.array_equal(indices(shown), patched)
    region = region_of(folder, "grey")
    wrong = newly_wrong(labels, clean, patched, region).sum() / (labels != 255).sum()
    assert share == pytest.approx(wrong, abs=1e-5) and share > 0
    assert scene["regions"]["grey"] == list(region) and "photograph" not in scene


def test_cells_hold_what_the_result_says(run: Path):
    result, cells = read_transfer(run), data_of(run)["cells"]
    assert len(cells) == len(result.cells) - 2  # the clean row is no patch
    for shown in cells:
        cell = result.cell(shown["patch"], shown["victim"])
        assert (shown["drop"], tuple(shown["ci95"]), shown["own"]) == (cell.miou_drop, cell.ci95, cell.white_box)
        assert {one["name"]: one["attacked"] for one in shown["classes"]} == cell.iou
        assert [one["right"] is None for one in shown["classes"]] == [False] * 3 + [True]  # no unicorn is labelled


def test_maps_are_thinned_until_they_fit(run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(viewer, "WIDTHS", (48, 24, 8))
    whole, scenes = [], data_of(run)["scenes"]
    for scene in scenes:
        whole += [scene["labels"], *(m for v in scene["views"].values() for m, _ in v["under"].values())]
        whole += [view["clean"] for view in scene["views"].values()]
    monkeypatch.setattr(viewer, "MOST_BYTES", sum(map(len, whole)))
    assert data_of(run)["scenes"] == scenes
    monkeypatch.setattr(viewer, "MOST_BYTES", sum(map(len, whole)) - 1)
    thinner = data_of(run)["scenes"][0]
    assert np.array_equal(indices(thinner["labels"]), indices(scenes[0]["labels"])[::2, ::2])
    assert thinner["size"] == [24, 48] and thinner["views"]["alpha"]["under"]["grey"][1] > 0
    monkeypatch.setattr(viewer, "MOST_BYTES", 1)  # one of the thinnest is taken, whatever it weighs
    data = data_of(run)
    assert [indices(scene["labels"]).shape for scene in data["scenes"]] == [(4, 8)]
    assert (data["kept"], len(scenes)) == (2, 2)


def test_an_index_without_a_class_is_refused(tmp_path: Path):
    run = write_run(tmp_path)
    Image.fromarray(np.full((24, 48), 4, np.uint8)).save(run / "scenes" / safe_name("drive/1") / "alpha/clean.png")
    with pytest.raises(BadInput, match=r"clean\.png holds an index beyond the 4 classes; measure again"):
        data_of(run)


def test_maps_of_one_scene_are_of_one_size(tmp_path: Path):
    run = write_run(tmp_path)
    Image.fromarray(np.zeros((12, 48), np.uint8)).save(run / "scenes" / safe_name("drive/1") / "alpha/clean.png")
    with pytest.raises(BadInput, match=r"the index maps of .* differ in size; measure again"):
        data_of(run)


@pytest.mark.parametrize("said", ["{}", '{"region": 4}', '{"region": ["a", 0, 1, 1]}', '{"region": [0, 0, 1]}'])
def test_a_scene_says_where_the_patch_lies(tmp_path: Path, said: str):
    run = write_run(tmp_path)
    (run / "scenes" / safe_name("drive/1") / "grey.json").write_text(said)
    with pytest.raises(BadInput, match=r"grey\.json names no region; measure again"):
        data_of(run)


def test_a_colour_says_its_class():
    colours = [(1, 2, 3), (1, 2, 3), NO_TRUTH, (0, 0, 255), (0, 0, 255)]
    apart = told_apart(colours)
    assert len({*apart, NO_TRUTH}) == 6 and apart[0] == (1, 2, 3)
    assert all(
        one[:2] == other[:2] and abs(one[2] - other[2]) <= 1 for one, other in zip(apart, colours, strict=True)
    )
    picture = Image.open(io.BytesIO(index_png(np.array([[1, 4, 255]], np.uint8), apart)))
    assert picture.mode == "P" and np.asarray(picture).tolist() == [[1, 4, 5]]
    assert np.asarray(picture.convert("RGB")).tolist() == [[[*apart[1]], [*apart[4]], [*NO_TRUTH]]]


def test_patch_files_are_exact_while_they_fit_and_pictures_beyond(run: Path, monkeypatch: pytest.MonkeyPatch):
    result = read_transfer(run)

    def downloads() -> dict[str, gallery.Download | None]:
        cards = gallery.patch_cards(run, result, {}, {patch.name: [] for patch in result.patches}, False)
        return {card.record.name: card.download for card in cards}

    held = downloads()
    assert held["natural"] is None  # cut from a photograph, which this run does not show
    assert held["grey"].exact and held["grey"].name == "grey.safetensors"
    monkeypatch.setattr(gallery, "MOST_BYTES", len(held["grey"].uri))
    fewer = downloads()
    assert fewer["grey"].exact and not fewer["alpha/strong/s0"].exact
    assert fewer["alpha/strong/s0"].name == "alpha_strong_s0.png"
    assert fewer["alpha/strong/s0"].uri.startswith("data:image/png")


def test_the_range_of_each_channel_has_its_letter(run: Path):
    record = read_transfer(run).patches[1].model_copy(update={"range": [(0.0, 1.0), (0.0, 1.0), (0.2, 0.5)]})
    assert gallery._range(record) == "R 0 to 1; G 0 to 1; B 0.2 to 0.5"
