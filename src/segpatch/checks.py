"""The failure signatures of patch attacks, each a sentence with its remedy; attached to results as warnings.

Source: the failure signatures of arXiv:2502.16012 (patch without effect, mIoU that does not fall, memory).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from segpatch.attack import AttackConfig, Step
from segpatch.errors import SegpatchError
from segpatch.models.victim import Victim
from segpatch.transfer import Cell, TransferMatrix

LOW_ACCURACY = 0.6
"""Share of correct pixels below which the correct set is too small to lead a patch."""
SATURATED = 0.9
CLEAN_TOLERANCE = 0.02


def check_training(name: str, steps: Sequence[Step], config: AttackConfig) -> list[str]:
    """Warnings about one training, from all its steps (of a resumed run too)."""
    if not steps:
        return []
    warnings = []
    zero = sum(step.gradient_norm == 0 for step in steps)
    if zero:
        warnings.append(
            f"{name}: the patch gradient was exactly 0 in {zero} of {len(steps)} steps; no counted pixel "
            "depends on the patch (no pixel is right any more, or the network sees no context): use a larger "
            "batch, the cross-entropy loss, or stop earlier"
        )
    if config.loss == "correct-pixel" and any(abs(s.counted - s.correct) > 1e-6 for s in steps):
        warnings.append(
            f"{name}: the loss counted other pixels than the correctly classified ones; the correct set must "
            "come from the same prediction as the loss"
        )
    tenth = max(1, len(steps) // 10)
    before = sum(step.correct for step in steps[:tenth]) / tenth
    after = sum(step.correct for step in steps[-tenth:]) / tenth
    if before < LOW_ACCURACY:
        warnings.append(
            f"{name}: only {before:.0%} of the pixels were right at the start, so there is little to break "
            "and few pixels lead the patch; use a network with higher clean accuracy"
        )
    elif len(steps) >= 20 and after > before - 0.01:
        warnings.append(
            f"{name}: the share of correct pixels did not fall ({before:.1%} to {after:.1%}); train for more "
            f"steps, raise the step size ({config.step_size:g} of the range) or enlarge the patch"
        )
    elif len(steps) >= 20 and _still_falling(steps):
        warnings.append(
            f"{name}: under-trained, the share of correct pixels was still falling when training ended "
            f"after {len(steps)} steps; train for more"
        )
    if steps[-1].saturated > SATURATED:
        warnings.append(
            f"{name}: {steps[-1].saturated:.0%} of the patch's values are at a bound of their range; lower the "
            "step size or widen the range"
        )
    return warnings


def check_matrix(matrix: TransferMatrix, victims: Sequence[Victim], measured_on: str) -> list[str]:
    """Warnings about a measured matrix. measured_on: data set and split, such as "camvid test"."""
    warnings = []
    for victim in victims:
        clean = matrix.cell("none", victim.name).scores.miou_clean
        recorded = victim.provenance.clean_miou
        comparable = recorded is not None and victim.provenance.clean_on == measured_on
        if comparable and recorded is not None and clean < recorded - CLEAN_TOLERANCE:
            warnings.append(
                f"{victim.name}: clean mIoU is {clean:.3f} on {measured_on}, {recorded:.3f} is recorded with "
                "its weights; check mean, std, channel order and image size"
            )
        if victim.provenance.trained_on and victim.provenance.trained_on == measured_on:
            warnings.append(f"{victim.name} was trained on {measured_on}: its scores there are not of unseen data")
    for cell in matrix.cells:
        warnings += _check_own(cell) if cell.white_box else []
    return warnings


@contextmanager
def memory_advice(batch_size: int) -> Iterator[None]:
    """Turns running out of memory into a line that says what to do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise SegpatchError(_memory_line(batch_size)) from error
    except MemoryError as error:
        raise SegpatchError(_memory_line(batch_size)) from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        raise SegpatchError(_memory_line(batch_size)) from error


def _memory_line(batch_size: int) -> str:
    return (
        f"out of memory with {batch_size} images at a time; use --micro-batch 1 (gradient accumulation: same "
        "result), --batch-size 1, smaller crops or --precision bf16"
    )


def _check_own(cell: Cell) -> list[str]:
    """About a patch on a network that it was trained on."""
    scores = cell.scores
    name = f"{cell.patch} on {cell.victim}"
    if torch.equal(scores.patched, scores.clean_outside):
        return [
            f"{name}: not one pixel outside the patch changed; the patch does not reach the prediction (is it "
            "pasted at all, or does the network see single pixels only?)"
        ]
    over = cell.over_random
    if over and over.ci95[0] <= 0:
        return [
            f"{name}: no better than its random control (drop over random {over.drop:.3f}, interval "
            f"{over.ci95[0]:.3f} to {over.ci95[1]:.3f}); train longer, or read its transfers as noise"
        ]
    return []


def _still_falling(steps: Sequence[Step]) -> bool:
    """Whether the last quarter lost at least a tenth of what the whole training lost, by its halves' means."""
    quarter = steps[-max(4, len(steps) // 4) :]
    half = len(quarter) // 2
    first = sum(step.correct for step in quarter[:half]) / half
    second = sum(step.correct for step in quarter[half:]) / (len(quarter) - half)
    tenth = max(1, len(steps) // 10)
    whole = sum(s.correct for s in steps[:tenth]) / tenth - second
    return first - second > 0.1 * max(whole, 0.0) and first - second > 0.005
