"""The page, tables and findings of a study of tiny networks, and of made-up figures with known answers."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segpatch.errors import Missing
from segpatch.names import safe_name
from segpatch.report import write_report
from segpatch.report.ablated import other_distances
from segpatch.report.figures import PUBLISHED, class_curves_svg, curve_svg
from segpatch.report.findings import findings, local_or_far, simple_classes, sky_and_road, unaligned, unseen_sizes
from segpatch.report.record import Study, read_study
from segpatch.studies.paper import run_paper
from test_study_paper import PLAN, VICTIMS
from tiny import conv_victim, learnable_dataset


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"))


def write_study(root: Path) -> Path:
    """A study of tiny networks that holds every part; its directory."""
    plan = replace(
        PLAN,
        losses=("correct-pixel", "gamma-0.8", "cross-entropy"),
        presets=("paper",),
        along=1,
        ablations=("scenes",),
        checkpoints=("c0", "c1"),
        ensembles=(("a", "b"),),
    )
    victims = [*VICTIMS, conv_victim(2, name="a-twin"), *(conv_victim(3 + k, name=f"c{k}") for k in range(2))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "segpatch.studies.matrix.write_report", lambda run, out, **how: None
        )  # its page alone is looked at
        run_paper(
            victims, learnable_dataset(root / "data"), plan, root / "run", command="segpatch study paper <x>"
        )
    return root / "run"


def test_the_page_holds_every_part_and_needs_nothing_else(run: Path):
    page = (run / "report/index.html").read_text()
    for heading in (
        "What holds",
        "Do networks pull the same way?",
        "On the way",
        "Local or far?",
        "Class by class",
        "Where the patch",
    ):
        assert f">{heading}" in page
    assert "segpatch study paper &lt;x&gt;" in page and "<x>" not in page
    assert "<script" not in page and 'src="http' not in page and page.count("data:image/svg+xml") >= 20
    assert "beside the published" not in page.lower(), "these networks are not in the published table"


def test_the_page_of_the_matrix_shows_where_the_damage_lies(run: Path, tmp_path: Path):
    page = write_report(run / "matrix", tmp_path / "matrix").read_text()
    assert "a/paper/s0 on a" in page and "are not in this run" not in page
    figures = {path.name for path in (tmp_path / "matrix/plots").iterdir()}
    assert {f"locality-{safe_name('paper/s0')}.svg", f"places-{safe_name('a/paper/s0 on a')}.svg"} <= figures
    shutil.copytree(run / "matrix", tmp_path / "alone")
    alone = write_report(tmp_path / "alone", tmp_path / "page").read_text()
    spec = json.loads((run / "matrix/config.json").read_text())["data"]["spec"]
    assert f"segpatch study paper --victim NAME --data {spec} --only matrix,locality,places --out DIR" in alone


def test_photographs_of_the_scenes_are_shown_if_asked_for(run: Path, tmp_path: Path):
    assert "image/jpeg" not in write_report(run, tmp_path / "without").read_text()
    assert write_report(run, tmp_path / "with", photographs=True).read_text().count("image/jpeg") == 2


def test_the_tables_hold_what_the_cells_hold(run: Path):
    study = read_study(run)
    with (run / "report/places.csv").open() as file:
        rows = list(csv.DictReader(file))
    wanted = [place for cell in study.cells("places") for place in cell["places"]]
    assert len(rows) == len(wanted) == 5 * 6
    assert [float(row["over_random"]) for row in rows] == [place["over_random"] for place in wanted]
    with (run / "report/alignment.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(study.cells("alignment")) * 9
    text = (run / "report/findings.md").read_text()
    assert text.count("\n- **") == len(findings(study))


def test_the_same_run_gives_the_same_files(run: Path, tmp_path: Path):
    write_report(run, tmp_path / "again")
    files = {path.relative_to(run / "report") for path in (run / "report").rglob("*") if path.is_file()}
    assert files == {path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*.*")}
    assert all((run / "report" / file).read_bytes() == (tmp_path / "again" / file).read_bytes() for file in files)


def test_published_numbers_stand_beside_ours(run: Path, tmp_path: Path):
    """The networks renamed to published ones, and the preset to `released`."""
    shutil.copytree(run, tmp_path / "s")
    for name in ("matrix/transfer.json", "study.json"):
        record = json.loads((tmp_path / "s" / name).read_text())
        for victim in record.get("victims", []):
            victim["network"] = {"a": "pidnet-s", "b": "segformer-b5"}.get(victim["name"], "custom")
        for patch in record.get("patches", []):
            patch["preset"] = "released" if patch["kind"] == "trained" else None
        for cell in record["cells"].values() if name == "study.json" else []:
            cell["classes"] = ["road", "car", "sky"] if cell.get("points") else cell.get("classes")
        extra = {"warnings": ["other <weights>"], "deviations": ["other <scenes>"]} if name == "study.json" else {}
        (tmp_path / "s" / name).write_text(json.dumps(record | extra))
    page = write_report(tmp_path / "s", tmp_path / "out").read_text()
    assert "other &lt;weights&gt;" in page and "other &lt;scenes&gt;" in page
    assert ">Beside the published table" in page and "Run as released" in page
    with (tmp_path / "out/published.csv").open() as file:
        rows = {(row["patch"], row["victim"]): row for row in csv.DictReader(file)}
    matrix = read_study(run).matrices["matrix"]
    cell = matrix.cell("b/paper/s0", "a")
    row = rows["b/paper/s0", "a"]
    assert float(row["miou.ours"]) == cell.miou and float(row["clean_miou.ours"]) == cell.miou_clean
    assert float(row["drop.ours"]) == cell.over_random.drop and float(row["drop.high"]) == cell.over_random.ci95[1]
    assert float(row["miou.theirs"]) == pytest.approx(0.8652362) and ("random/full/s0", "a") in rows
    assert (tmp_path / "out/findings.md").read_text().count("\n| b/paper/s0 on ") == 2
    drawn = {
        path.name: path.read_text().count(PUBLISHED) for path in (tmp_path / "out/plots").glob("*curves-*.svg")
    }
    assert {drawn[f"{part}-{safe_name('a/paper/s0 on a')}.svg"] for part in ("curves", "class-curves")} == {1}
    assert drawn[f"curves-{safe_name('b/paper/s0 on b')}.svg"] == 0, "SegFormer is not in Fig. 2"
    assert "Dashed: Fig. 2 itself" in page and "Dashed" not in (run / "report/index.html").read_text()


def test_curves_show_every_class_and_the_gradient(run: Path):
    curve = read_study(run).cells("curves")[0]
    assert "gradient norm" in curve_svg(curve).decode()
    drawn = class_curves_svg(curve).decode()
    assert all(f">{name}<" in drawn for name in curve["classes"])
    for point in curve["points"]:  # a class that is nowhere has no line, and stops nothing
        point["iou"][0] = point["crop_iou"][0] = None
    assert len(class_curves_svg(curve)) < len(drawn)


def test_losses_are_compared_with_the_best_gamma(run: Path):
    found = {finding.claim: finding for finding in findings(read_study(run))}
    finding = found["the simplified loss is within 0.005 mIoU of the best gamma (on a)"]
    assert any("correct-pixel less gamma-0.8" in line for line in finding.figures)
    assert finding.verdict in ("holds", "does not hold", "undecided")


def test_a_study_that_is_not_there(tmp_path: Path):
    with pytest.raises(Missing, match="finished"):
        read_study(tmp_path)


def study(cells: dict[str, Any]) -> Study:
    return Study(Path(), {"cells": cells}, {})


def test_what_was_not_run_is_said():
    assert {finding.verdict for finding in findings(study({}))} == {"not run"}


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(-0.05, 0.05, "holds"), (0.05, 0.15, "undecided"), (0.2, 0.4, "does not hold")]
)
def test_alignment_by_hand(low: float, high: float, verdict: str):
    cosine, itself = [[1.0, 0.1], [0.1, 1.0]], [0.9, 0.7]
    cell = {"at": "clean", "victims": ["a", "b"], "cosine": cosine, "itself": itself}
    (found,) = unaligned(
        study({"alignment/clean": {**cell, "low": [[1, low], [low, 1]], "high": [[1, high], [high, 1]]}})
    )
    assert found.verdict == verdict
    assert "a network with itself 0.800" in found.figures[0]


@pytest.mark.parametrize(
    ("cnn", "transformer", "verdict"),
    [
        ((0.1, 0.2), (0.3, 0.5), "holds"),
        ((0.1, 0.4), (0.3, 0.5), "undecided"),
        ((0.4, 0.5), (0.1, 0.2), "does not hold"),
    ],
)
def test_local_or_far_by_hand(cnn: tuple[float, float], transformer: tuple[float, float], verdict: str):
    def cell(family: str, bounds: tuple[float, float]) -> dict[str, Any]:
        share = {"value": sum(bounds) / 2, "ci95": bounds}
        return {
            "patch": f"{family}/strong/s0", "victim": family, "family": family,
            "reach": {"remote": share, "r50": {"value": 30.0}},
            "reach_of_even_damage": {"remote": {"value": 0.8}},
        }  # fmt: skip

    (found,) = local_or_far(
        study({"locality/a": cell("cnn", cnn), "locality/b": cell("transformer", transformer)})
    )
    assert found.verdict == verdict and len(found.figures) == 2
    alone = local_or_far(study({"locality/a": cell("cnn", cnn)}))
    assert alone[0].verdict == "undecided"


def test_simple_classes_by_hand():
    classes = [{"class": "sky", "drop": {"value": 0.01}}, {"class": "sign", "drop": {"value": 0.2}}]
    cell = {"patch": "p", "victim": "v", "classes": classes, "rho_share": {"value": -0.6, "ci95": [-0.9, -0.2]}}
    (found,) = simple_classes(study({"locality/p": cell}))
    assert found.verdict == "holds" and found.figures == ("p on v: -0.60 [-0.90, -0.20]; most by sign",)


def test_sizes_by_hand():
    def row(scale: float, fixed: str, low: float) -> dict[str, Any]:
        shown = {"images": "unseen", "frame": "frame", "scale": scale, "fixed": fixed}
        return {**shown, "over_random": low + 0.01, "over_random_ci95": [low, low + 0.02]}

    left_out = {"images": "unseen", "frame": "frame", "scale": 0.25, "fixed": "pixels", "left_out": "too large"}
    rows = [row(1.0, "pixels", 0.01), row(2.0, "pixels", -0.03), row(2.0, "share", 0.02), left_out]
    pixels, share = unseen_sizes(study({"sizes/p": {"patch": "p", "victim": "v", "rows": rows}}))
    assert (pixels.verdict, share.verdict) == ("does not hold", "holds")
    assert pixels.figures == ("p on v: x1 0.020, x2 -0.020",)


def test_the_record_is_what_the_page_is_made_from(run: Path):
    record = json.loads((run / "study.json").read_text())
    ablations = [f"ablations/{name}" for name in ("losses", "scenes", "accuracy")]
    assert record["matrices"] == ["matrix", *ablations]
    assert record["schema"] == 1


def test_sky_and_road_by_hand():
    def cell(road: tuple[float, float]) -> dict[str, Any]:
        drops = {"Sky": {"value": 0.01, "ci95": [0.0, 0.02]}, "Road": {"value": sum(road) / 2, "ci95": road}}
        return {"patch": "p", "victim": "v", "classes": [{"class": k, "drop": drop} for k, drop in drops.items()]}

    for road, wanted in (((0.1, 0.2), "holds"), ((0.01, 0.03), "undecided"), ((-0.2, -0.1), "does not hold")):
        assert sky_and_road(study({"locality/p": cell(road)})).verdict == wanted


def test_distances_by_hand():
    def cell(variant: str, low: float) -> dict[str, Any]:
        row = {"images": "unseen", "frame": "frame", "scale": 0.5, "fixed": "share"}
        rows = [{**row, "over_random": low, "over_random_ci95": [low, low + 0.02]}, {**row, "left_out": "x"}]
        return {"patch": f"a/{variant}/s0", "victim": "a", "rows": rows}

    for low, wanted in ((0.0, "holds"), (0.09, "undecided"), (0.2, "does not hold")):
        cells = {"distances/a": cell("as-it-is", 0.1), "distances/b": cell("no-scaling", low)}
        found = other_distances(study(cells))
        assert found.verdict == wanted and found.figures[0] == "a/as-it-is/s0 on a: x0.5 0.100"


def test_every_ablation_that_ran_is_judged(run: Path):
    ran = {finding.claim: finding for finding in findings(read_study(run)) if finding.verdict != "not run"}
    assert sum("without scaling" in claim for claim in ran) == 2
    assert any("without scene EOT" in claim for claim in ran) and not any("step size" in claim for claim in ran)
    accuracy = next(finding for claim, finding in ran.items() if "network of little accuracy" in claim)
    assert [line.split(":")[0] for line in accuracy.figures] == ["c0", "c1"]
