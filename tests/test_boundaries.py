import torch
from torch.testing import assert_close

from segpatch.models.boundaries import boundaries, boundary_loss, keep_boundaries
from segpatch.types import IGNORE


def test_boundaries_lie_on_both_sides_of_an_edge():
    labels = torch.tensor([[[0, 0, 0, 1, 1, 1]]])
    assert boundaries(labels, 3).tolist() == [[[False, False, True, True, False, False]]]
    assert boundaries(labels, 5).tolist() == [[[False, True, True, True, True, False]]]


def test_ignored_pixels_are_no_boundary_and_make_none():
    assert not boundaries(torch.tensor([[[3, 3, IGNORE, 3]]])).any()
    beside = boundaries(torch.tensor([[[3, IGNORE, 4]]]))
    assert beside.tolist() == [[[True, False, True]]]


def test_boundaries_agree_with_a_loop():
    labels = torch.randint(4, (2, 9, 11), generator=torch.Generator().manual_seed(0)).repeat_interleave(2, 2)
    labels[labels == 3] = IGNORE
    found = boundaries(labels)
    for b in range(2):
        for row in range(9):
            for column in range(22):
                window = labels[b, max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
                classes = set(window.flatten().tolist()) - {IGNORE}
                expected = labels[b, row, column] != IGNORE and len(classes) > 1
                assert found[b, row, column] == expected


def test_boundary_loss_gives_both_answers_the_same_weight():
    labels = torch.tensor([[[0, 1, 1, 1, 1, 1, 1, IGNORE]]])  # 3 boundary pixels, 4 others, 1 unknown
    logits = torch.zeros(1, 1, 1, 8)
    # each pixel costs log 2; boundaries weigh 4/7, others 3/7, over 7 pixels
    assert_close(boundary_loss(logits, labels), torch.tensor(2.0).log() * (3 * 4 / 7 + 4 * 3 / 7) / 7)


def test_boundary_loss_of_nothing_is_zero():
    logits = torch.ones(1, 1, 2, 2, requires_grad=True)
    loss = boundary_loss(logits, torch.full((1, 2, 2), IGNORE))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_only_confident_boundaries_are_kept():
    kept = keep_boundaries(torch.tensor([[[4, 5, 6]]]), torch.tensor([1.3, 1.5, -9.0]).view(1, 1, 1, 3))
    assert kept.tolist() == [[[IGNORE, 5, IGNORE]]]
