"""Speed figures of the paper's seven networks: steps, measurement, the plain step, in fp32 and bf16.

    python benchmarks/gpu/1_speed.py --out DIR [--size 512 --size 1024] [--repeats 7]

Writes DIR/speed.json after every network, so that a run that is cut off keeps what it measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "src"))

import torch  # noqa: E402

from segpatch.machine import environment  # noqa: E402
from segpatch.studies.bench import BenchPlan, bench_network, load_reference  # noqa: E402

NETWORKS = (
    "pidnet-s",
    "pidnet-m",
    "pidnet-l",
    "icnet-r50",
    "bisenetv1-r18",
    "bisenetv2",
    "segformer-b0",
    "segformer-b5",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, action="append", help="side of the images in pixels; repeatable")
    parser.add_argument(
        "--network", action="append", help="repeatable; unless given, the paper's and segformer-b5"
    )
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--minutes", type=float, default=8.0, help="stop before the next network after this long")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    reference = load_reference(HERE.parent / "naive.py")
    rows, begun = [], time.monotonic()
    for precision in ("fp32", "bf16"):
        for side in options.size or [512, 1024]:
            for name in options.network or NETWORKS:
                if time.monotonic() - begun > 60 * options.minutes:
                    print("out of time", flush=True)
                    return
                plan = BenchPlan(
                    size=(side, side), batch=options.batch_size, repeats=options.repeats, precision=precision
                )
                row = bench_network(name, plan, device, reference)
                rows.append({"plan": dataclasses.asdict(plan), **row.facts()})
                content = {"device": str(device), "environment": environment(), "rows": rows}
                (options.out / "speed.json").write_text(json.dumps(content, indent=1))
                print(precision, side, name, {k: round(r.median, 2) for k, r in row.ratios.items()}, flush=True)


if __name__ == "__main__":
    main()
