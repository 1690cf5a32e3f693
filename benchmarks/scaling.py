"""What a step and a measurement cost as one thing grows: patch, image, batch, classes, networks, patches, cores.

    python benchmarks/scaling.py --out DIR [--network pidnet-s] [--repeats 5] [--precision fp32]

One thing is changed at a time; every variant is timed in turn with the base case, and its ratio to that is taken
round by round. The last rows share the steps of a whole attack over processes (torchrun). Random weights and
images: only the time counts. Writes DIR/scaling.json and prints a table.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from segpatch import heap
from segpatch.attack_config import AttackConfig, resolve
from segpatch.attack_step import draw_samples, patch_gradient
from segpatch.data.classes import ClassSet, distinct_colour
from segpatch.evaluation import evaluate_all
from segpatch.latency import Action, interleaved, ratio
from segpatch.machine import environment
from segpatch.models.folding import folded
from segpatch.models.networks import network_name, network_spec
from segpatch.models.victim import Provenance, Victim
from segpatch.patch import FULL_RANGE, Patch, random_pixels
from segpatch.transforms import as_float
from segpatch.types import Batch

CPU = torch.device("cpu")


@dataclasses.dataclass(frozen=True)
class Case:
    """A step of `batch` crops, and a measurement of as many images with `patches` patches."""

    height: int = 256
    width: int = 512
    patch: int = 50
    batch: int = 2
    classes: int = 19
    networks: int = 1
    patches: int = 2


BASE = Case()
VARIANTS: dict[str, list[Case]] = {
    "patch": [dataclasses.replace(BASE, patch=side) for side in (25, 100, 200)],
    "image": [dataclasses.replace(BASE, height=h, width=2 * h) for h in (128, 512)],
    "batch": [dataclasses.replace(BASE, batch=count) for count in (1, 4, 8)],
    "classes": [dataclasses.replace(BASE, classes=count) for count in (2, 11, 65, 150)],
    "networks": [dataclasses.replace(BASE, networks=count) for count in (2, 4)],
    "patches": [dataclasses.replace(BASE, patches=count) for count in (1, 4, 8)],
}


def victim_of(name: str, classes: int) -> Victim:
    torch.manual_seed(0)
    module = network_spec(name).default.build(classes, auxiliary=False)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Victim(
        module,
        name=name,
        size_multiple=module.size_multiple,
        size_offset=getattr(module, "size_offset", 0),
        align_corners=module.output_align_corners,
        classes=ClassSet(
            f"{classes} classes",
            tuple(f"class {k}" for k in range(classes)),
            tuple(distinct_colour(k) for k in range(classes)),
        ),
        provenance=Provenance(network=name),
    )


def actions(case: Case, name: str, precision: str) -> dict[str, Action]:
    """The step and the measurement of a case."""
    victims = [folded(victim_of(name, case.classes)) for _ in range(case.networks)]
    draw = torch.Generator().manual_seed(0)
    shape = (case.batch, 3, case.height, case.width)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=draw)
    labels = torch.randint(case.classes, (case.batch, case.height, case.width), dtype=torch.uint8, generator=draw)
    pairs = list(zip(images, labels, strict=True))
    config = AttackConfig(
        steps=1,
        batch_size=case.batch,
        crop=(case.height, case.width),
        patch_size=(case.patch, case.patch),
        precision=precision,
    )
    config = resolve(config, pairs, victims)
    pixels = random_pixels((case.patch, case.patch), FULL_RANGE, 0)
    batch = Batch(as_float(images), labels.long(), tuple(str(k) for k in range(case.batch)))
    patches = [None, *[Patch(pixels)] * case.patches]
    numbers = range(case.batch)
    return {
        "step": lambda: patch_gradient(victims, pixels, config, lambda: draw_samples(pairs, numbers, 0, config)),
        "measurement": lambda: evaluate_all(victims, [batch], patches, precision=precision),
    }


def grown(name: str, precision: str, repeats: int) -> list[dict[str, object]]:
    """A row for each variant: how many times the base case its step and its measurement cost."""
    rows = []
    for what, cases in VARIANTS.items():
        for case in cases:
            base, other = actions(BASE, name, precision), actions(case, name, precision)
            timings = interleaved(
                {
                    f"{which}/{key}": run
                    for which, of in (("base", base), ("case", other))
                    for key, run in of.items()
                },
                repeats,
                CPU,
            )
            row: dict[str, object] = {"grows": what, "case": dataclasses.asdict(case)}
            for key in base:
                row[key] = dataclasses.asdict(ratio(timings[f"case/{key}"], timings[f"base/{key}"]))
                row[f"{key}_seconds"] = timings[f"case/{key}"].seconds
            rows.append(row)
            shown = " ".join(f"{key} {row[key]['median']:.2f}" for key in base)  # type: ignore[index]
            print(f"{what:10s} {getattr(case, 'height' if what == 'image' else what):5d}  {shown}", flush=True)
    return rows


def shared(name: str, precision: str, steps: int, repeats: int) -> list[dict[str, object]]:
    """Throughput per core of 2 processes of one core each, against one process on 1 core and on 2, in turn.

    The same attack, its steps shared. Seconds per step are those that `steps` more steps add to the whole process,
    so that its start cancels. On one core of two a process has the whole machine's memory to itself.
    """
    seconds: dict[str, list[float]] = {}
    for _ in range(repeats):
        for processes, threads in ((1, 1), (1, 2), (2, 1)):
            short, long = (_attack_seconds(name, precision, processes, threads, n) for n in (2, 2 + steps))
            seconds.setdefault(f"{processes}x{threads}", []).append((long - short) / steps)
    rows = []
    for one, cores in (("1x1", 1), ("1x2", 2)):
        per_core = sorted(cores * a / (2 * b) for a, b in zip(seconds[one], seconds["2x1"], strict=True))
        median = statistics.median(per_core)
        print(f"2 processes against 1 on {cores} core(s): throughput per core {median:.2f}", flush=True)
        rows.append({"grows": "processes", "against_cores": cores, "per_core": per_core, "seconds": seconds})
    return rows


def _attack_seconds(name: str, precision: str, processes: int, threads: int, steps: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node",
            str(processes),
            "-m",
            "segpatch",
        ]
        command += [
            "attack",
            "--victim",
            name,
            "--data",
            "streets",
            "--images",
            "8",
            "--batch-size",
            "4",
            "--quiet",
        ]
        command += ["--steps", str(steps), "--precision", precision, "--out", f"{folder}/run"]
        cores = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        begun = time.perf_counter()
        subprocess.run(command, check=True, env=cores, stdout=subprocess.DEVNULL)
        return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--network", default="pidnet-s")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=16, help="of the attack that processes share")
    parser.add_argument("--only-processes", action="store_true", help="leave the other rows out")
    options = parser.parse_args()
    heap.keep()
    name = network_name(options.network)
    rows = [] if options.only_processes else grown(name, options.precision, options.repeats)
    rows += shared(name, options.precision, options.steps, max(3, options.repeats // 2))
    options.out.mkdir(parents=True, exist_ok=True)
    content = {"network": name, "base": dataclasses.asdict(BASE), "environment": environment(), "rows": rows}
    (options.out / "scaling.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
