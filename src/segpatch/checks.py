"""The failure signatures of patch attacks, each a sentence with its remedy; attached to results as warnings.

Source: the failure signatures of arXiv:2502.16012 (patch without effect, mIoU that does not fall, memory).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from segpatch.attack_config import AttackConfig
from segpatch.attack_step import Step
from segpatch.memory import memory_warning
from segpatch.models.victim import Victim
from segpatch.patch import Patch
from segpatch.statistics import LEAST_BLOCKS
from segpatch.transfer import Cell, TransferMatrix

if TYPE_CHECKING:
    from segpatch.results import TransferResult

LOW_ACCURACY = 0.6
"""Share of correct pixels below which the correct set is too small to lead a patch."""
SATURATED = 0.9
CLEAN_TOLERANCE = 0.02
FEW_STEPS = 100
"""Below this no training has shown what a patch can do. Published numbers: arXiv:2502.16012, its notebooks."""
_LEAST_STEPS = 20
_LEAST_FALL = 0.005
_LEAST_SHARE = 0.1
_LEAST_RISE = 0.02


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
    if config.select == "last" and grew_weaker([step.correct for step in steps]):
        warnings.append(
            f"{name}: more steps made it weaker, the share of correct pixels rose again before training ended; "
            "lower the step size, or keep the best of the late checkpoints (preset strong)"
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
        same = recorded is not None and victim.provenance.clean_on == measured_on
        if same and recorded is not None and abs(clean - recorded) > CLEAN_TOLERANCE:
            how = f"in windows of {victim.window} pixels" if victim.window else "of whole images"
            warnings.append(
                f"{victim.name}: clean mIoU is {clean:.3f} on {measured_on}, {recorded:.3f} is recorded with "
                f"its weights; check mean, std, channel order, image size and inference (here {how})"
            )
        if has_seen(victim.provenance.trained_on, measured_on):
            warnings.append(f"{victim.name} was trained on {measured_on}: its scores there are not of unseen data")
    for cell in matrix.cells:
        warnings += _check_own(cell, matrix) if cell.white_box else []
    warnings += _check_transfers(matrix)
    if matrix.blocks < LEAST_BLOCKS:
        warnings.append(
            f"the images make {matrix.blocks} independent blocks, fewer than {LEAST_BLOCKS}: intervals are too "
            "narrow and every verdict is undecided; measure more images"
        )
    warnings += _check_labels(matrix, measured_on)
    warnings += _check_pixels(matrix)
    warnings += _check_order(matrix)
    return warnings + _check_mixture(matrix.patches, victims)


def comparable(a: TransferResult, b: TransferResult) -> list[str]:
    """Why the numbers of two results must not be set side by side; empty where they may."""
    of_data = ("kind", "split", "fingerprint", "class_map", "height", "width", "names")
    pairs = [(f"data set's {name}", getattr(a.dataset, name), getattr(b.dataset, name)) for name in of_data]
    pairs += [(name, getattr(a, name), getattr(b, name)) for name in ("classes", "precision", "place")]
    theirs = {victim.name: victim for victim in b.victims}
    both = [(victim, theirs[victim.name]) for victim in a.victims if victim.name in theirs]
    for ours, other in both:
        pairs.append((f"weights of {ours.name}", ours.checkpoint_sha256, other.checkpoint_sha256))
        pairs.append((f"preprocessing of {ours.name}", ours.preprocessing, other.preprocessing))
    controls = {patch.name: patch.sha256 for patch in b.patches if patch.kind not in ("none", "trained")}
    pairs += [(f"control {p.name}", p.sha256, controls[p.name]) for p in a.patches if p.name in controls]
    out = [f"{what} differ: {_short(one)} and {_short(other)}" for what, one, other in pairs if one != other]
    return out if both else [*out, "no network is in both"]


def has_seen(trained_on: str | None, measured_on: str) -> bool:
    """Whether "camvid train+val" (data set and splits) covers the one split of "camvid val"."""
    kind, _, splits = (trained_on or "").partition(",")[0].partition(" ")
    measured_kind, _, split = measured_on.partition(",")[0].partition(" ")
    return kind == measured_kind and split in splits.replace(" ", "+").split("+")


def _check_own(cell: Cell, matrix: TransferMatrix) -> list[str]:
    """About a patch on a network that it was trained on."""
    scores = cell.scores
    name = f"{cell.patch} on {cell.victim}"
    if scores.patched.equal(scores.clean_outside):
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
    for control in (patch.name for patch in matrix.patches if patch.kind in ("grey", "natural")):
        drop = matrix.cell(control, cell.victim).scores.miou_drop
        if drop >= scores.miou_drop:
            return [
                f"{name}: the control {control} costs as much (drop {drop:.3f}, the patch's "
                f"{scores.miou_drop:.3f}), so what is measured is occlusion; train longer or enlarge the patch"
            ]
    return []


def _check_transfers(matrix: TransferMatrix) -> list[str]:
    """About transfers beyond the random control that a plain square brings about almost as well."""
    squares = [patch.name for patch in matrix.patches if patch.kind in ("grey", "natural")]
    trained = {patch.name for patch in matrix.patches if patch.kind == "trained"}
    found: dict[tuple[str, str], list[str]] = {}
    for cell in matrix.cells:
        over = cell.over_random
        if cell.white_box or cell.patch not in trained or not over or over.verdict != "transfers" or not squares:
            continue
        drops = {square: matrix.cell(square, cell.victim).scores.miou_drop for square in squares}
        strongest = max(squares, key=lambda square: drops[square])
        if cell.scores.miou_drop - drops[strongest] < matrix.margin:
            found.setdefault((cell.victim, strongest), []).append(cell.patch)
    return [
        f"{', '.join(patches)} on {victim}: transfers by the random control, but the control {square} costs that "
        f"network as much, within the margin of {matrix.margin:g}: read it as occlusion"
        for (victim, square), patches in found.items()
    ]


def _check_labels(matrix: TransferMatrix, measured_on: str) -> list[str]:
    """About classes without a labelled pixel."""
    labelled = matrix.cells[0].scores.clean.sum((0, 2)) > 0
    absent = [name for name, there in zip(matrix.classes, labelled.tolist(), strict=True) if not there]
    if not absent:
        return []
    return [
        f"{', '.join(absent)}: no labelled pixel on {measured_on}, so not in any mIoU, which is the mean of "
        f"{len(matrix.classes) - len(absent)} of {len(matrix.classes)} classes"
    ]


def _check_pixels(matrix: TransferMatrix) -> list[str]:
    """About pixels that are counted with a patch and not without it, or although the patch covers them."""
    warnings = []
    for patch in matrix.patches:
        scores = matrix.cell(patch.name, matrix.victims[0]).scores
        whole, outside, patched = (
            rows.sum((1, 2)) for rows in (scores.clean, scores.clean_outside, scores.patched)
        )
        if not patched.equal(outside):
            warnings.append(
                f"{patch.name}: scored on other pixels with the patch than without it, so part of its drop is not "
                "its doing; measure again"
            )
        elif whole.equal(outside):
            warnings.append(
                f"{patch.name}: no labelled pixel lies under it; unless the images have no truth there, it is "
                "scored under itself"
            )
    return warnings


def _check_order(matrix: TransferMatrix) -> list[str]:
    """About patches that do better, beyond both intervals, than those that ought to: made with more steps, or on
    the very network."""
    warnings = []
    for better, worse, victim in _surprises(matrix):
        ours, theirs = (matrix.cell(patch.name, victim) for patch in (better, worse))
        drops = f"{theirs.scores.miou_drop:.3f} against {ours.scores.miou_drop:.3f}"
        if victim in better.trained_on:
            warnings.append(
                f"{worse.name} on {victim}: weaker after {worse.steps} steps than {better.name} after "
                f"{better.steps} (drop {drops}); lower the step size"
            )
        else:
            warnings.append(
                f"{worse.name} on {victim}: weaker than {better.name}, which never saw it (drop {drops}); "
                "its training is weak or its gradient masked, so read white-box drops as lower bounds"
            )
    return warnings


def _surprises(matrix: TransferMatrix) -> Iterator[tuple[Patch, Patch, str]]:
    """(better, worse, victim) where the worse patch was trained on the victim alone, by the same recipe as the
    better one, and with more steps if that was trained on it too."""
    trained = [patch for patch in matrix.patches if patch.kind == "trained"]
    for worse in trained:
        for victim in (name for name in worse.trained_on if name in matrix.victims):
            for better in trained:
                same = (better.preset, better.loss, better.range) == (worse.preset, worse.loss, worse.range)
                if victim in better.trained_on:
                    same &= better.trained_on == worse.trained_on and better.seed == worse.seed
                    same &= better.steps < worse.steps
                else:
                    same &= len(worse.trained_on) == 1
                ours, theirs = (matrix.cell(patch.name, victim).ci95 for patch in (better, worse))
                if same and ours[0] > theirs[1]:
                    yield better, worse, victim


def _check_mixture(patches: Sequence[Patch], victims: Sequence[Victim]) -> list[str]:
    """About patches and networks of one table that were not made alike."""
    origins = [patch.origin for patch in patches if patch.kind == "trained"]
    precisions = {origin["config"].get("precision") for origin in origins if "config" in origin} - {None}
    versions: dict[tuple[str, str | None], set[str | None]] = {}
    for data in (origin["data"] for origin in origins if "data" in origin):
        kind = str(data.get("spec")).partition(":")[0]  # wherever it lies
        versions.setdefault((kind, data.get("split")), set()).add(data.get("fingerprint"))
    maps = {victim.class_map.name for victim in victims if victim.class_map}
    warnings = [
        f"the patches were trained on {len(found)} versions of {kind} {split}: train them again on one"
        for (kind, split), found in versions.items()
        if len(found) > 1
    ]
    if len(precisions) > 1:
        warnings.append(f"the patches were trained in {' and '.join(sorted(precisions))}: compare those of one")
    if len(maps) > 1:
        warnings.append(f"the networks' classes are merged by {' and '.join(sorted(maps))}: compare those of one")
    return warnings


def _short(value: object) -> str:
    if isinstance(value, list) and len(value) > 3:
        return f"{len(value)} of them, {value[0]} first"
    return str(value)


def grew_weaker(correct: Sequence[float]) -> bool:
    """Whether the share of correct pixels (one number a step) rose again before the last tenth of the steps.

    It did if the mean of the last tenth lies above that of an earlier one by more than 0.02 and three standard
    errors. Below 20 steps nothing is said.
    """
    if len(correct) < _LEAST_STEPS:
        return False
    size = len(correct) // 10
    tenths = np.asarray(correct[len(correct) % size :], float).reshape(-1, size)
    means, errors = tenths.mean(1), tenths.std(1) / math.sqrt(size)
    best = int(means.argmin())
    return bool(means[-1] - means[best] > max(_LEAST_RISE, 3 * math.hypot(errors[best], errors[-1])))


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
