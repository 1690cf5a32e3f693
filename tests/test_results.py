from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from segpatch.errors import BadInput, Missing
from segpatch.evaluation import Picture
from segpatch.metrics import miou
from segpatch.models.victim import Provenance, Victim
from segpatch.patch import FULL_RANGE, Patch, grey_patch, random_patch
from segpatch.results import (
    DatasetRecord,
    TransferResult,
    read_scores,
    read_transfer,
    safe_name,
    transfer_csv,
    transfer_result,
    victim_record,
    write_picture,
    write_transfer,
)
from segpatch.transfer import TransferMatrix, transfer_matrix
from segpatch.types import Region
from tiny import conv_victim, in_batches, pictures

SCHEMA = Path(__file__).parents[1] / "docs/transfer.schema.json"
ABOUT = DatasetRecord(
    kind="tiny",
    split="val",
    images=5,
    height=12,
    width=16,
    fingerprint="f" * 64,
    names=[f"picture{i}" for i in range(5)],
    groups=["a"] * 5,
    block=1,
)


@pytest.fixture(scope="module")
def measured() -> tuple[list[Victim], TransferMatrix, TransferResult]:
    """Two networks, two controls and a patch; nothing is labelled sky, so that class has no score."""
    victims = [conv_victim(0, name="a"), conv_victim(1, name="b", family="transformer")]
    pixels = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    own = Patch(pixels, name="a/paper/s0", preset="paper", trained_on=("a",), steps=3, seed=0)
    controls = [grey_patch((4, 4)), random_patch((4, 4), FULL_RANGE, 0)]
    matrix = transfer_matrix(victims, in_batches(pictures(5, classes=2), 5), [*controls, own])
    result = transfer_result(
        matrix,
        victims,
        ABOUT,
        command="segpatch transfer",
        precision="fp32",
        warnings=["mind the gap"],
        files={"a/paper/s0": "cells/own/patch.safetensors"},
    )
    return victims, matrix, result


@pytest.fixture
def run(measured, tmp_path: Path) -> Path:
    write_transfer(tmp_path, measured[2], measured[1])
    return tmp_path


def test_the_schema_is_the_committed_one():
    # A changed schema is a changed contract: write the file anew on purpose only, and say so in CHANGELOG.md.
    schema = json.dumps(TransferResult.model_json_schema(by_alias=True), indent=2, sort_keys=True) + "\n"
    assert SCHEMA.read_text() == schema, f"{SCHEMA} is out of date"


def test_what_is_written_is_read(run: Path, measured):
    assert read_transfer(run).model_dump_json() == measured[2].model_dump_json()


def test_the_file_has_the_names_of_the_contract(run: Path):
    content = json.loads((run / "transfer.json").read_text())
    assert content["schema"] == 1 and content["warnings"] == ["mind the gap"]
    assert [patch["kind"] for patch in content["patches"]] == ["none", "grey", "random", "trained"]
    assert content["patches"][3]["range"] == [[0, 1]] * 3
    assert content["patches"][3]["file"] == "cells/own/patch.safetensors"
    assert [victim["family"] for victim in content["victims"]] == ["cnn", "transformer"]
    own = content["cells"][6]
    assert (own["patch"], own["victim"], own["white_box"]) == ("a/paper/s0", "a", True)
    assert own["miou_drop"] == pytest.approx(own["miou_clean_outside"] - own["miou"])
    assert own["iou"]["sky"] is None or 0 <= own["iou"]["sky"] <= 1
    assert own["over_random"]["verdict"] in ("transfers", "does not", "undecided")
    assert content["cells"][0]["over_random"] is None
    assert content["groups"][0]["patch_group"] == "a/paper"


def test_a_score_that_is_none_is_null(measured):
    _, matrix, _ = measured
    cell = matrix.cells[0]
    empty = replace(cell.scores, patched=cell.scores.patched * 0)
    bare = replace(matrix, cells=(replace(cell, scores=empty, ci95=(float("nan"), 1.0)),), groups=())
    facts = {"command": "", "precision": "fp32", "warnings": [], "files": {}}
    (record,) = transfer_result(bare, measured[0], ABOUT, **facts).cells
    assert (record.miou, record.miou_drop, record.pixel_accuracy, record.ci95) == (None, None, None, (None, 1.0))
    assert set(record.iou.values()) == {None}


def test_scores_can_be_worked_out_again_from_the_raw_rows(run: Path):
    result, rows = read_transfer(run), read_scores(run)
    assert len(rows) == 4 * len(result.cells)
    for index, cell in enumerate(result.cells):
        assert rows[f"{index}/patched"].dtype == torch.int32
        assert rows[f"{index}/patched"].shape == (5, 3, 3)
        assert float(miou(rows[f"{index}/patched"].sum(0))) == cell.miou
        assert float(miou(rows[f"{index}/clean_outside"].sum(0))) == cell.miou_clean_outside
        assert float(miou(rows[f"{index}/clean"].sum(0))) == cell.miou_clean


def test_the_table_has_a_line_a_cell(run: Path, measured):
    text = (run / "transfer.csv").read_text()
    assert text == transfer_csv(measured[2])
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [(line["patch"], line["victim"]) for line in lines] == [(c.patch, c.victim) for c in measured[2].cells]
    own = measured[2].cell("a/paper/s0", "b")
    line = lines[7]
    assert float(line["miou_drop"]) == own.miou_drop and float(line["ci95_low"]) == own.ci95[0]
    assert line["verdict"] == own.over_random.verdict and line["white_box"] == "False"
    assert float(line["iou car"]) == own.iou["car"]
    assert lines[0]["verdict"] == ""


@pytest.mark.parametrize("damage", ["{", "[]", '{"schema": 1}', "\udce9"])
def test_a_damaged_result_is_refused(run: Path, damage: str):
    (run / "transfer.json").write_bytes(damage.encode(errors="surrogateescape"))
    with pytest.raises(BadInput, match=r"is no valid result .* measure again"):
        read_transfer(run)


DISAGREEMENTS = {
    "cell gone": (lambda r: r["cells"].pop(), "one cell for each patch and victim"),
    "names alike": (lambda r: _alike(r), "one cell for each patch and victim"),
    "class gone": (lambda r: r["cells"][0]["iou"].popitem(), "are not about its classes"),
    "colour gone": (lambda r: r["colours"].pop(), "not those of its classes"),
    "colour out of range": (lambda r: r["colours"][0].__setitem__(0, 256), "not those of its classes"),
    "group gone": (lambda r: r["dataset"]["groups"].pop(), "do not go together"),
    "no block": (lambda r: r["dataset"].update(block=0), "do not go together"),
    "infinite": (lambda r: r.update(margin=float("inf")), "finite"),
}


def _alike(record: dict[str, Any]) -> None:
    for about in (*record["patches"], *record["cells"]):
        about.update({key: "x" for key in ("name", "patch") if about.get(key) in ("grey", "random/full/s0")})


@pytest.mark.parametrize(("spoil", "words"), DISAGREEMENTS.values(), ids=DISAGREEMENTS)
def test_a_result_whose_parts_disagree_is_refused(run: Path, spoil: Callable[[Any], object], words: str):
    record = json.loads((run / "transfer.json").read_text())
    spoil(record)
    (run / "transfer.json").write_text(json.dumps(record))
    with pytest.raises(BadInput, match=words):
        read_transfer(run)


def test_an_unknown_key_is_refused(run: Path):
    content = json.loads((run / "transfer.json").read_text())
    (run / "transfer.json").write_text(json.dumps({**content, "extra": 1}))
    with pytest.raises(BadInput, match=r"\(extra: "):
        read_transfer(run)


def test_what_is_not_there_is_missing(tmp_path: Path):
    with pytest.raises(Missing, match=r"no transfer\.json"):
        read_transfer(tmp_path)
    with pytest.raises(Missing, match=r"no scores\.safetensors"):
        read_scores(tmp_path)


def test_damaged_rows_are_refused(run: Path):
    (run / "scores.safetensors").write_bytes(b"damaged!!")
    with pytest.raises(BadInput, match="is damaged"):
        read_scores(run)


@pytest.mark.parametrize(
    ("trained_on", "seen"),
    [(None, False), ("tiny train", False), ("tiny val", True), ("tiny train+val", True), ("camvid val", False)],
)
def test_a_victim_says_whether_it_has_seen_the_split(trained_on: str | None, seen: bool):
    victim = replace(conv_victim(), provenance=Provenance(network="pidnet-s", trained_on=trained_on))
    record = victim_record(victim, ABOUT)
    assert (record.seen_split, record.trained_split, record.network) == (seen, trained_on, "pidnet-s")
    assert record.preprocessing["mean"] == [0, 0, 0]


def test_scenes_are_kept_as_index_maps(tmp_path: Path):
    maps = [torch.full((4, 6), value, dtype=torch.uint8) for value in (1, 2, 255)]
    write_picture(tmp_path, Picture("day1", "a/paper/s0", "net-x", *maps, Region(1, 2, 3, 4)))
    scene = tmp_path / "scenes/day1"
    found = {str(path.relative_to(scene)) for path in scene.rglob("*.*")}
    assert found == {"labels.png", "net-x/clean.png", "net-x/a_paper_s0.png", "a_paper_s0.json"}
    with Image.open(scene / "net-x/a_paper_s0.png") as picture:
        assert picture.mode == "L" and picture.getextrema() == (255, 255) and picture.size == (6, 4)
    assert json.loads((scene / "a_paper_s0.json").read_text()) == {"region": [1, 2, 3, 4]}


def test_file_names_are_safe():
    assert safe_name("pidnet-s+bisenetv2/strong/s0") == "pidnet-s+bisenetv2_strong_s0"
    assert safe_name("0001TP_006690") == "0001TP_006690"
    assert safe_name("none") == "none"


def test_names_stay_apart_and_inside_their_folder(tmp_path: Path):
    names = [
        "..",
        ".",
        "",
        "../../etc/passwd",
        "a/b",
        "a_b",
        "a b",
        "a/p/s0",
        "a_p_s0",
        "a:p:s0",
        "straße/ß",
        "\udc80",
    ]
    names += ["x" * 300, "x" * 301, "日本語" * 90, "a/" * 200 + "s0"]
    files = [safe_name(name) for name in names]
    assert len(set(files)) == len(names)
    for file in files:
        assert Path(file).name == file and not file.startswith(".")
        (tmp_path / f"training-{file}.safetensors").touch()
