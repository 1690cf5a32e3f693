"""`segpatch bench`: speed against the bare network, on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from segpatch.cli import options

PAPER = ("pidnet-s", "pidnet-m", "pidnet-l", "icnet", "bisenetv1", "bisenetv2", "segformer-b0")


def bench(
    network: Annotated[list[str], typer.Option(help="Network; repeatable. Unless given: the paper's.")] = [],  # noqa: B006
    size: Annotated[str, typer.Option(help="Images, HxW or side, in pixels.")] = "512",
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 2,
    repeats: Annotated[int, typer.Option(help="Rounds that are counted.")] = 5,
    only: Annotated[str | None, typer.Option(help="step or evaluation; both unless given.")] = None,
    against: Annotated[
        Path | None, typer.Option(help="Python file whose step(victim, images, labels, patch) is timed too.")
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    precision: options.Precision = "fp32",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Time a patch step and a measurement beside the bare network."""
    import torch

    from segpatch.cli.progress import ProgressPrinter
    from segpatch.cli.tables import table
    from segpatch.machine import environment
    from segpatch.studies.bench import BenchPlan, BenchRow, bench, load_reference
    from segpatch.studies.progress import Progress

    plan = BenchPlan(
        size=options.parse_size(size) or (512, 512),
        batch=batch_size,
        repeats=repeats,
        precision=precision,
        seed=seed,
        only=only,
    )
    names = network or list(PAPER)
    show = ProgressPrinter(quiet=quiet)
    done: list[BenchRow] = []

    def report(row: BenchRow) -> None:
        done.append(row)
        show(Progress("bench", len(done), len(names), row.network))

    place = torch.device(options.choose_device(device))
    rows = bench(names, plan, place, load_reference(against) if against else None, report)
    if as_json:
        print(
            json.dumps({"plan": vars(plan), "environment": environment(), "rows": [row.facts() for row in rows]})
        )
        return
    heads = {"step": "step / bare", "evaluation": "evaluation / bare", "naive": "reference / step"}
    shown = [key for key in heads if key in rows[0].ratios]
    lines = []
    for row in rows:
        cells = [f"{r.median:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in (row.ratios[key] for key in shown)]
        lines.append([row.network, *cells, "-" if row.step_memory is None else f"{row.step_memory:.2f}"])
    print(table(["network", *(heads[key] for key in shown), "memory of step / bare"], lines))
