"""The page, tables and findings of a study of tiny networks, and of made-up figures with known answers."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from segpatch.errors import BadInput, Missing
from segpatch.names import safe_name
from segpatch.report import write_report
from segpatch.report.ablated import other_distances
from segpatch.report.excess import excesses
from segpatch.report.figures import PUBLISHED, class_curves_svg, curve_svg
from segpatch.report.findings import (
    cut_out,
    findings,
    local_or_far,
    simple_classes,
    sky_and_road,
    unseen_images,
    unseen_sizes,
)
from segpatch.report.mechanisms import level_loss, unaligned
from segpatch.report.record import Study, read_study
from segpatch.statistics import verdict
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
    victims = [VICTIMS[0], conv_victim(2, name="a-twin"), VICTIMS[1]]
    victims += [conv_victim(3 + k, name=f"c{k}") for k in range(2)]
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
        "How far it reaches",
        "Class by class",
        "Where the patch",
    ):
        assert f">{heading}" in page
    assert "segpatch study paper &lt;x&gt;" in page and "<x>" not in page
    assert "<script" not in page and 'src="http' not in page and page.count("data:image/svg+xml") >= 20
    assert "beside the published" not in page.lower(), "these networks are not in the published table"


def test_scenes_name_the_family_and_set_cnn_and_transformer_side_by_side(run: Path):
    page = (run / "report/index.html").read_text()
    section = page.partition("Local or far, as predicted")[2].partition('id="places"')[0]
    turns = ["a (CNN) under a/paper/s0", "b (transformer) under b/paper/s0", "a-twin (CNN) under a-twin/paper/s0"]
    assert re.findall("<h4>(.*?)</h4>", section) == turns * 2, "two scenes"
    assert section.count("data:image/png") == 2 * (1 + 3 * 3), "labels; clean, attacked and changed of each"
    assert len(re.findall(r"newly wrong outside the patch</figcaption>", section)) == 2 * 3


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


def test_a_study_without_a_matrix_has_no_photographs(run: Path, tmp_path: Path):
    record = json.loads((run / "study.json").read_text()) | {"matrices": [], "cells": {}}
    (tmp_path / "study.json").write_text(json.dumps(record))
    with pytest.raises(BadInput, match="has no matrix whose scenes could be shown; leave out --with-images"):
        write_report(tmp_path, tmp_path / "report", photographs=True)


def test_the_tables_hold_what_the_cells_hold(run: Path):
    study = read_study(run)
    with (run / "report/places.csv").open() as file:
        rows = list(csv.DictReader(file))
    wanted = [place for cell in study.cells("places") for place in cell["places"]]
    assert len(rows) == len(wanted) == 5 * 6
    assert [float(row["over_random"]) for row in rows] == [place["over_random"] for place in wanted]
    with (run / "report/alignment.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(study.cells("alignment")) * 9
    with (run / "report/verdicts.csv").open() as file:
        rows = list(csv.DictReader(file))
    judged = excesses(study)
    assert len(rows) == len(judged) > 0
    for row, one in zip(rows, judged, strict=True):
        assert (row["patch"], row["network"], row["own"]) == (one.patch, one.victim, str(one.own))
        for margin in ("0.005", "0.01", "0.02"):
            assert row[f"over_random, at {margin}"] == verdict(
                one.over_random.low, one.over_random.high, float(margin)
            )
    cells = study.cells("locality")
    with (run / "report/reach.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["patch"], row["victim"], row["family"]) for row in rows] == [
        (cell["patch"], cell["victim"], cell["family"]) for cell in cells
    ]
    for row, cell in zip(rows, cells, strict=True):
        for key in ("r50", "r90", "remote"):
            value, even = cell["reach"][key], cell["reach_of_even_damage"][key]["value"]
            wanted = {key: value["value"], f"{key}_low": value["ci95"][0], f"{key}_high": value["ci95"][1]}
            wanted[f"{key}_even"] = even
            assert {name: float(row[name]) if row[name] else None for name in wanted} == wanted
    with (run / "report/distance.csv").open() as file:
        rows = list(csv.DictReader(file))
    shares = [share for cell in cells for share in cell["flips"]]
    assert len(rows) == len(shares) == 7 * len(cells) and any(row["patched"] for row in rows)
    for row, share in zip(rows, shares, strict=True):
        assert row["patched_high"] == str(share["patched"]["ci95"][1] if row["patched_high"] else "")
        assert row["control"] == ("" if share["control"]["value"] is None else str(share["control"]["value"]))
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
    finding = found["the simplified loss is within 0.005 mIoU of the best gamma (third experiment, on a)"]
    assert any("correct-pixel less the best of 1, gamma-0.8" in line for line in finding.figures)
    assert finding.verdict in ("holds", "does not hold", "undecided")


def test_a_study_that_is_not_there(tmp_path: Path):
    with pytest.raises(Missing, match="finished"):
        read_study(tmp_path)


def study(cells: dict[str, Any]) -> Study:
    return Study(Path(), {"cells": cells}, {})


def test_what_was_not_run_is_said():
    assert {finding.verdict for finding in findings(study({}))} == {"not run"}


def of_networks(cells: dict[str, Any], **networks: str) -> Study:
    victims = [SimpleNamespace(name=name, network=network) for name, network in networks.items()]
    matrix: Any = SimpleNamespace(victims=victims)
    return Study(Path(), {"cells": cells}, {"matrix": matrix})


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(-0.05, 0.05, "holds"), (0.05, 0.15, "undecided"), (0.2, 0.4, "does not hold")]
)
def test_alignment_by_hand(low: float, high: float, verdict: str):
    middle = (low + high) / 2
    cell = {"at": "clean", "victims": ["a", "b"], "cosine": [[1.0, middle], [middle, 1.0]], "itself": [0.9, 0.4]}
    cells = {"alignment/clean": {**cell, "low": [[1, low], [low, 1]], "high": [[1, high], [high, 1]]}}
    strangers, twins = unaligned(of_networks(cells, a="pidnet-s", b="bisenetv2"))
    assert (strangers.verdict, twins.verdict) == (verdict, "not run")
    assert "networks with themselves 0.600" in strangers.figures[0]
    strangers, twins = unaligned(of_networks(cells, a="pidnet-s", b="pidnet-s"))
    assert strangers.verdict == "not run"
    assert twins.verdict == {"holds": "does not hold", "does not hold": "holds"}.get(verdict, verdict)
    noisy = {"alignment/clean": {**cells["alignment/clean"], "itself": [0.9, 0.05]}}
    strangers, _ = unaligned(of_networks(noisy, a="pidnet-s", b="bisenetv2"))
    assert strangers.verdict == "undecided" and "1 of 1 pairs left out, too noisy" in strangers.figures[0]


def local(patch: str, victim: str, family: str = "cnn", flips: float = 0.01, **more: Any) -> dict[str, Any]:
    """A cell of damage by place and class, with a share of newly wrong pixels surely above `flips` or not."""
    rate = {"value": flips + 0.01, "ci95": (flips, flips + 0.02)}
    return {"patch": patch, "victim": victim, "family": family, "flip_rate": rate, "blocks": 8, **more}


@pytest.mark.parametrize(
    ("cnn", "transformer", "verdict"),
    [
        ((0.1, 0.2), (0.3, 0.5), "holds"),
        ((0.1, 0.4), (0.3, 0.5), "undecided"),
        ((0.4, 0.5), (0.1, 0.2), "does not hold"),
    ],
)
def test_local_or_far_by_hand(cnn: tuple[float, float], transformer: tuple[float, float], verdict: str):
    def cell(family: str, bounds: tuple[float, float], flips: float = 0.01) -> dict[str, Any]:
        share = {"value": sum(bounds) / 2, "ci95": bounds}
        reach = {"remote": share, "r50": {"value": 30.0}, "r90": {"value": 80.0}}
        even = {"remote": {"value": 0.8}}
        return local(f"{family}/strong/s0", family, family, flips, reach=reach, reach_of_even_damage=even)

    both = {"locality/a": cell("cnn", cnn), "locality/b": cell("transformer", transformer)}
    (found,) = local_or_far(study(both))
    assert found.verdict == verdict and len(found.figures) == 2
    assert "nine tenths within 80 px" in found.figures[0]
    (alone,) = local_or_far(study({"locality/a": cell("cnn", cnn)}))
    assert alone.verdict == "undecided"
    (harmless,) = local_or_far(study({**both, "locality/b": cell("transformer", transformer, flips=-0.01)}))
    assert harmless.verdict == "undecided" and "left out" in harmless.figures[1]
    few = {name: {**one, "blocks": 7} for name, one in both.items()}
    (found,) = local_or_far(study(few))
    assert found.verdict == "undecided", "seven images prove nothing"


def test_simple_classes_by_hand():
    drops = {"sky": 0.01, "sign": 0.2} | {f"class{k}": 0.1 for k in range(17)}
    classes = [{"class": name, "drop": {"value": drop}} for name, drop in drops.items()]
    rho = {"rho_share": {"value": -0.8, "ci95": [-0.9, -0.7]}, "rho_distance": {"value": 0.3, "ci95": [0.1, 0.5]}}
    (found,) = simple_classes(study({"locality/p": local("p", "v", classes=classes, **rho)}))
    assert found.verdict == "holds"
    (line,) = found.figures
    assert line.startswith("p on v: -0.80 [-0.9") and line.endswith(
        "distance from the patch 0.30; most lost by sign"
    )
    (few,) = simple_classes(study({"locality/p": local("p", "v", classes=classes[:4], **rho)}))
    assert few.verdict == "undecided", "four classes say little of classes, whatever the images say"
    (harmless,) = simple_classes(study({"locality/p": local("p", "v", flips=-0.01, classes=classes, **rho)}))
    assert harmless.verdict == "undecided"


def size_row(scale: float, fixed: str, low: float, images: str = "unseen", frame: str = "frame") -> dict[str, Any]:
    shown = {"images": images, "frame": frame, "scale": scale, "fixed": fixed}
    return {**shown, "over_random": low + 0.01, "over_random_ci95": [low, low + 0.02], "blocks": 16}


def sizes(*rows: dict[str, Any]) -> Study:
    return study({"sizes/p": {"patch": "p", "victim": "v", "rows": list(rows)}})


def test_sizes_by_hand():
    left_out = {"images": "unseen", "frame": "frame", "scale": 0.25, "fixed": "pixels", "left_out": "too large"}
    rows = [size_row(1.0, "pixels", 0.01), size_row(2.0, "pixels", -0.03), size_row(2.0, "share", 0.02), left_out]
    pixels, share = unseen_sizes(sizes(*rows))
    assert (pixels.verdict, share.verdict) == ("does not hold", "holds")
    assert pixels.figures == ("p on v: x1 0.020 [0.010, 0.030], x2 -0.020 [-0.030, -0.010]",)
    harmless, _ = unseen_sizes(sizes(size_row(1.0, "pixels", -0.01), *rows[1:]))
    assert harmless.verdict == "undecided" and "left out" in harmless.figures[0]
    few, _ = unseen_sizes(sizes(*({**row, "blocks": 7} for row in rows)))
    assert few.verdict == "undecided", "seven images prove nothing"


@pytest.mark.parametrize(
    ("trained", "wanted"),
    [(0.02, "undecided"), (0.06, "does not hold"), (0.021, "undecided"), (0.002, "undecided")],
)
def test_unseen_images_by_hand(trained: float, wanted: str):
    native = [
        size_row(1.0, "pixels", 0.02),
        size_row(1.0, "pixels", 0.02, frame="crop"),
        size_row(1.0, "pixels", trained, images="trained"),
        size_row(1.0, "pixels", trained, images="trained", frame="crop"),
    ]
    assert unseen_images(sizes(*native)).verdict == wanted
    sharp = [
        {**row, "over_random_ci95": [row["over_random"] - 0.001, row["over_random"] + 0.001]} for row in native
    ]
    assert unseen_images(sizes(*sharp)).verdict == (
        "holds" if trained < 0.03 and trained > 0.01 else "does not hold"
    )
    assert cut_out(sizes(*sharp)).verdict == "holds"


def test_the_record_is_what_the_page_is_made_from(run: Path):
    record = json.loads((run / "study.json").read_text())
    ablations = [f"ablations/{name}" for name in ("losses", "scenes", "accuracy")]
    assert record["matrices"] == ["matrix", *ablations]
    assert record["schema"] == 1


def test_sky_and_road_by_hand():
    def cell(road: tuple[float, float], flips: float = 0.01) -> dict[str, Any]:
        drops = {"Sky": {"value": 0.01, "ci95": [0.0, 0.02]}, "Road": {"value": sum(road) / 2, "ci95": road}}
        classes = [{"class": name, "drop": drop} for name, drop in drops.items()]
        return local("p", "v", flips=flips, classes=classes)

    for road, wanted in (((0.1, 0.2), "holds"), ((0.01, 0.03), "undecided"), ((-0.2, -0.1), "does not hold")):
        (found,) = sky_and_road(study({"locality/p": cell(road)}))
        assert found.verdict == wanted and "sky 0.010 [0.000, 0.020], road" in found.figures[0]
    (harmless,) = sky_and_road(study({"locality/p": cell((0.1, 0.2), -0.01)}))
    assert harmless.verdict == "undecided"


def test_level_loss_by_hand():
    def curve(change: tuple[float, float], fallen: float = 0.01) -> dict[str, Any]:
        points = [{}, {"over_start": {"value": 0.02, "ci95": [fallen, 0.03]}}]
        changed = {"value": sum(change) / 2, "ci95": change}
        return {"points": points, "blocks": 8, "sentence": "x", "loss_change": changed}

    for change, wanted in (((-0.05, 0.05), "holds"), ((0.05, 0.15), "undecided"), ((0.3, 0.4), "does not hold")):
        assert level_loss(study({"curves/p": curve(change)})).verdict == wanted
        assert level_loss(study({"curves/p": curve(change, fallen=-0.01)})).verdict == "undecided", (
            "mIoU did not fall"
        )
        assert level_loss(study({"curves/p": {**curve(change), "blocks": 7}})).verdict == "undecided"


def test_distances_by_hand():
    def cell(variant: str, low: float) -> dict[str, Any]:
        rows = [size_row(0.5, "share", low), {**size_row(0.5, "share", 0.0), "left_out": "x"}]
        return {"patch": f"a/{variant}/s0", "victim": "a", "rows": rows}

    for low, wanted in ((0.0, "holds"), (0.09, "undecided"), (0.2, "does not hold")):
        cells = {"distances/a": cell("as-it-is", 0.1), "distances/b": cell("no-scaling", low)}
        found = other_distances(study(cells))
        assert found.verdict == wanted and found.figures[0] == "a/as-it-is/s0 on a: x0.5 0.110 [0.100, 0.120]"


def test_every_ablation_that_ran_is_judged(run: Path):
    ran = {finding.claim: finding for finding in findings(read_study(run)) if finding.verdict != "not run"}
    assert sum("without scaling" in claim for claim in ran) == 3
    assert any("of whole images" in claim for claim in ran) and not any("step size" in claim for claim in ran)
    accuracy = next(finding for claim, finding in ran.items() if "network of little accuracy" in claim)
    assert [line.split(":")[0] for line in accuracy.figures] == ["c0", "c1"]
