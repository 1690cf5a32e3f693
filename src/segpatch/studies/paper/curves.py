"""Training seen from outside (Fig. 2): kept patches on training crops, as in the paper, and on unseen images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor

from segpatch.attack import start_pixels
from segpatch.attack_config import AttackConfig
from segpatch.attack_step import Samples, draw_samples, show_patch
from segpatch.evaluation import evaluate_all, predict_prepared
from segpatch.metrics import confusion_matrix, iou_per_class, miou
from segpatch.models.folding import folded
from segpatch.models.victim import Victim
from segpatch.names import safe_name
from segpatch.patch import Patch
from segpatch.runs import read_steps
from segpatch.statistics import LEAST_BLOCKS, interval, resampled_miou
from segpatch.studies.attack import read_snapshots
from segpatch.studies.paper.context import Cell, Context, config_of


def curve_cells(context: Context) -> list[Cell]:
    """A cell per patch and network that it was trained on."""
    return [_cell(context, patch, victim) for patch, victim in context.owned()]


def _cell(context: Context, patch: Patch, victim: Victim) -> Cell:
    config = config_of(patch)
    held_out = context.images(context.plan.curve_images)
    snapshots = {0: start_pixels(config), **read_snapshots(context.folder(patch.name))}
    draws = max(1, len(held_out) // (config.batch_size or 1))

    def work(show: Callable[[int, int], None]) -> dict[str, Any]:
        patches = [
            replace(patch, pixels=pixels, name=f"{patch.name}@{step}") for step, pixels in snapshots.items()
        ]
        total = draws + len(held_out)
        on_crops = _on_crops(
            context, victim, config, list(snapshots.values()), draws, lambda done: show(done, total)
        )
        scores = evaluate_all(
            [victim],
            context.batches(held_out),
            patches,
            precision=context.plan.precision,
            on_image=lambda done: show(draws + done, total),
        )
        counts = context.resamples(held_out)
        points: list[dict[str, Any]] = []
        rows = read_steps(context.folder(patch.name))
        before, kept = 0, []
        for (step, crops), (score,) in zip(zip(snapshots, on_crops[1:], strict=True), scores, strict=True):
            drops = resampled_miou(score.clean_outside, counts) - resampled_miou(score.patched, counts)
            kept.append(drops)
            since = score.miou_drop - scores[0][0].miou_drop
            points.append(
                {
                    "step": step,
                    "miou": score.miou,
                    "drop": score.miou_drop,
                    "ci95": interval(drops),
                    "over_start": {"value": since, "ci95": interval(drops - kept[0])},
                    "iou": score.iou,
                    "crop_miou": float(miou(crops)),
                    "crop_iou": iou_per_class(crops).tolist(),
                    **_means(_between(rows, before, step)),
                }
            )
            before = step
        result = {
            "patch": patch.name,
            "victim": victim.name,
            "family": victim.provenance.family,
            "classes": list(victim.label_classes.names),
            "images": len(held_out),
            "blocks": context.blocks(held_out),
            "crops": draws * (config.batch_size or 1),
            "clean_miou": scores[0][0].miou_clean_outside,
            "clean_crop_miou": float(miou(on_crops[0])),
            "points": points,
            "loss_change": loss_change(
                _between(rows, 0, points[1]["step"]), _between(rows, points[-2]["step"], before)
            ),
        }
        return {**result, "sentence": level_sentence(result)}

    asked = {"patch": patch.facts(), "images": len(held_out), "draws": draws, "steps": list(snapshots)}
    return Cell(f"curves/{safe_name(patch.name)}_on_{safe_name(victim.name)}", [victim], asked, work)


def _on_crops(
    context: Context,
    victim: Victim,
    config: AttackConfig,
    patches: Sequence[Tensor],
    draws: int,
    on_draw: Callable[[int], None],
) -> list[Tensor]:
    """Confusion matrices (K, K) over the same training crops: without a patch, then with each."""
    fast = folded(victim)
    classes = len(victim.label_classes)
    totals = [torch.zeros(classes, classes, dtype=torch.int64) for _ in range(len(patches) + 1)]
    with torch.inference_mode():
        for draw in range(draws):
            samples = draw_samples(
                context.training, range(len(context.training)), draw, config, device=victim.device
            )
            for total, pixels in zip(totals, [None, *patches], strict=True):
                total += _confusion(fast, samples, pixels, config).cpu()
            on_draw(draw + 1)
    return totals


def _confusion(victim: Victim, samples: Samples, pixels: Tensor | None, config: AttackConfig) -> Tensor:
    show_patch(samples, None if pixels is None else pixels.to(victim.device))
    predicted = predict_prepared(victim, victim.prepared(samples.scenes), config.precision)
    return confusion_matrix(predicted, samples.labels, len(victim.label_classes)).sum(0)


def _between(rows: Sequence[dict[str, Any]], before: int, step: int) -> list[dict[str, Any]]:
    """The rows of steps after one and up to another."""
    return [row for row in rows if before < row["step"] <= step]


def loss_change(first: Sequence[dict[str, Any]], last: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The relative change of the mean loss from some steps to others, and its 95 % interval over steps, whose
    scenes are drawn independently: None where there is no loss, or too few steps to tell.
    """
    losses = [[row["loss"] for row in rows if row["loss"] is not None] for rows in (first, last)]
    if min(map(len, losses)) < 2 or not (start := mean(losses[0])):
        return {"value": None, "ci95": (None, None)}
    ratio = mean(losses[1]) / start
    errors = [stdev(values) / math.sqrt(len(values)) for values in losses]
    half = 1.96 * math.hypot(errors[1] / start, errors[0] * ratio / start)
    return {"value": ratio - 1, "ci95": (ratio - 1 - half, ratio - 1 + half)}


def _means(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """What training saw since the point before: loss, share of correct pixels, gradient norm."""
    keys = ("loss", "correct", "gradient_norm")
    return {key: sum(row[key] for row in rows) / len(rows) if rows else None for key in keys}


def level_sentence(curve: dict[str, Any]) -> str:
    """Whether the loss stayed level while mIoU fell (the paper's mechanism 2), in a sentence with its figures."""
    points = [point for point in curve["points"] if point["loss"] is not None]
    first, last = points[0], points[-1]
    fallen = last["over_start"]
    surely = fallen["ci95"][0] > 0 and curve["blocks"] >= LEAST_BLOCKS
    verb = "fell" if surely else "did not fall for sure"
    change, (low, high) = curve["loss_change"]["value"], curve["loss_change"]["ci95"]
    loss = f"{first['loss']:.3f} to {last['loss']:.3f}"
    if change is not None:
        loss += f", {change:+.0%} [{low:+.0%}, {high:+.0%}]"
    right = f"{first['correct']:.1%} to {last['correct']:.1%}"
    return (
        f"{curve['patch']} on {curve['victim']}: mIoU on held-out images {verb} (by {fallen['value']:.3f} "
        f"[{fallen['ci95'][0]:.3f}, {fallen['ci95'][1]:.3f}] since the first step) while the loss went from "
        f"{loss}, and the share of correct pixels from {right}"
    )
