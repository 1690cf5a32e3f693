"""What the ablations say: losses, scenes, step, batch, place, size, and networks of little accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch

from segpatch.report.excess import Drop, Drops, excesses, trainings
from segpatch.report.record import Bounds, Finding, Study, bounds, held_above, not_run, number
from segpatch.runs import read_steps
from segpatch.statistics import interval

LOSS_MARGIN = 0.005
"""mIoU within which two losses are called as good as each other."""

_PAIRS = (
    ("scenes", "as-it-is", "no-eot", "of whole images as they are a patch is weaker on unseen ones (mechanism 1)"),
    ("scenes", "as-it-is", "no-scaling-nor-flip", "without scaling and flip a patch is weaker on unseen images"),
    ("scenes", "as-it-is", "no-scaling", "without scaling in training a patch is weaker at the native size"),
    ("scenes", "as-it-is", "patch-eot", "patch EOT weakens a patch that is shown as it is"),
    ("step-size", "step-x1", "step-x0.1", "a tenth of the step size gives a weaker patch (quick check 3)"),
    ("step-size", "step-x1", "step-x10", "ten times the step size gives a weaker patch (quick check 3)"),
    ("steps", "steps-x2", "steps-x1", "twice the steps give a stronger patch"),
    ("batch", "batch-6", "batch-1", "a batch of 6 gives a stronger patch than a batch of 1"),
    ("place", "place-drawn", "place-centre", "trained at drawn places, a patch is stronger at drawn places"),
)
"""Ablation, the variant that the claim says is stronger, the weaker one, the claim."""


class _Ablation(NamedTuple):
    """An ablation's drops by network and variant, means over seeds; plain, as its variants share one control."""

    drops: Drops
    of: dict[str, dict[str, Drop]]


def ablations(study: Study) -> list[Finding]:
    """What losses and every other ablation say of the paper's choices."""
    compared = {name: _ablation(study, name) for name in ("losses", *dict.fromkeys(pair[0] for pair in _PAIRS))}
    found = _losses(study, compared["losses"])
    for name, stronger, weaker, claim in _PAIRS:
        found.append(_compared(compared[name], stronger, weaker, claim))
    gammas = not_run(
        "the best gamma is the same on several data sets (next check 2); a study has one: compare theirs"
    )
    return [*found, larger_patches(study), other_distances(study), low_accuracy(study), gammas]


def larger_patches(study: Study) -> Finding:
    """A larger patch costs more beyond a random one of its size."""
    claim = "a patch of four times the side costs more beyond random"
    sides = {
        one.patch: one for side in (100, 400) for one in excesses(study, f"ablations/patch-{side}") if one.own
    }
    lines, found = [str(one) for one in sides.values()], []
    for small in (one for one in sides.values() if one.preset == "patch-100"):
        large = sides.get(f"{small.victim}/patch-400")
        if large and large.over_random and small.over_random:
            found.append(large.over_random.less(small.over_random))
    return Finding(claim, held_above(found, 0.0), tuple(lines)) if found else not_run(claim)


def other_distances(study: Study) -> Finding:
    """Without scaling in training a patch is weaker at other sizes of image and patch together."""
    claim = "without scaling in training a patch is weaker at other distances (quick check 1)"
    variants: dict[str, dict[tuple[str, str, float], Bounds]] = {}
    lines = []
    for cell in study.cells("distances"):
        _, variant, seed = cell["patch"].split("/")
        frames = [row for row in cell["rows"] if (row["images"], row["frame"]) == ("unseen", "frame")]
        shown = [row for row in frames if row["fixed"] == "share" and row["scale"] != 1 and "left_out" not in row]
        found = {
            row["scale"]: one
            for row in shown
            if (one := bounds(row["over_random"], row["over_random_ci95"], row.get("blocks", 0)))
        }
        drops = {(cell["victim"], seed, scale): one for scale, one in found.items()}
        variants.setdefault(variant, {}).update(drops)
        lines.append(
            f"{cell['patch']} on {cell['victim']}: " + ", ".join(f"x{k:g} {one}" for k, one in found.items())
        )
    if not {"as-it-is", "no-scaling"} <= variants.keys():
        return not_run(claim)
    scaled, unscaled = variants["as-it-is"], variants["no-scaling"]
    apart = [scaled[at].less(unscaled[at]) for at in scaled if at in unscaled]
    return Finding(claim, held_above(apart, 0.0), tuple(lines))


def low_accuracy(study: Study) -> Finding:
    """Of networks of little accuracy the loss sees few pixels, and its patch takes a smaller share of mIoU."""
    claim = "of a network of little accuracy a patch takes a smaller share (mechanism 2's break condition)"
    run, result = study.directory / "ablations/accuracy", study.matrices.get("ablations/accuracy")
    if result is None:
        return not_run(claim)
    order = study.record["plan"]["checkpoints"]
    drops = Drops(run, result)
    shares, lines = {}, []
    for (trained_on, _), patches in trainings(result).items():
        name = trained_on[0]
        share = drops.share(patches, name)
        if name not in order or (shown := drops.bounds(share)) is None:
            continue
        shares[name] = shown
        steps = [read_steps((run / patch.file).parent) for patch in patches if patch.file]
        right = sum(rows[0]["correct"] for rows in steps) / len(steps)
        norm = sum(row["gradient_norm"] for rows in steps for row in rows) / sum(map(len, steps))
        lines.append(
            f"{name}: clean mIoU {drops.clean(patches[0], name):.3f}, of which its own patches take "
            f"{shown.percent()}; pixels right when training began {right:.0%}, mean gradient norm {norm:.3g}"
        )
    if not {order[0], order[-1]} <= shares.keys():
        return Finding(claim, "undecided", tuple(lines))
    return Finding(claim, held_above([shares[order[-1]].less(shares[order[0]])], 0.0), tuple(lines))


def _losses(study: Study, compared: _Ablation | None) -> list[Finding]:
    """The simplified loss is within 0.005 mIoU of the best gamma, a finding per network of the third
    experiment."""
    claim = f"the simplified loss is within {LOSS_MARGIN:g} mIoU of the best gamma"
    found, tried = [], set()
    for victim, drops in (compared.of if compared else {}).items():
        gammas = {loss: drop for loss, drop in drops.items() if loss.startswith("gamma-")}
        if not gammas or "correct-pixel" not in drops:
            continue
        ours, best = drops["correct-pixel"], max(gammas, key=lambda loss: gammas[loss].value)
        # The best is chosen anew in each resample, so that it gains nothing from being chosen on these images.
        most = torch.stack([drop.resampled for drop in gammas.values()]).amax(0)
        low, high = interval(ours.resampled - most)
        behind = Bounds(ours.value - gammas[best].value, low, high)
        lines = [
            _ranking(victim, drops),
            f"{victim}: correct-pixel less the best of {len(gammas)}, {best}: {behind}",
        ]
        found.append(
            Finding(f"{claim} (third experiment, on {victim})", held_above([behind], -LOSS_MARGIN), tuple(lines))
        )
        tried.add(_network(study, victim))
    return [
        *found,
        *(
            not_run(f"{claim} (third experiment, on {name})")
            for name in ("pidnet-s", "pidnet-m")
            if name not in tried
        ),
    ]


def _network(study: Study, victim: str) -> str:
    """The architecture of a network of the losses."""
    return next(one.network for one in study.matrices["ablations/losses"].victims if one.name == victim)


def _compared(compared: _Ablation | None, stronger: str, weaker: str, claim: str) -> Finding:
    """Whether one variant's drop is above another's, on every network."""
    found, lines = [], []
    for victim, drops in (compared.of if compared else {}).items():
        if compared and stronger in drops and weaker in drops:
            more = compared.drops.bounds(drops[stronger].less(drops[weaker]))
            if more:
                found.append(more)
                lines += [f"{victim}: {more} more", _ranking(victim, drops)]
    return Finding(claim, held_above(found, 0.0), tuple(lines)) if found else not_run(claim)


def _ranking(victim: str, drops: Mapping[str, Drop]) -> str:
    means = sorted(((drop.value, name) for name, drop in drops.items()), reverse=True)
    return f"{victim}: " + ", ".join(f"{name} {number(drop)}" for drop, name in means)


def _ablation(study: Study, name: str) -> _Ablation | None:
    """The drops of an ablation's variants on the networks that they were trained on."""
    result = study.matrices.get(f"ablations/{name}")
    if result is None:
        return None
    drops = Drops(study.directory / "ablations" / name, result)
    of: dict[str, dict[str, Drop]] = {}
    for (trained_on, variant), patches in trainings(result).items():
        for victim in trained_on:
            of.setdefault(victim, {})[variant] = drops.mean(patches, victim)
    return _Ablation(drops, of)
