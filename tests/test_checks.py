from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from segpatch.attack_config import AttackConfig
from segpatch.attack_step import Step
from segpatch.checks import check_matrix, check_training, has_seen
from segpatch.evaluation import Scores
from segpatch.models.victim import Provenance
from segpatch.patch import FULL_RANGE, Patch, random_patch
from segpatch.transfer import Cell, OverRandom, TransferMatrix, transfer_matrix
from tiny import conv_victim, in_batches, pictures

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
    matrix = transfer_matrix([victim], in_batches(pictures(), 5), [control, patch])
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
    return TransferMatrix(("conv",), ("a", "b"), (), cells, (), "centre", 1, 0.01)


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
