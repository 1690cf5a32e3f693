"""Where does the time of a step go, beside that of the bare network?

    python benchmarks/parts.py --out DIR [--network NAME ...] [--size 512] [--batch-size 2] [--precision fp32]

Scenes drawn, the network forward, the tail (resize, prediction, loss and its gradient), the network backward, and
the rest (pasting, the way back to the patch, the update), each over a bare forward and backward pass of the same
round; medians over the rounds, bare and step in turn. On a CPU, where nothing runs ahead. Writes DIR/parts.json
and prints a line a network.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from segpatch import attack_step, heap, subnormals
from segpatch.cli.options import parse_size
from segpatch.machine import environment
from segpatch.models.victim import Victim
from segpatch.studies import bench
from segpatch.studies.bench import BenchPlan, bench_actions

NETWORKS = ("pidnet-s", "pidnet-m", "pidnet-l", "icnet-r50", "bisenetv1-r18", "bisenetv2", "segformer-b0")
PARTS = {
    "draw": (bench, "draw_samples"),
    "forward": (Victim, "raw_of"),
    "tail": (attack_step, "resized_loss"),
    "backward": (torch.autograd, "grad"),
}
"""Where the functions that a step calls are looked up."""


@contextmanager
def timed(owner: Any, name: str, spent: Callable[[float], None]) -> Iterator[None]:
    """Reports the seconds of every call of a function."""
    function = getattr(owner, name)

    def instead(*args: Any, **more: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **more)
        finally:
            spent(time.perf_counter() - start)

    setattr(owner, name, instead)
    try:
        yield
    finally:
        setattr(owner, name, function)


def parts(network: str, plan: BenchPlan) -> dict[str, float]:
    """Each part of a step over bare, "rest" for what is in none, "step" for all, and "bare backward"."""
    actions, _ = bench_actions(network, plan, torch.device("cpu"))
    rounds = []
    for _ in range(plan.repeats + 2):
        spent: dict[str, Counter[str]] = {"forward_backward": Counter(), "step": Counter()}
        for action, found in spent.items():
            with ExitStack() as stack:
                for part, (owner, name) in PARTS.items():
                    add = lambda seconds, part=part, found=found: found.update({part: seconds})  # noqa: E731
                    stack.enter_context(timed(owner, name, add))
                start = time.perf_counter()
                actions[action]()
                found["step"] = time.perf_counter() - start
        bare, ours = spent["forward_backward"], spent["step"]
        ours["rest"] = ours["step"] - sum(ours[part] for part in PARTS)
        ours["bare backward"] = bare["backward"]
        rounds.append({part: seconds / bare["step"] for part, seconds in ours.items()})
    return {part: statistics.median(one[part] for one in rounds[2:]) for part in rounds[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--network", action="append", default=[])
    parser.add_argument("--size", default="512")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--precision", default="fp32")
    options = parser.parse_args()
    heap.keep()
    subnormals.flush()
    plan = BenchPlan(size=parse_size(options.size) or (512, 512), batch=options.batch_size, only="step",
                     repeats=options.repeats, precision=options.precision)  # fmt: skip
    rows = []
    for network in options.network or NETWORKS:
        rows.append({"network": network, **parts(network, plan)})
        said = ", ".join(f"{part} {value:.2f}" for part, value in rows[-1].items() if part != "network")
        print(f"{network}: {said}", flush=True)
    about = {**vars(plan), "environment": environment()}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "parts.json").write_text(json.dumps({**about, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
