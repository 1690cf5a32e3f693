"""Do the fast paths change a result? The same attack by the plain path, by ours in fp32 and by ours in bf16.

    python benchmarks/precision.py --out DIR [--steps 60] [--seeds 3] [--images 40]

The plain path is written out: every sample pasted, the victim called as a user would call it, the loss of LOSSES,
autograd from the loss to the patch. Preset `strong` on the shipped PIDNet-S, unseen streets, measured in fp32.
Writes DIR/precision.json and prints, for each seed: the largest relative difference of the losses from the plain
path's over the first ten steps, and the final mIoU of each path.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

from segpatch import heap
from segpatch.attack import train_patch
from segpatch.attack_config import PRESETS, AttackConfig, resolve, step_size
from segpatch.attack_step import Step
from segpatch.data import batches, open_data
from segpatch.data.dataset import cached, order
from segpatch.data.images import SplitImages, spaced, split_images
from segpatch.eot import EOT, apply_placement, draw
from segpatch.evaluation import evaluate
from segpatch.losses import LOSSES
from segpatch.machine import environment
from segpatch.models.load import load_victim
from segpatch.models.victim import Victim
from segpatch.patch import Patch
from segpatch.transforms import SceneEOT, apply_scene, apply_scene_to_labels, as_float
from segpatch.updates import adam_start, adam_step

FIRST = 10
"""Steps whose losses are compared; later ones differ because the patches do."""


def plain_attack(victim: Victim, images: SplitImages, config: AttackConfig) -> tuple[Patch, list[float]]:
    """The patch after the last step, and the loss of every step."""
    config = resolve(config, images, [victim])
    assert config.patch_size and config.steps and config.batch_size
    eot = EOT(SceneEOT(config.scales, config.crop, config.flip), config.patch_eot, config.place)
    low, high = (torch.tensor(bound) for bound in config.range)
    pixels = ((low + high) / 2).view(3, 1, 1).expand(3, *config.patch_size).clone()
    adam, losses = adam_start(pixels), []
    for step in range(config.steps):
        leaf = pixels.clone().requires_grad_()
        parts = []
        for number in range(config.batch_size):
            epoch, place = divmod(step * config.batch_size + number, len(images))
            image, truth = images[order(config.seed, epoch, len(images))[place]]
            size = (truth.shape[0], truth.shape[1])
            scene, placement = draw(eot, (config.seed, step, number), size, config.patch_size)
            crop, truth = apply_scene(as_float(image), scene), apply_scene_to_labels(truth, scene)
            parts.append(apply_placement(crop, truth.long(), leaf, placement))
        patched, labels = (torch.stack(part) for part in zip(*parts, strict=True))
        total, count = LOSSES[config.loss](victim(patched), labels)
        loss = total / count
        (gradient,) = torch.autograd.grad(loss, leaf)
        pixels, adam = adam_step(pixels, gradient, adam, step_size(config, step), low, high)
        losses.append(float(loss.detach()))
    return Patch(pixels, name="plain"), losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=40)
    options = parser.parse_args()
    heap.keep()
    data = cached(open_data("streets"))
    train = split_images(data, "train", 96)
    victim = load_victim("pidnet-s").for_classes(data.classes)
    measured = spaced(len(data.samples("val")), options.images)

    def miou(patch: Patch | None) -> float:
        scores = evaluate(victim, batches(data, "val", batch_size=4, indices=measured), patch)
        return scores.miou

    rows = []
    for seed in range(options.seeds):
        # The last patch, not the best one: that choice would hide a difference.
        config = replace(
            PRESETS["strong"], steps=options.steps, batch_size=4, seed=seed, select="last", held_out=0
        )
        patch, plain = plain_attack(victim, train, config)
        row: dict[str, object] = {"seed": seed, "miou": {"plain": miou(patch)}, "losses": {"plain": plain}}
        for precision in ("fp32", "bf16"):
            steps: list[Step] = []
            patch = train_patch([victim], train, replace(config, precision=precision), on_step=steps.append)
            losses = [step.loss for step in steps]
            row["losses"][precision] = losses  # type: ignore[index]
            row["miou"][precision] = miou(patch)  # type: ignore[index]
            pairs = list(zip(losses, plain, strict=True))[:FIRST]
            row[f"{precision}_loss_difference"] = max(abs(a - b) / b for a, b in pairs)
        rows.append(row)
        print({key: value for key, value in row.items() if key != "losses"}, flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    content = {
        "options": {k: str(v) for k, v in vars(options).items()},
        "environment": environment(),
        "rows": rows,
    }
    (options.out / "precision.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
