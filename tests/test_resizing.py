from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from segpatch.resizing import RUN, in_pieces, plan_resize, resize_matrix
from segpatch.types import IGNORE

CORNERS = pytest.mark.parametrize("align_corners", [False, True])
SIZES = pytest.mark.parametrize(
    ("raw", "size", "shape"),
    [((5, 7), (40, 56), (37, 51)), ((33, 17), (260, 131), (259, 131)), ((9, 9), (6, 5), (6, 5))],
)


@CORNERS
@pytest.mark.parametrize(("length", "out"), [(4, 32), (5, 9), (1, 7), (7, 7), (3, 1)])
def test_the_matrix_is_torchs_resize(length, out, align_corners):
    x = torch.randn(1, 1, length, 1, dtype=torch.float64)
    wanted = F.interpolate(x, (out, 1), mode="bilinear", align_corners=align_corners)[0, 0, :, 0]
    assert_close(resize_matrix(length, out, align_corners, x) @ x[0, 0, :, 0], wanted)


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@CORNERS
@SIZES
def test_the_blocks_of_all_pieces_are_the_resized_logits(raw, size, shape, align_corners, threads):
    logits = torch.randn(2, 4, *raw, dtype=torch.float64)
    wanted = F.interpolate(logits, size, mode="bilinear", align_corners=align_corners)[..., : shape[0], : shape[1]]
    plan = plan_resize(logits, shape, size, align_corners)
    out = torch.full((2, 4, plan.rows, plan.columns), torch.nan, dtype=torch.float64)
    for piece in in_pieces(logits, plan):
        for block, part, scratch in piece.resized():
            assert scratch.shape == part.shape
            rows = part.view(-1, plan.columns // RUN, 4, RUN).permute(2, 0, 1, 3).flatten(2)
            out[piece.image, :, block.at] = rows
    assert_close(out[..., : shape[0], : shape[1]], wanted)
    assert not out[..., shape[0] :, :].any() and not out[..., shape[1] :].any(), "what fills up is 0"


@CORNERS
@SIZES
def test_the_way_back_is_the_transpose(raw, size, shape, align_corners, threads):
    logits = torch.randn(2, 4, *raw, dtype=torch.float64, requires_grad=True)
    full = F.interpolate(logits, size, mode="bilinear", align_corners=align_corners)[..., : shape[0], : shape[1]]
    upstream = torch.randn_like(full)
    (wanted,) = torch.autograd.grad(full, logits, upstream)
    plan = plan_resize(logits, shape, size, align_corners)
    laid = F.pad(upstream, (0, plan.columns - shape[1], 0, plan.rows - shape[0]))
    laid = laid.unflatten(3, (-1, RUN)).permute(0, 2, 3, 1, 4)
    back = torch.zeros_like(wanted)
    for piece in in_pieces(logits.detach(), plan):
        wide = piece.gradient_like_wide()
        for block, part, _ in piece.resized():
            piece.add_gradient(block, laid[piece.image, block.at].contiguous().view(part.shape), wide)
        back[piece.image, :, piece.rows] += piece.gradient_at_source(wide)
    assert_close(back, wanted)


def test_every_core_has_a_piece_of_a_large_image():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    plan = plan_resize(torch.zeros(1, 19, 64, 128), (512, 1024), (512, 1024), False)
    pieces = in_pieces(torch.zeros(1, 19, 64, 128), plan)
    torch.set_num_threads(before)
    assert [len(piece.blocks) for piece in pieces] == [len(plan.down) / 2] * 2
    assert pieces[0].rows.stop < 40 and pieces[1].rows.start > 24, "each reads its own rows and the edge's"


def test_labels_are_filled_up_with_ignore():
    plan = plan_resize(torch.zeros(1, 3, 5, 7), (37, 51), (40, 56), False)
    labels = plan.padded(torch.zeros(1, 37, 51, dtype=torch.uint8))
    assert labels.shape == (1, plan.rows, plan.columns)
    assert int((labels == IGNORE).sum()) == plan.rows * plan.columns - 37 * 51
