from __future__ import annotations

import pytest
import torch
from torch import Tensor

from segpatch.errors import BadInput
from segpatch.evaluation import evaluate
from segpatch.patch import FULL_RANGE, RELEASED_RANGE, Patch, grey_patch, random_patch
from segpatch.transfer import TransferMatrix, transfer_matrix
from tiny import Alarm, in_batches, pictures, plain

SIDE = 8


def bright_or_dark() -> list[tuple[Tensor, Tensor]]:
    """Images that an `Alarm` gets right in every pixel."""
    return [(image, (image.float().mean(0) > 127.5).to(torch.uint8)) for image, _ in pictures(8, 12, 12)]


def one_colour(red: float, green: float, blue: float, **more) -> Patch:
    pixels = torch.tensor([red, green, blue], dtype=torch.float32).view(3, 1, 1).expand(3, SIDE, SIDE).contiguous()
    return Patch(pixels, **more)


# Four ninths of the image turn red: its mean rises from about 0.5 to 0.72. Grey and noise leave it at 0.5.
VICTIMS = [
    plain(Alarm(channel, 0.59), name, classes=2) for name, channel in (("red", 0), ("also-red", 0), ("blue", 2))
]
RED = one_colour(1, 0, 0, name="red/paper/s0", trained_on=("red",), seed=0)
GREEN = one_colour(0, 1, 0, name="red/paper/s1", trained_on=("red",), seed=1)
CONTROLS = [grey_patch((SIDE, SIDE)), random_patch((SIDE, SIDE), FULL_RANGE, 0)]


def matrix_of(patches: list[Patch], **more) -> TransferMatrix:
    return transfer_matrix(VICTIMS, in_batches(bright_or_dark(), 3), patches, **more)


@pytest.fixture(scope="module")
def matrix() -> TransferMatrix:
    return matrix_of([*CONTROLS, RED, GREEN])


def test_known_effects_get_their_verdicts(matrix: TransferMatrix):
    for victim, drop, verdict in (("red", 1, "transfers"), ("also-red", 1, "transfers"), ("blue", 0, "does not")):
        cell = matrix.cell("red/paper/s0", victim)
        assert cell.scores.miou_drop == drop
        assert cell.ci95 == (drop, drop)
        assert (cell.over_random.drop, cell.over_random.ci95) == (drop, (drop, drop))
        assert cell.over_random.verdict == verdict
        assert matrix.cell("red/paper/s1", victim).over_random.verdict == "does not"


def test_rows_stand_in_order(matrix: TransferMatrix):
    rows = ["none", "grey", "random/full/s0", "red/paper/s0", "red/paper/s1"]
    assert [(c.patch, c.victim) for c in matrix.cells] == [(r, v) for r in rows for v in matrix.victims]
    assert matrix.victims == ("red", "also-red", "blue") and len(matrix.classes) == 2
    assert matrix.cell("none", "red").scores.miou_clean == 1
    with pytest.raises(BadInput, match="no cell 'green' on 'red' in this matrix"):
        matrix.cell("green", "red")


def test_white_box_is_a_network_that_the_patch_was_trained_on(matrix: TransferMatrix):
    own = {(cell.patch, cell.victim) for cell in matrix.cells if cell.white_box}
    assert own == {("red/paper/s0", "red"), ("red/paper/s1", "red")}
    both = one_colour(1, 0, 1, name="both", trained_on=("red", "blue"))
    assert [c.white_box for c in matrix_of([both]).cells] == [False] * 3 + [True, False, True]


def test_holm_runs_over_the_transfers_alone(monkeypatch: pytest.MonkeyPatch):
    # Four transfers: red on also-red with an effect, three cells without any.
    monkeypatch.setattr("segpatch.transfer.p_value", lambda value, resampled, blocks: 0.01 if value else 1.0)
    matrix = matrix_of([*CONTROLS, RED, GREEN])
    assert matrix.cell("red/paper/s0", "also-red").over_random.p_holm == pytest.approx(0.04)
    assert matrix.cell("red/paper/s0", "red").over_random.p_holm == 0.01  # its own: as it is
    assert matrix.cell("red/paper/s0", "blue").over_random.p_holm == 1
    assert matrix.cell("grey", "red").over_random.p_holm == 1


def test_the_control_has_the_same_size_and_range():
    loud = one_colour(1, 0.4, 0.4, name="random/full/s9", kind="random")  # an alarming control
    wrong_range = random_patch((SIDE, SIDE), RELEASED_RANGE, 0)
    wrong_size = random_patch((SIDE, SIDE + 1), FULL_RANGE, 0)
    released = one_colour(0.7, 0.5, 0.5, name="released", trained_on=("red",), range=RELEASED_RANGE)
    lonely = Patch(torch.ones(3, 2, 2), name="lonely")
    matrix = matrix_of([wrong_size, wrong_range, loud, RED, released, lonely])
    assert matrix.cell("red/paper/s0", "also-red").over_random.drop == 0  # against the loud one
    over = matrix.cell("released", "also-red").over_random.drop
    quiet = matrix.cell(wrong_range.name, "also-red").scores.miou_drop
    assert over == pytest.approx(matrix.cell("released", "also-red").scores.miou_drop - quiet)
    for without in (wrong_size.name, wrong_range.name, loud.name, "lonely", "none"):
        assert matrix.cell(without, "red").over_random is None


def test_groups_are_means_over_seeds(matrix: TransferMatrix):
    (own, other, blue) = matrix.groups
    assert [(g.patch_group, g.victim, g.seeds) for g in matrix.groups] == [
        ("red/paper", victim, (0, 1)) for victim in matrix.victims
    ]
    # One seed breaks the network and the other does nothing; a resample may hold one of them twice.
    assert own.miou_drop == other.miou_drop == 0.5
    assert own.ci95 == (0, 1)
    assert (blue.miou_drop, blue.ci95) == (0, (0, 0))


def test_scores_are_those_of_evaluate(matrix: TransferMatrix):
    for patch in (None, *CONTROLS, RED):
        alone = evaluate(VICTIMS[1], in_batches(bright_or_dark(), 8), patch)
        held = matrix.cell(patch.name if patch else "none", "also-red").scores
        assert torch.equal(held.patched, alone.patched) and held.names == alone.names


def test_the_same_seed_gives_the_same_intervals():
    half = one_colour(0.7, 0.6, 0.6, name="half/paper/s0", trained_on=("red",), seed=0)  # alarms on some images
    one, again, other = (matrix_of([*CONTROLS, half], seed=seed, place="drawn") for seed in (0, 0, 1))
    ci = one.cell("half/paper/s0", "red").ci95
    assert ci[0] < ci[1]
    assert [c.ci95 for c in one.cells] == [c.ci95 for c in again.cells]
    assert [g.ci95 for g in one.groups] == [g.ci95 for g in again.groups]
    assert other.cell("half/paper/s0", "red").ci95 != ci


def test_images_of_one_drive_are_resampled_together():
    half = one_colour(0.7, 0.6, 0.6, name="half", trained_on=("red",))
    whole = matrix_of([half], groups=["drive"] * 8, block=8).cell("half", "red")
    assert whole.ci95[0] == pytest.approx(whole.ci95[1]) == pytest.approx(whole.scores.miou_drop)


def test_names_must_differ():
    with pytest.raises(BadInput, match="patches must have different names; red/paper/s0"):
        matrix_of([RED, RED])
    with pytest.raises(BadInput, match="none occurs"):
        matrix_of([one_colour(1, 0, 0, name="none")])
    with pytest.raises(BadInput, match="victims must have different names; red"):
        transfer_matrix([VICTIMS[0], VICTIMS[0]], in_batches(bright_or_dark(), 3), [RED])
