"""Resizing a network's raw logits bilinearly, a block of rows at a time, and taking a gradient back.

A resize is a product with a banded matrix per axis. The resized logits are laid out as (P, K, C): P runs of C
neighbouring pixels, each with all its classes. No more than a block of them is stored at a time: on a CPU one for
each core, small enough for its cache, on a GPU an image.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from segpatch.cores import count
from segpatch.types import IGNORE

RUN = 64
"""Pixels of a run: several of a CPU's widest registers, and with all classes few enough for its first cache.

What numba keeps of `segpatch.kernels` has it built in: whoever changes it deletes that, in __pycache__.
"""
_VALUES = 5 * 2**17
"""Logits of a block on a CPU: few enough for its cache, enough that an operation is worth its call."""
_ROWS = 16
"""Rows that are resized with one matrix: the fewer, the fewer of its zeros are multiplied."""


class _Across(NamedTuple):
    """What makes one run of columns: the source columns (c), and the matrix from them (c, RUN)."""

    source: slice
    matrix: Tensor


class Block(NamedTuple):
    """Rows of the resized logits in G groups of _ROWS: where they are, the source rows of each group (G * b,), the
    first and last of these, and the matrices between them (G, _ROWS, b)."""

    at: slice
    source: Tensor
    first: int
    last: int
    matrices: Tensor


class Rows(NamedTuple):
    """Where rows of the result lie (R,), NumPy: `share` of the way from source row `upper` to source row `lower`,
    which are the same where they lie on one."""

    upper: Any
    lower: Any
    share: Any


class Plan(NamedTuple):
    """A resize worked out. rows, columns: of the result, filled up to whole groups of rows and runs of pixels.
    between: the same as the matrices of `down`, a row at a time; what fills up is like the last row."""

    rows: int
    columns: int
    across: tuple[_Across, ...]
    down: tuple[Block, ...]
    between: Rows

    def padded(self, labels: Tensor) -> Tensor:
        """Labels (B, H, W) filled up with IGNORE."""
        fill = (0, self.columns - labels.shape[2], 0, self.rows - labels.shape[1])
        return F.pad(labels, fill, value=IGNORE) if any(fill) else labels


def plan_resize(raw: Tensor, shape: tuple[int, int], size: tuple[int, int], align_corners: bool) -> Plan:
    """How raw logits (B, K, h, w) are resized to `size` (height, width) and cut to `shape`, no larger."""
    dtype = torch.promote_types(raw.dtype, torch.float32)
    return _planned(raw.shape[1], raw.shape[2], raw.shape[3], shape, size, align_corners, dtype, raw.device)


@functools.lru_cache(maxsize=32)
def _planned(
    classes: int,
    height: int,
    width: int,
    shape: tuple[int, int],
    size: tuple[int, int],
    align_corners: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> Plan:
    rows, columns = -(-shape[0] // _ROWS) * _ROWS, -(-shape[1] // RUN) * RUN
    like = torch.empty(0, dtype=dtype)
    down = F.pad(resize_matrix(height, size[0], align_corners, like)[: shape[0]], (0, 0, 0, rows - shape[0]))
    right = F.pad(resize_matrix(width, size[1], align_corners, like)[: shape[1]], (0, 0, 0, columns - shape[1]))
    across = []
    for matrix in right.view(-1, RUN, width):
        used = matrix.any(0).nonzero().flatten().tolist()
        columns_used = slice(used[0], used[-1] + 1)
        across.append(_Across(columns_used, matrix[:, columns_used].T.contiguous().to(device)))
    groups = down.view(-1, _ROWS, height)
    some = groups.any(1).int()
    first = some.argmax(1)
    band = int((height - some.flip(1).argmax(1) - first).max())
    source = first.clamp(max=height - band).unsqueeze(1) + torch.arange(band)
    matrices = groups.gather(2, source.unsqueeze(1).expand(-1, _ROWS, -1))
    step = max(1, _VALUES // (classes * _ROWS * columns)) if device.type == "cpu" else len(groups)
    blocks = []
    for start in range(0, len(groups), step):
        end = min(start + step, len(groups))
        blocks.append(
            Block(
                slice(start * _ROWS, end * _ROWS),
                source[start:end].flatten().to(device),
                int(source[start:end].min()),
                int(source[start:end].max()),
                matrices[start:end].contiguous().to(device),
            )
        )
    shown = torch.arange(rows).clamp(max=shape[0] - 1)
    upper, lower, share = (part[shown] for part in _neighbours(height, size[0], align_corners))
    between = Rows(upper.numpy(), torch.where(share == 0, upper, lower).numpy(), share.to(torch.float32).numpy())
    return Plan(rows, columns, tuple(across), tuple(blocks), between)


def in_pieces(raw: Tensor, plan: Plan) -> list[Piece]:
    """The logits of all images (B, K, h, w), in pieces of blocks that lie together: one for each core or more."""
    size = -(-len(plan.down) * len(raw) // count(raw.device))
    return [
        Piece(i, image, plan, plan.down[start : start + size])
        for i, image in enumerate(raw)
        for start in range(0, len(plan.down), size)
    ]


class Piece:
    """Some blocks of one image's logits (K, h, w) on their way to the size of the plan, and their gradient on its
    way back. at: their rows of the result; rows: the source rows that they are made from."""

    def __init__(self, number: int, raw: Tensor, plan: Plan, blocks: Sequence[Block]) -> None:
        self.image, self.plan, self.blocks = number, plan, blocks
        self.at = slice(blocks[0].at.start, blocks[-1].at.stop)
        self.rows = slice(blocks[0].first, blocks[-1].last + 1)
        self.raw = raw[:, self.rows]

    def wide(self) -> Tensor:
        """Its source rows resized to the width of the plan: (rows, G, K, RUN), G runs of pixels a row."""
        classes, height, width = self.raw.shape
        raw = self.raw.permute(1, 0, 2).to(torch.promote_types(self.raw.dtype, torch.float32)).reshape(-1, width)
        wide = raw.new_empty(height, len(self.plan.across), classes, RUN)
        for run, (columns, matrix) in enumerate(self.plan.across):
            wide[:, run] = (raw[:, columns] @ matrix).view(height, classes, RUN)
        return wide

    def resized(self) -> Iterator[tuple[Block, Tensor, Tensor]]:
        """Each block: where, its resized logits (P, K, C), and scratch memory like them."""
        wide = self.wide()
        shape, flat = wide.shape[2:], wide.flatten(1)
        most = max(len(block.matrices) for block in self.blocks) * _ROWS
        memory = flat.new_empty(2, most * flat.shape[1])
        for block in self.blocks:
            groups, rows, _ = block.matrices.shape
            logits, scratch = memory[:, : groups * rows * flat.shape[1]]
            source = flat.index_select(0, block.source - self.rows.start).view(groups, -1, flat.shape[1])
            torch.bmm(block.matrices, source, out=logits.view(groups, rows, -1))
            yield block, logits.view(-1, *shape), scratch.view(-1, *shape)

    def between(self, at: slice) -> Rows:
        """Where rows of the result lie between those of `wide`."""
        upper, lower, share = (part[at] for part in self.plan.between)
        return Rows(upper - self.rows.start, lower - self.rows.start, share)

    def gradient_like_wide(self) -> Tensor:
        """Zeros of the shape of `wide`, for `add_gradient`."""
        dtype = torch.promote_types(self.raw.dtype, torch.float32)
        return self.raw.new_zeros(self.raw.shape[1], len(self.plan.across), len(self.raw), RUN, dtype=dtype)

    def add_gradient(self, block: Block, gradient: Tensor, wide: Tensor) -> None:
        """Adds the gradient (P, K, C) of a block's logits to that of `wide`."""
        groups, rows, _ = block.matrices.shape
        back = block.matrices.transpose(1, 2) @ gradient.view(groups, rows, -1)
        wide.flatten(1).index_add_(0, block.source - self.rows.start, back.flatten(0, 1))

    def gradient_at_source(self, wide: Tensor) -> Tensor:
        """The gradient (K, rows, w) of the logits that the piece was made from, of that of `wide`."""
        classes, height, width = self.raw.shape
        out = wide.new_zeros(height * classes, width)
        for run, (columns, matrix) in enumerate(self.plan.across):
            out[:, columns] += wide[:, run].reshape(-1, RUN) @ matrix.T
        return out.view(height, classes, width).permute(1, 0, 2)


def resize_matrix(length: int, out: int, align_corners: bool, like: Tensor) -> Tensor:
    """The matrix (out, length) of a bilinear resize along one axis, as torch.nn.functional.interpolate does it."""
    first, second, share = _neighbours(length, out, align_corners)
    matrix = torch.zeros(out, length, dtype=torch.float64)
    matrix.scatter_add_(1, first.unsqueeze(1), 1 - share.unsqueeze(1))
    matrix.scatter_add_(1, second.unsqueeze(1), share.unsqueeze(1))
    return matrix.to(like)


def _neighbours(length: int, out: int, align_corners: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Of each place of the result (out,): the places before and after it, and its share of the way, float64."""
    position = torch.arange(out, dtype=torch.float64)
    if align_corners:
        position = position * ((length - 1) / max(1, out - 1))
    else:
        position = ((position + 0.5) * (length / out) - 0.5).clamp(min=0)
    first = position.floor().long().clamp(max=length - 1)
    return first, (first + 1).clamp(max=length - 1), position - first
