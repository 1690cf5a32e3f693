"""The loss ablation: every loss's drop, and the published loss against the best gamma."""

from __future__ import annotations

import torch
from torch import Tensor

from segpatch.eot import generator_at
from segpatch.report.record import Finding, Study, held_above, not_run, number
from segpatch.results import TransferResult, read_scores
from segpatch.statistics import interval, resampled_miou
from segpatch.transfer import bootstrap_counts

LOSS_MARGIN = 0.005
"""mIoU within which two losses are called as good as each other."""
_LOSSES = 0x6C6F7373  # "loss": an address that no training step reaches


def losses(study: Study) -> list[Finding]:
    """The simplified loss is within 0.005 mIoU of the best gamma."""
    claim = f"the simplified loss is within {LOSS_MARGIN:g} mIoU of the best gamma"
    result = study.matrices.get("ablations/losses")
    if result is None:
        return [not_run(claim)]
    scores = read_scores(study.directory / "ablations/losses")
    counts = bootstrap_counts(result.dataset.groups, result.dataset.block, 0)
    bounds, lines = [], []
    for victim in result.victims:
        drops = _drops(result, scores, victim.name, counts)
        means = {loss: float(values[0].mean()) for loss, values in drops.items()}
        gammas = [loss for loss in means if loss.startswith("gamma-")]
        ranked = ", ".join(f"{loss} {number(drop)}" for loss, drop in sorted(means.items(), key=lambda m: -m[1]))
        lines.append(f"{victim.name}: {ranked}")
        if not gammas or "correct-pixel" not in drops:
            continue
        best = max(gammas, key=lambda loss: means[loss])
        low, high = interval(drops["correct-pixel"][1] - drops[best][1])
        bounds.append((low, high))
        behind = means["correct-pixel"] - means[best]
        lines.append(f"{victim.name}: correct-pixel less {best}: {number(behind)} [{low:.3f}, {high:.3f}]")
    return [Finding(claim, held_above(bounds, -LOSS_MARGIN), tuple(lines))]


def _drops(
    result: TransferResult, scores: dict[str, Tensor], victim: str, counts: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """By loss: the drop of each seed (S,), and the mean over seeds in each resample (R,), seeds drawn again
    too."""
    found: dict[str, list[tuple[float, Tensor]]] = {}
    presets = {patch.name: patch.preset for patch in result.patches if patch.kind == "trained"}
    for index, cell in enumerate(result.cells):
        preset = presets.get(cell.patch)
        if cell.victim == victim and preset is not None and cell.miou_drop is not None:
            clean, patched = (scores[f"{index}/{which}"] for which in ("clean_outside", "patched"))
            resampled = resampled_miou(clean, counts) - resampled_miou(patched, counts)
            found.setdefault(preset, []).append((cell.miou_drop, resampled))
    out = {}
    for preset, seeds in found.items():
        values = torch.stack([resampled for _, resampled in seeds], dim=1)
        # The same seeds in the same resample of every loss: they share their start and their scenes.
        picked = torch.from_numpy(generator_at(0, _LOSSES).integers(len(seeds), size=(len(values), len(seeds))))
        out[preset] = (torch.tensor([drop for drop, _ in seeds]), values.gather(1, picked).mean(1))
    return out
