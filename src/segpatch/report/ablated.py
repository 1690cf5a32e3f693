"""What the ablations say: losses, scenes, step, batch, place, and networks of little accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from segpatch.eot import generator_at
from segpatch.report.record import Finding, Study, held_above, held_apart, not_run, number
from segpatch.results import TransferResult, read_scores
from segpatch.statistics import interval, resampled_miou
from segpatch.transfer import bootstrap_counts

LOSS_MARGIN = 0.005
"""mIoU within which two losses are called as good as each other."""
_SEEDS = 0x73656564  # "seed": an address that no training step reaches
Drops = dict[str, tuple[Tensor, Tensor]]
"""By variant: the drop of each seed (S,), and the mean over seeds in each resample (R,), seeds drawn again too."""

_PAIRS = (
    ("scenes", "as-it-is", "no-eot", "without scene EOT a patch is weaker on unseen images (mechanism 1)"),
    ("scenes", "as-it-is", "no-scaling", "without scaling in training a patch is weaker at the native size"),
    ("scenes", "as-it-is", "patch-eot", "patch EOT weakens a patch that is shown as it is"),
    ("step-size", "step-x1", "step-x0.1", "a tenth of the step size gives a weaker patch (quick check 3)"),
    ("step-size", "step-x1", "step-x10", "ten times the step size gives a weaker patch (quick check 3)"),
    ("steps", "steps-x2", "steps-x1", "twice the steps give a stronger patch"),
    ("batch", "batch-6", "batch-1", "a batch of 6 gives a stronger patch than a batch of 1"),
    ("place", "place-drawn", "place-centre", "trained at drawn places, a patch is stronger at drawn places"),
)
"""Ablation, the variant that the claim says is stronger, the weaker one, the claim."""


def ablations(study: Study) -> list[Finding]:
    """What losses and every other ablation say of the paper's choices."""
    compared = {name: _drops(study, name) for name in ("losses", *dict.fromkeys(pair[0] for pair in _PAIRS))}
    found = _losses(compared["losses"])
    for name, stronger, weaker, claim in _PAIRS:
        found.append(_compared(compared[name], stronger, weaker, claim))
    return [*found, other_distances(study), low_accuracy(study)]


def other_distances(study: Study) -> Finding:
    """Without scaling in training a patch is weaker at other sizes of image and patch together."""
    claim = "without scaling in training a patch is weaker at other distances (quick check 1)"
    variants: dict[str, dict[tuple[str, str, float], Sequence[float]]] = {}
    lines = []
    for cell in study.cells("distances"):
        _, variant, seed = cell["patch"].split("/")
        frames = [row for row in cell["rows"] if (row["images"], row["frame"]) == ("unseen", "frame")]
        shown = [row for row in frames if row["fixed"] == "share" and "left_out" not in row]
        bounds = {(cell["victim"], seed, row["scale"]): row["over_random_ci95"] for row in shown}
        variants.setdefault(variant, {}).update(bounds)
        drops = ", ".join(f"x{row['scale']:g} {number(row['over_random'])}" for row in shown)
        lines.append(f"{cell['patch']} on {cell['victim']}: {drops}")
    if not {"as-it-is", "no-scaling"} <= variants.keys():
        return not_run(claim)
    scaled, unscaled = variants["as-it-is"], variants["no-scaling"]
    return Finding(claim, held_apart([(scaled[at], unscaled[at]) for at in scaled]), tuple(lines))


def low_accuracy(study: Study) -> Finding:
    """Of networks of little accuracy the loss sees few pixels, and its patch takes a smaller share of mIoU."""
    claim = "of a network of little accuracy a patch takes a smaller share (mechanism 2's break condition)"
    result = study.matrices.get("ablations/accuracy")
    if result is None:
        return not_run(claim)
    order = study.record["plan"]["checkpoints"]
    shares: dict[str, tuple[float, float]] = {}
    lines = []
    for name in order:
        drop, resampled, clean = _own_share(study, result, name)
        shares[name] = interval(resampled)
        low, high = shares[name]
        lines.append(
            f"{name}: clean mIoU {clean:.3f}, of which its own patches take {drop:.1%} [{low:.1%}, {high:.1%}]"
        )
    return Finding(claim, held_apart([(shares[order[-1]], shares[order[0]])]), tuple(lines))


def _own_share(study: Study, result: TransferResult, victim: str) -> tuple[float, Tensor, float]:
    """The share of a network's mIoU that its own patches take, mean over seeds; in resamples (R,); its mIoU."""
    scores = read_scores(study.directory / "ablations/accuracy")
    counts = bootstrap_counts(result.dataset.groups, result.dataset.block, 0)
    values, resampled, clean_miou = [], [], 0.0
    for index, cell in enumerate(result.cells):
        if cell.victim == victim and cell.white_box and cell.miou_drop is not None and cell.miou_clean_outside:
            clean_miou = cell.miou_clean_outside
            values.append(cell.miou_drop / clean_miou)
            clean, patched = (
                resampled_miou(scores[f"{index}/{which}"], counts) for which in ("clean_outside", "patched")
            )
            resampled.append(1 - patched / clean)
    return sum(values) / len(values), _over_seeds(torch.stack(resampled, dim=1)), clean_miou


def _losses(compared: dict[str, Drops]) -> list[Finding]:
    """The simplified loss is within 0.005 mIoU of the best gamma, a finding per network."""
    claim = f"the simplified loss is within {LOSS_MARGIN:g} mIoU of the best gamma"
    found = []
    for victim, drops in compared.items():
        lines = [_ranking(victim, drops)]
        gammas = [loss for loss in drops if loss.startswith("gamma-")]
        if not gammas or "correct-pixel" not in drops:
            continue
        best = max(gammas, key=lambda loss: float(drops[loss][0].mean()))
        low, high = interval(drops["correct-pixel"][1] - drops[best][1])
        behind = float(drops["correct-pixel"][0].mean() - drops[best][0].mean())
        lines.append(f"{victim}: correct-pixel less {best}: {number(behind)} [{low:.3f}, {high:.3f}]")
        found.append(Finding(f"{claim} (on {victim})", held_above([(low, high)], -LOSS_MARGIN), tuple(lines)))
    return found or [not_run(claim)]


def _compared(by_victim: dict[str, Drops], stronger: str, weaker: str, claim: str) -> Finding:
    """Whether one variant's drop is above another's, on every network."""
    bounds, lines = [], []
    for victim, drops in by_victim.items():
        if stronger in drops and weaker in drops:
            low, high = interval(drops[stronger][1] - drops[weaker][1])
            more = float(drops[stronger][0].mean() - drops[weaker][0].mean())
            bounds.append((low, high))
            lines += [f"{victim}: {number(more)} [{low:.3f}, {high:.3f}] more", _ranking(victim, drops)]
    return Finding(claim, held_above(bounds, 0.0), tuple(lines)) if bounds else not_run(claim)


def _ranking(victim: str, drops: Drops) -> str:
    means = sorted(((float(values.mean()), name) for name, (values, _) in drops.items()), reverse=True)
    return f"{victim}: " + ", ".join(f"{name} {number(drop)}" for drop, name in means)


def _drops(study: Study, name: str) -> dict[str, Drops]:
    """The drops of an ablation's variants, by network."""
    result = study.matrices.get(f"ablations/{name}")
    if result is None:
        return {}
    scores = read_scores(study.directory / "ablations" / name)
    counts = bootstrap_counts(result.dataset.groups, result.dataset.block, 0)
    presets = {patch.name: patch.preset for patch in result.patches if patch.kind == "trained"}
    out: dict[str, Drops] = {}
    for victim in result.victims:
        found: dict[str, list[tuple[float, Tensor]]] = {}
        for index, cell in enumerate(result.cells):
            preset = presets.get(cell.patch)
            if cell.victim == victim.name and cell.white_box and preset and cell.miou_drop is not None:
                clean, patched = (
                    resampled_miou(scores[f"{index}/{which}"], counts) for which in ("clean_outside", "patched")
                )
                found.setdefault(preset, []).append((cell.miou_drop, clean - patched))
        out[victim.name] = {
            preset: (
                torch.tensor([drop for drop, _ in seeds]),
                _over_seeds(torch.stack([resampled for _, resampled in seeds], dim=1)),
            )
            for preset, seeds in found.items()
        }
    return out


def _over_seeds(values: Tensor) -> Tensor:
    """The mean over seeds in each resample (R, S) -> (R,), seeds drawn again.

    The same seeds in the same resample of every variant: they share their start and their scenes.
    """
    resamples, seeds = values.shape
    picked = torch.from_numpy(generator_at(0, _SEEDS).integers(seeds, size=(resamples, seeds)))
    return values.gather(1, picked).mean(1)
