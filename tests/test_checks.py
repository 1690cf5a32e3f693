from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from segpatch.attack_config import AttackConfig
from segpatch.attack_step import Step
from segpatch.checks import check_matrix, check_training, comparable, grew_weaker, has_seen
from segpatch.data.classes import ClassMap
from segpatch.evaluation import Scores
from segpatch.models.victim import Provenance
from segpatch.patch import FULL_RANGE, Patch, random_patch
from segpatch.results import TransferResult
from segpatch.studies.matrix import run_matrix
from segpatch.studies.planned import MatrixPlan
from segpatch.transfer import Cell, OverRandom, TransferMatrix, transfer_matrix
from tiny import CLASSES, conv_victim, in_batches, learnable_dataset, pictures

CONFIG = AttackConfig(preset="paper")


def training(correct: list[float], **more: float) -> list[Step]:
    """Steps with these shares of correct pixels; the last ones stand still unless the list says otherwise."""
    first = Step(0, loss=1.0, correct=0.0, counted=0.0, gradient_norm=1.0, saturated=0.1)
    return [first._replace(step=i + 1, correct=c, counted=c, **more) for i, c in enumerate(correct)]


GOOD = [0.9] * 50 + [0.5] * 150  # fell, and then stood still


def test_a_good_training_raises_no_warning():
    assert check_training("p", training(GOOD), CONFIG) == []
    assert check_training("p", [], CONFIG) == []


def test_zero_gradients_are_counted():
    steps = training(GOOD)
    steps[3] = steps[3]._replace(gradient_norm=0.0)
    (warning,) = check_training("p", steps, CONFIG)
    assert warning.startswith("p: the patch gradient was exactly 0 in 1 of 200 steps")


def test_the_loss_must_count_the_correct_pixels():
    steps = training(GOOD)
    steps[5] = steps[5]._replace(counted=0.95)
    (warning,) = check_training("p", steps, CONFIG)
    assert "counted other pixels than the correctly classified" in warning
    assert check_training("p", steps, replace(CONFIG, loss="cross-entropy")) == []


@pytest.mark.parametrize(
    ("correct", "words"),
    [
        ([0.59] * 50 + [0.3] * 150, "only 59% of the pixels were right at the start"),
        ([0.61] * 50 + [0.3] * 150, None),
        ([0.9] * 200, "did not fall (90.0% to 90.0%)"),
        ([0.9] * 50 + [0.895] * 150, "did not fall"),
        ([0.9] * 50 + [0.88] * 150, None),
        ([0.9 - 0.002 * i for i in range(200)], "was still falling when training ended"),
        ([0.9] * 20 + [0.5] * 79, "99 steps are few"),
        ([0.9] * 19, "19 steps are few"),  # too few to say whether it fell
    ],
)
def test_the_share_of_correct_pixels_must_fall(correct: list[float], words: str | None):
    warnings = check_training("p", training(correct), CONFIG)
    assert len(warnings) == (words is not None)
    assert words is None or words in warnings[0]


@pytest.mark.parametrize(("share", "count"), [(0.9, 0), (0.91, 1)])
def test_a_patch_at_its_bounds_is_named(share: float, count: int):
    steps = training(GOOD)
    steps[-1] = steps[-1]._replace(saturated=share)
    warnings = check_training("p", steps, CONFIG)
    assert len(warnings) == count
    assert all("91% of the patch's values are at a bound" in warning for warning in warnings)


def test_less_memory_than_asked_for_is_named():
    config = replace(CONFIG, batch_size=6)
    steps = training(GOOD, micro_batch=6)
    assert check_training("p", steps, config) == []
    steps[7:] = training(GOOD, micro_batch=3)[7:]
    (warning,) = check_training("p", steps, config)
    assert "ran out with 6 images at a time, so it went on with 3" in warning and "--micro-batch 3" in warning
    assert check_training("p", training(GOOD, micro_batch=3), replace(config, micro_batch=3)) == []


def one_by_one(kernel: int) -> tuple[TransferMatrix, list[str]]:
    victim = conv_victim(kernel=kernel)
    patch = Patch(torch.zeros(3, 4, 4), name="own", trained_on=("conv",))
    control = random_patch((4, 4), FULL_RANGE, 0)
    matrix = transfer_matrix([victim], in_batches(pictures(8), 5), [control, patch])
    return matrix, check_matrix(matrix, [victim], "tiny val")


def test_a_patch_without_any_reach_is_named():
    # A 1x1 convolution sees single pixels: nothing outside the patch can change.
    matrix, warnings = one_by_one(1)
    assert matrix.cell("own", "conv").scores.miou_drop == 0
    assert [w.split(";")[0] for w in warnings] == ["own on conv: not one pixel outside the patch changed"]
    matrix, warnings = one_by_one(3)
    assert matrix.cell("own", "conv").scores.miou_drop != 0
    assert not any("not one pixel" in warning for warning in warnings)


def matrix_of(*cells: Cell) -> TransferMatrix:
    return TransferMatrix(("conv",), ("a", "b"), (), cells, (), "centre", 1, 8, 0.01)


def cell_of(right: int, wrong: int, **more) -> Cell:
    """Of ten pixels in two classes, so that the accuracy, and here the mIoU too, is known."""
    clean = torch.tensor([[[5, 0], [0, 5]]], dtype=torch.int32)
    patched = torch.tensor([[[right, wrong], [wrong, right]]], dtype=torch.int32)
    facts = {"patch": "none", "victim": "conv", "white_box": False, "ci95": (0.0, 0.0), **more}
    return Cell(scores=Scores(("a",), clean, clean, patched), **facts)


CLEAN = cell_of(5, 0)


@pytest.mark.parametrize(("low", "white_box", "warned"), [(0.0, True, 1), (0.001, True, 0), (0.0, False, 0)])
def test_no_better_than_its_random_control(low: float, white_box: bool, warned: int):
    over = OverRandom(0.02, (low, 0.05), 0.5, "undecided")
    cell = cell_of(4, 1, patch="own", white_box=white_box, over_random=over)
    warnings = check_matrix(matrix_of(CLEAN, cell), [conv_victim()], "tiny val")
    assert len(warnings) == warned
    assert all("own on conv: no better than its random control" in w for w in warnings)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"clean_miou": 1.0, "clean_on": "tiny val"}, None),
        ({"clean_miou": 1.01, "clean_on": "tiny val"}, None),
        ({"clean_miou": 1.03, "clean_on": "tiny val"}, "clean mIoU is 1.000 on tiny val, 1.030 is recorded"),
        ({"clean_miou": 0.97, "clean_on": "tiny val"}, "image size and inference (here of whole images)"),
        ({"clean_miou": 1.03, "clean_on": "tiny test"}, None),
        ({"trained_on": "tiny train"}, None),
        ({"trained_on": "tiny val"}, "conv was trained on tiny val"),
        ({"trained_on": "tiny train+val"}, "conv was trained on tiny val"),
    ],
)
def test_victims_are_held_to_their_record(facts: dict, words: str | None):
    victim = replace(conv_victim(), provenance=Provenance(**facts))
    warnings = check_matrix(matrix_of(CLEAN), [victim], "tiny val")
    assert len(warnings) == (words is not None)
    assert words is None or words in warnings[0]


@pytest.mark.parametrize(
    ("trained_on", "seen"),
    [(None, False), ("tiny train", False), ("tiny val", True), ("tiny train+val", True), ("huge val", False)],
)
def test_whether_a_split_was_seen(trained_on: str | None, seen: bool):
    assert has_seen(trained_on, "tiny val") is seen


@pytest.mark.parametrize(
    ("correct", "weaker"),
    [
        (GOOD, False),
        ([0.9] * 50 + [0.5] * 100 + [0.6] * 50, True),
        ([0.9] * 50 + [0.5] * 100 + [0.515] * 50, False),  # too little
        ([0.5, 0.9] * 100, False),  # images differ, nothing rises
        ([0.9] * 10 + [0.5, 0.9] * 5 + [0.55, 0.9] * 40, False),  # within the noise
        ([0.9, 0.5, 0.9], False),  # too few
    ],
)
def test_more_steps_that_weaken_the_patch(correct: list[float], weaker: bool):
    assert grew_weaker(correct) is weaker
    said = [text for text in check_training("p", training(correct), CONFIG) if "more steps made it weaker" in text]
    assert len(said) == weaker
    best = replace(CONFIG, select="best", held_out=1)
    assert not any("more steps made" in text for text in check_training("p", training(correct), best))


def rows(*counts: list[list[int]]) -> torch.Tensor:
    return torch.tensor(counts, dtype=torch.int32)


def scored(drop: int, under: int = 5) -> Scores:
    """Ten pixels of two classes outside the patch, `drop` of each wrong under attack; `under` right ones in it."""
    outside, patched = rows([[5, 0], [0, 5]]), rows([[5 - drop, drop], [drop, 5 - drop]])
    return Scores(("a",), rows([[5 + under, 0], [0, 5]]), outside, patched)


def table(*cells: Cell, patches: tuple[Patch, ...], victims: tuple[str, ...] = ("conv",)) -> TransferMatrix:
    clean = tuple(replace(CLEAN, victim=name) for name in victims)
    return TransferMatrix(victims, ("a", "b"), patches, (*clean, *cells), (), "centre", 1, 8, 0.01)


def trained(name: str, *, on: tuple[str, ...] = ("conv",), **more) -> Patch:
    return Patch(torch.zeros(3, 2, 2), name=name, preset="paper", trained_on=on, loss="correct-pixel", **more)


def cell(patch: Patch, scores: Scores, ci95: tuple[float, float] = (0.1, 0.2), victim: str = "conv") -> Cell:
    return Cell(patch.name, victim, victim in patch.trained_on, scores, ci95)


def warned(matrix: TransferMatrix, victims=None) -> list[str]:
    return check_matrix(matrix, victims or [conv_victim(name=name) for name in matrix.victims], "tiny val")


def test_silence_on_a_sound_matrix():
    patch, grey = trained("own"), Patch(torch.zeros(3, 2, 2), name="grey", kind="grey")
    assert warned(table(cell(patch, scored(2)), cell(grey, scored(1)), patches=(patch, grey))) == []


def test_a_control_as_strong_as_the_patch():
    patch, grey = trained("own"), Patch(torch.zeros(3, 2, 2), name="grey", kind="grey")
    (warning,) = warned(table(cell(patch, scored(2)), cell(grey, scored(2)), patches=(patch, grey)))
    assert warning.startswith("own on conv: the control grey costs as much")


@pytest.mark.parametrize(
    ("drop", "verdict", "count"), [(2, "transfers", 0), (1, "transfers", 1), (1, "undecided", 0)]
)
def test_a_transfer_that_a_grey_square_brings_about_as_well(drop: int, verdict: str, count: int):
    patch, grey = trained("far", on=("another",)), Patch(torch.zeros(3, 2, 2), name="grey", kind="grey")
    over = OverRandom(0.1, (0.05, 0.2), 0.01, verdict)
    far = replace(cell(patch, scored(drop)), over_random=over)
    found = warned(table(far, cell(grey, scored(1)), patches=(patch, grey)))
    assert len(found) == count
    assert not found or "transfers by the random control, but the control grey costs" in found[0]


def test_a_patch_scored_under_itself():
    patch = trained("own")
    (warning,) = warned(table(cell(patch, scored(2, under=0)), patches=(patch,)))
    assert warning.startswith("own: no labelled pixel lies under it")
    with_more = replace(scored(2), patched=rows([[9, 0], [2, 3]]))
    (warning,) = warned(table(cell(patch, with_more), patches=(patch,)))
    assert warning.startswith("own: scored on other pixels with the patch than without it")


def test_labels_that_are_not_covered_are_noticed(monkeypatch: pytest.MonkeyPatch):
    patch = Patch(torch.zeros(3, 4, 4), name="own", trained_on=("conv",))
    for fault in (False, True):
        if fault:
            monkeypatch.setattr("segpatch.evaluation.cover", lambda labels, region: labels)
        matrix = transfer_matrix([conv_victim()], in_batches(pictures(), 5), [patch])
        assert any("scored on other pixels" in text for text in warned(matrix)) is fault


def test_an_absent_class_is_named():
    patch = trained("own")
    whole = rows([[10, 2], [0, 0]])
    scores = Scores(("a",), whole, rows([[5, 0], [0, 0]]), rows([[3, 2], [0, 0]]))
    clean = replace(CLEAN, scores=Scores(("a",), whole, whole, whole))
    matrix = replace(table(cell(patch, scores), patches=(patch,)), cells=(clean, cell(patch, scores)))
    (warning,) = warned(matrix)
    assert warning.startswith("b: no labelled pixel on tiny val") and "the mean of 1 of 2 classes" in warning


@pytest.mark.parametrize(("low", "words"), [(0.21, "weaker than other, which never saw it"), (0.19, None)])
def test_a_black_box_patch_that_beats_the_white_box_one(low: float, words: str | None):
    own, other = trained("own"), trained("other", on=("b",))
    cells = [cell(own, scored(1)), cell(other, scored(2), (low, 0.4))]
    cells += [cell(own, scored(1), victim="b"), cell(other, scored(2), victim="b")]
    warnings = warned(table(*cells, patches=(own, other), victims=("conv", "b")))
    assert len(warnings) == (words is not None)
    assert words is None or words in warnings[0]


@pytest.mark.parametrize(("steps", "seed", "count"), [(200, 0, 1), (100, 0, 0), (200, 1, 0)])
def test_more_steps_and_a_weaker_patch(steps: int, seed: int, count: int):
    short, longer = trained("short", steps=100, seed=0), trained("long", steps=steps, seed=seed)
    cells = cell(short, scored(2), (0.3, 0.4)), cell(longer, scored(1), (0.1, 0.2))
    warnings = warned(table(*cells, patches=(short, longer)))
    assert len(warnings) == count
    assert all(text.startswith("long on conv: weaker after 200 steps than short after 100") for text in warnings)


def test_patches_of_other_data_or_precision_and_mixed_maps_are_named():
    def made(name: str, fingerprint: str, precision: str) -> Patch:
        data = {"spec": f"folder:{name}", "split": "train", "fingerprint": fingerprint}
        return trained(name, origin={"data": data, "config": {"precision": precision}})

    one, other = made("one", "aa", "fp32"), made("other", "bb", "bf16")
    cells = cell(one, scored(1)), cell(other, scored(1))
    alike = made("other", "aa", "fp32")
    assert warned(table(*cells, patches=(one, alike))) == []
    warnings = warned(table(*cells, patches=(one, other)))
    assert [text.split(":")[0] for text in warnings] == [
        "the patches were trained on 2 versions of folder train",
        "the patches were trained in bf16 and fp32",
    ]
    victims = [conv_victim(name="conv"), conv_victim(name="b")]
    maps = [ClassMap(name, CLASSES, CLASSES, (0, 1, 2)) for name in ("m", "n")]
    mapped = [replace(victim, class_map=each) for victim, each in zip(victims, maps, strict=True)]
    both = (*cells, *(replace(each, victim="b") for each in cells))
    (warning,) = warned(table(*both, patches=(one, alike), victims=("conv", "b")), mapped)
    assert warning.startswith("the networks' classes are merged by m and n")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> TransferResult:
    out = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segpatch.studies.matrix.write_report", lambda run, out, **how: None)
        plan = MatrixPlan(
            overrides={"steps": 1, "batch_size": 1, "patch_size": (4, 4), "crop": (10, 10)}, pictures=0
        )
        return run_matrix([conv_victim()], learnable_dataset(out / "data"), plan, out / "run")


def test_results_that_may_stand_side_by_side(result: TransferResult):
    assert comparable(result, result) == []
    retrained = [p.model_copy(update={"sha256": "f"}) if p.kind == "trained" else p for p in result.patches]
    assert comparable(result, result.model_copy(update={"patches": retrained})) == []


@pytest.mark.parametrize(
    ("where", "change", "words"),
    [
        (None, {"precision": "bf16"}, "precision differ: fp32 and bf16"),
        (None, {"place": "drawn"}, "place differ"),
        (None, {"classes": ["a", "b", "c"]}, "classes differ"),
        ("dataset", {"fingerprint": "f"}, "data set's fingerprint differ"),
        ("dataset", {"class_map": "m"}, "data set's class_map differ: None and m"),
        ("dataset", {"names": ["val1"]}, "data set's names differ: 4 of them, val0 first and ['val1']"),
        ("victims", {"checkpoint_sha256": "f"}, "weights of conv differ"),
        ("victims", {"preprocessing": {}}, "preprocessing of conv differ"),
        ("patches", {"sha256": "f"}, "control grey differ"),
        ("victims", {"name": "other"}, "no network is in both"),
    ],
)
def test_results_that_may_not(result: TransferResult, where: str | None, change: dict, words: str):
    if where in ("victims", "patches"):
        at = 0 if where == "victims" else 1
        records = list(getattr(result, where))
        records[at] = records[at].model_copy(update=change)
        change = {where: records}
    elif where:
        change = {where: getattr(result, where).model_copy(update=change)}
    (reason,) = comparable(result, result.model_copy(update=change))
    assert words in reason


def test_what_the_checks_say_lands_in_the_result(result: TransferResult):
    assert any(text.startswith("conv/paper/s0: only ") for text in result.warnings)  # a random network
    assert len(result.warnings) == len(set(result.warnings))
