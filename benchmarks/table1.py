"""Hours of the paper's whole Table I (arXiv:2502.16012), projected from measured steps of this machine.

    python benchmarks/table1.py --out DIR [--precision fp32] [--repeats 3]

The run: six CNN patches of 14,880 updates of 6 crops of 1024x1024, SegFormer-B5 45,060 updates of 1, then 8
patches (the seven and none) on 7 networks over 500 images of 1024x2048. Measured are a step of one crop and a
measurement of one image for each network, and the decoding of a Cityscapes-sized PNG pair, which no other work is
taken to hide. Random weights and images: only the time counts. Writes DIR/table1.json and prints the hours.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from segpatch import heap
from segpatch.data.files import FilePair, label_table
from segpatch.machine import environment
from segpatch.studies.bench import PATCHES, BenchPlan, bench_network

CNNS = ("pidnet-s", "pidnet-m", "pidnet-l", "icnet-r50", "bisenetv1-r18", "bisenetv2")
UPDATES, CROPS = 14_880, 6
TRANSFORMER, TRANSFORMER_UPDATES = "segformer-b5", 45_060
IMAGES, ROWS = 500, 8


def decoding_seconds(repeats: int) -> float:
    """Of a 1024x2048 image and its label, read from PNG files; the image is noise over a gradient."""
    rng = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(1024), np.arange(2048))[..., None] // 16
    image = (ramp + rng.integers(8, size=(1024, 2048, 3))).astype(np.uint8)
    label = np.repeat(np.repeat(rng.integers(19, size=(32, 64)), 32, 0), 32, 1).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        pair = FilePair(Path(folder) / "image.png", Path(folder) / "label.png", label_table(range(19)))
        Image.fromarray(image).save(pair.image)
        assert pair.label
        Image.fromarray(label).save(pair.label)
        seconds = []
        for _ in range(repeats):
            begun = time.perf_counter()
            pair.read()
            seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    heap.keep()
    device = torch.device(options.device)
    decode = decoding_seconds(5)
    found, hours = {}, {"decode for training": 0.0}
    for name in (*CNNS, TRANSFORMER):
        seconds = {}
        for which, size in (("step", (1024, 1024)), ("evaluation", (1024, 2048))):
            plan = BenchPlan(size=size, batch=1, repeats=options.repeats, precision=options.precision, only=which)
            seconds[which] = bench_network(name, plan, device).timings[which].median
        step, evaluation = seconds["step"], seconds["evaluation"]
        found[name] = {"step_of_one_crop": step, "row_of_one_image": evaluation / (PATCHES + 1)}
        crops = UPDATES * CROPS if name in CNNS else TRANSFORMER_UPDATES
        hours[f"patch of {name}"] = crops * step / 3600
        hours[f"{ROWS} rows on {name}"] = IMAGES * ROWS * evaluation / (PATCHES + 1) / 3600
        hours["decode for training"] += crops * decode / 3600
        print(name, {key: round(value, 3) for key, value in found[name].items()}, flush=True)
    hours["decode for measuring"] = IMAGES * decode / 3600
    hours["all"] = sum(hours.values())
    for what, value in hours.items():
        print(f"{value:9.2f} h  {what}")
    options.out.mkdir(parents=True, exist_ok=True)
    content = {
        "precision": options.precision,
        "device": str(device),
        "environment": environment(),
        "decode_seconds": decode,
        "seconds": found,
        "hours": hours,
    }
    (options.out / "table1.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
