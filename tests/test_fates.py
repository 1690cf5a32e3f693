"""What classes become under a patch, checked by hand on counts of a few pixels."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from segpatch.data.classes import ClassSet
from segpatch.errors import BadInput
from segpatch.evaluation import Scores
from segpatch.metrics import confusion_matrices, confusion_matrix
from segpatch.patch import Patch, random_patch
from segpatch.report import write_report
from segpatch.report.fates import Counts, Harm, Into, fates, harms, read_counts
from segpatch.report.verdicts import people_line, percent, verdicts
from segpatch.results import DatasetRecord, TransferResult, read_scores, transfer_result, write_transfer
from segpatch.transfer import judged
from tiny import CLASSES, conv_victim

NAMES = ("road", "person", "sky")


def counts(*rows: list[list[int]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.int32)


CLEAN = counts([[50, 0, 0], [3, 80, 17], [0, 0, 0]])
HIT = counts([[50, 0, 0], [15, 64, 21], [0, 0, 0]])


def test_fates_by_hand():
    road, person = fates(Counts(CLEAN, HIT), NAMES)  # sky has no labelled pixel
    assert (road.name, road.before, road.after, road.into, road.exact) == ("road", 1.0, 1.0, [], False)
    assert (person.pixels, person.before, person.after) == (100, 0.8, 0.64)
    assert person.into == [Into("road", pytest.approx(0.12)), Into("sky", pytest.approx(0.04))]


def test_where_right_pixels_go_by_hand():
    of_right = counts([[50, 0, 0], [16, 60, 4], [0, 0, 0]])  # 4 of the 64 were wrong before
    road, person = fates(Counts(CLEAN, HIT, of_right), NAMES)
    assert (road.into, road.exact, person.exact) == ([], True, True)
    assert (person.before, person.after) == (0.8, 0.64)
    assert person.into == [Into("road", 16 / 80), Into("sky", 4 / 80)]
    never = counts([[50, 0, 0], [3, 0, 97], [0, 0, 0]])  # no person is right, so none goes anywhere
    assert fates(Counts(never, HIT, counts([[50, 0, 0], [0, 0, 0], [0, 0, 0]])), NAMES)[1].into == []


def test_fates_add_up_to_the_loss():
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(50, (4, 5, 5), generator=generator, dtype=torch.int32)
    shuffled = clean[:, :, torch.randperm(5, generator=generator)]  # the same pixels, predicted otherwise
    for fate in fates(Counts(clean, shuffled), "abcde", most=5):
        gained = sum(into.share for into in fate.into)
        assert gained >= fate.before - fate.after - 1e-9  # losers among the other classes make up the rest


def test_exact_fates_are_those_of_the_pixels():
    generator = torch.Generator().manual_seed(0)
    labels, before, after = (torch.randint(4, (3, 9, 11), generator=generator) for _ in range(3))
    clean = confusion_matrix(before, labels, 4)
    for k, fate in enumerate(fates(Counts(clean, *confusion_matrices(after, before, labels, 4)), "abcd", most=3)):
        right = (labels == k) & (before == k)
        became = {into.name: into.share for into in fate.into}
        for j, name in enumerate("abcd"):
            if j != k:
                assert became[name] == pytest.approx(float((after[right] == j).float().mean()))
        kept = float((after[right] == k).float().mean())
        assert kept + sum(became.values()) == pytest.approx(1)


def matrix(tmp_path: Path, hits: dict[str, list[Tensor]], images: int = 20, exact: bool = False) -> TransferResult:
    """A run of one network whose pixels fare as given under each seed of a patch, or under "random", the first.

    exact: with where right pixels went, had none been put right.
    """
    victim = conv_victim(0, name="net")
    classes = ClassSet("people", NAMES, CLASSES.colours)
    patches = [random_patch((4, 4), Patch(torch.zeros(3, 4, 4)).range, 0)] if "random" in hits else []
    for name, rows in hits.items():
        trained_on = ("net",) if name.startswith("own") else ("other",)
        patches += [Patch(torch.zeros(3, 4, 4), name=f"{name}/s{seed}", trained_on=trained_on, seed=seed)
                    for seed in range(len(rows)) if name != "random"]  # fmt: skip
    clean = CLEAN.expand(images, 3, 3)
    names = tuple(f"image{index}" for index in range(images))
    every = [
        clean,
        *(row.expand(images, 3, 3) for name in sorted(hits, key="random".__ne__) for row in hits[name]),
    ]
    stays = torch.eye(3, dtype=torch.bool)
    grid = [
        [Scores(names, clean, clean, hit, torch.where(stays, hit, (hit - clean).clamp(0)) if exact else None)]
        for hit in every
    ]
    found = judged(grid, ["net"], NAMES, patches)
    about = DatasetRecord(kind="folder", split="val", images=images, height=8, width=8, fingerprint="f",
                          names=list(names), groups=[""] * images, block=1)  # fmt: skip
    result = transfer_result(found, [replace(victim, classes=classes)], about, command="", precision="fp32",
                             warnings=[], files={})  # fmt: skip
    write_transfer(tmp_path, result, found)
    return result


def people(
    tmp_path: Path, hits: dict[str, list[Tensor]], exact: bool = False
) -> tuple[TransferResult, list[Harm]]:
    result = matrix(tmp_path, hits, exact=exact)
    return result, harms(result, read_counts(tmp_path, result))


def test_people_are_added_up_over_seeds(tmp_path: Path):
    worse = counts([[50, 0, 0], [25, 58, 17], [0, 0, 0]])
    result, found = people(tmp_path, {"random": [CLEAN], "own": [HIT, worse], "far": [CLEAN]})
    own, far = found
    assert (own.victim, own.training, own.own, own.seeds, own.sure) == ("net", "own", True, 2, True)
    assert own.fate.before == pytest.approx(0.8) and own.fate.after == pytest.approx((0.64 + 0.58) / 2)
    assert own.fate.into[0] == Into("road", pytest.approx(0.17)) and own.control_turned == 0
    assert own.lost == pytest.approx((0.19, 0.19))  # every image is the same, so there is no doubt
    assert own.turned == pytest.approx((0.17, 0.17)) and own.control == pytest.approx(0.8)
    assert (far.training, far.own, far.sure, far.lost) == ("far", False, False, (0.0, 0.0))
    answer = next(one for one in verdicts(result, found) if one.heading == "People and riders")
    assert answer.figure == percent(0.17)
    assert (
        answer.said
        == f"of the person pixels become road on net under its own patch ({percent(0)} under the random control)"
    )
    assert answer.sentences[0].startswith(
        f"{percent(0.8)} of person pixels are right without a patch and {percent(0.61)} with own (2 seeds) on net"
    )


def test_what_people_become_is_of_those_that_were_right(tmp_path: Path):
    worse = counts([[50, 0, 0], [25, 58, 17], [0, 0, 0]])
    slight = counts([[50, 0, 0], [7, 76, 17], [0, 0, 0]])
    result, (own,) = people(tmp_path, {"random": [slight], "own": [HIT, worse]}, exact=True)
    assert own.fate.exact and own.fate.into[0] == Into("road", (12 + 22) / 160)
    assert own.turned == pytest.approx((0.2125, 0.2125)) and own.control_turned == 4 / 80
    answer = next(one for one in verdicts(result, [own]) if one.heading == "People and riders")
    assert answer.figure == percent(0.2125)
    assert answer.said == (
        "of the person pixels that net has right become road under its own patch "
        f"({percent(0.05)} under the random control)"
    )
    assert people_line(tmp_path, result) == (
        "People and riders: 21 % of the person pixels that net has right become road under its own patch "
        "(5.0 % under the random control)."
    )
    assert people_line(tmp_path, result.model_copy(update={"classes": ["road", "house", "sky"]})) == ""
    assert answer.sentences[0].endswith(
        f"Of those right without a patch, {percent(0.2125)} [{percent(0.2125)}, {percent(0.2125)}] become road "
        f"({percent(0.05)} under the random control)."
    )


def test_the_page_says_whether_it_knows_which_pixels_went_where(tmp_path: Path):
    for exact in (True, False):
        run = tmp_path / str(exact)
        run.mkdir()
        matrix(run, {"own": [HIT]}, exact=exact)
        page = write_report(run, run / "page").read_text()
        assert ("What they become is of the pixels that are right without the patch" in page) == exact
        assert ("net of pixels that went the other way" in page) == (not exact)


def test_what_a_random_patch_does_as_well_is_not_sure(tmp_path: Path):
    result, (own,) = people(tmp_path, {"random": [HIT], "own": [HIT]})
    assert own.lost[0] > 0 and own.beyond == (0.0, 0.0) and not own.sure
    answer = next(one for one in verdicts(result, [own]) if one.heading == "People and riders")
    assert answer.figure == "0 of 1"


def test_without_a_control_the_loss_alone_decides(tmp_path: Path):
    _, (own,) = people(tmp_path, {"own": [HIT]})
    assert own.control is None and own.beyond is None and own.sure


def test_classes_that_are_no_people_and_runs_without_counts(tmp_path: Path):
    result = matrix(tmp_path, {"own": [HIT]})
    held = read_counts(tmp_path, result)
    named = result.model_copy(update={"classes": ["road", "house", "sky"]})
    assert harms(named, held) == [] and harms(result, {}) == []
    assert read_counts(tmp_path / "nowhere", result) == {}
    assert [one.heading for one in verdicts(result, [])] == ["Networks that break"]


def test_counts_of_another_run_are_refused(tmp_path: Path):
    result = matrix(tmp_path, {"own": [HIT]})
    kept = read_scores(tmp_path)
    for damaged in ({}, {name: row[:1].clone() for name, row in kept.items()}):
        shutil.rmtree(tmp_path / "other", ignore_errors=True)
        (tmp_path / "other").mkdir()
        save_file(damaged, tmp_path / "other" / "scores.safetensors")
        with pytest.raises(BadInput, match="holds no counts 20x3x3 of none on net"):
            read_counts(tmp_path / "other", result)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.12, "12"),
        (0.094, "9.4"),
        (0.0, "0"),
        (-0.0002, "0.0"),
        (-0.123, "−12"),
        (-0.05, "−5.0"),
        (-0.0999, "−10"),
    ],
)
def test_percent(share: float, text: str):
    assert percent(share) == f"{text}\N{NO-BREAK SPACE}%"
