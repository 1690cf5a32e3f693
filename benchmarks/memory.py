"""How much memory do the tensors of a step hold at once, beside those of the bare network?

    python benchmarks/memory.py --out DIR [--network NAME ...] [--size 512] [--batch-size 2] [--precision fp32]

What `segpatch bench` reads of the process on a CPU is its resident set, which holds the heap's gaps and the
libraries' buffers too and repeats to about a tenth. Here the bytes that torch allocates and frees are added
up, as torch.cuda.max_memory_allocated does; they are the same in every run. Writes DIR/memory.json and prints
a line a network.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from segpatch.cli.options import parse_size
from segpatch.latency import Action
from segpatch.machine import environment
from segpatch.studies.bench import BenchPlan, bench_actions

NETWORKS = ("pidnet-s", "pidnet-m", "pidnet-l", "icnet-r50", "bisenetv1-r18", "bisenetv2", "segformer-b0")


def most_held(action: Action) -> int:
    """Bytes of tensors above the level before, at the highest, the second time that an action is done."""
    action()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        action()
    held = most = 0
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--network", action="append", default=[])
    parser.add_argument("--size", default="512")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--precision", default="fp32")
    options = parser.parse_args()
    plan = BenchPlan(size=parse_size(options.size) or (512, 512), batch=options.batch_size, only="step",
                     precision=options.precision)  # fmt: skip
    rows = []
    for network in options.network or NETWORKS:
        actions, _ = bench_actions(network, plan, torch.device("cpu"))
        held = {name: most_held(action) for name, action in actions.items()}
        ratio = held["step"] / held["forward_backward"]
        rows.append({"network": network, **held, "ratio": ratio})
        print(
            f"{network}: {ratio:.2f} ({held['step'] / 1e6:.0f} of {held['forward_backward'] / 1e6:.0f} MB)",
            flush=True,
        )
    about = {
        "size": plan.size,
        "batch": plan.batch,
        "precision": plan.precision,
        "environment": environment(),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "memory.json").write_text(json.dumps({**about, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
