"""The failure signatures of patch attacks, each a sentence with its remedy; attached to results as warnings.

Source: the failure signatures of arXiv:2502.16012 (patch without effect, mIoU that does not fall, memory).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from segpatch.attack_config import AttackConfig
from segpatch.attack_step import Step
from segpatch.memory import memory_warning
from segpatch.models.victim import Victim
from segpatch.transfer import Cell, TransferMatrix

LOW_ACCURACY = 0.6
"""Share of correct pixels below which the correct set is too small to lead a patch."""
SATURATED = 0.9
CLEAN_TOLERANCE = 0.02
FEW_STEPS = 100
"""Below this no training has shown what a patch can do. Published numbers: arXiv:2502.16012, its notebooks."""
_LEAST_STEPS = 20
_LEAST_FALL = 0.005
_LEAST_SHARE = 0.1


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
    elif still_falling([step.correct for step in steps]):
        warnings.append(
            f"{name}: under-trained, the share of correct pixels was still falling when training ended "
            f"after {len(steps)} steps; train for more"
        )
    elif len(steps) < FEW_STEPS:
        warnings.append(
            f"{name}: under-trained, {len(steps)} steps are few (the published runs took 14,880 for a CNN and "
            "45,060 for a transformer); read its drops as lower bounds"
        )
    if steps[-1].saturated > SATURATED:
        warnings.append(
            f"{name}: {steps[-1].saturated:.0%} of the patch's values are at a bound of their range; lower the "
            "step size or widen the range"
        )
    asked = config.micro_batch or config.batch_size or 0
    used = min((step.micro_batch for step in steps if step.micro_batch), default=asked)
    return warnings + memory_warning(name, asked, used, f"; --micro-batch {used} starts there")


def check_matrix(matrix: TransferMatrix, victims: Sequence[Victim], measured_on: str) -> list[str]:
    """Warnings about a measured matrix. measured_on: data set and split, as `str(SplitImages)` says them."""
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
        if has_seen(victim.provenance.trained_on, measured_on):
            warnings.append(f"{victim.name} was trained on {measured_on}: its scores there are not of unseen data")
    for cell in matrix.cells:
        warnings += _check_own(cell) if cell.white_box else []
    return warnings


def has_seen(trained_on: str | None, measured_on: str) -> bool:
    """Whether "camvid train+val" (data set and splits) covers the one split of "camvid val"."""
    kind, _, splits = (trained_on or "").partition(",")[0].partition(" ")
    measured_kind, _, split = measured_on.partition(",")[0].partition(" ")
    return kind == measured_kind and split in splits.replace(" ", "+").split("+")


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


def still_falling(correct: Sequence[float]) -> bool:
    """Whether the share of correct pixels (one number a step) was still falling in the last quarter.

    A line is fitted to the last quarter. It falls if it loses more than 0.005, more than a tenth of all that
    was lost since the first tenth of the steps, and more than two standard errors of the fit. Below 20 steps
    nothing is said.
    """
    if len(correct) < _LEAST_STEPS:
        return False
    last = np.asarray(correct[-(len(correct) // 4) :], float)
    at = np.arange(len(last)) - (len(last) - 1) / 2
    slope = float(at @ last / (at @ at))
    spread = last - last.mean() - slope * at
    error = math.sqrt(float(spread @ spread) / max(1, len(last) - 2) / float(at @ at))
    fall = -slope * len(last)
    start = float(np.mean(correct[: max(1, len(correct) // 10)]))
    whole = max(0.0, start - float(last[len(last) // 2 :].mean()))
    return fall > max(_LEAST_FALL, _LEAST_SHARE * whole) and -slope > 2 * error
