"""Networks fitted on drawn streets, then `segpatch study paper` on them, in one process; results out, no weights.

Every script here that studies networks calls `study`. DIR/fits.json is written after each network and says at the
end what there was no time or room for; the study is kept as it goes (`kept.py`), in at most four files of 15 MiB.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

import torch
from kept import Keeper, OutOfTime

from segpatch.data import cached, open_data
from segpatch.data.images import split_images
from segpatch.data.make import make_streets
from segpatch.machine import environment
from segpatch.models.load import load_victim
from segpatch.studies.fit import run_fit
from segpatch.studies.paper import PaperPlan, run_paper
from segpatch.training import FitConfig


def options(
    doc: str | None, choices: dict[str, Sequence[str]] | None = None, **defaults: object
) -> argparse.Namespace:
    """The options that the scripts share. train, val: streets; minutes: when the last network's fit must begin;
    until: the minute at which what is running is stopped, with time left to keep it."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--network", action="append", help="repeatable; unless given, those of the script")
    for name, allowed in (choices or {}).items():
        parser.add_argument(f"--{name}", action="append", choices=allowed, help="repeatable; all unless given")
    for name, value in {"minutes": 4.0, "until": 8.2, **defaults}.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    return parser.parse_args()


def recipe(asked: argparse.Namespace, **changes: Any) -> FitConfig:
    """How networks are fitted for asked.fit_steps, on crops of three quarters of the height; validated last."""
    base = FitConfig(
        steps=asked.fit_steps,
        validate_every=asked.fit_steps,
        batch_size=16,
        crop=(asked.height * 3 // 4,) * 2,
        scales=(0.6, 1.8),
        label_stride=2,
        learning_rate=2e-3,
        averaging=0.99,
        precision="bf16",
    )
    return replace(base, **changes)


def study(asked: argparse.Namespace, networks: Sequence[str], plan: PaperPlan, config: FitConfig) -> None:
    """Draws asked.train and asked.val streets of asked.height rows, fits, studies and writes to asked.out."""
    asked.out.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        keeper = Keeper(work / "study", asked.out, begun + 60 * asked.until)
        facts: dict[str, object] = {"command": " ".join(sys.argv), "environment": environment()}
        size = {"height": asked.height, "width": 2 * asked.height}
        make_streets(work / "streets", train=asked.train, val=asked.val, seed=0, **size)
        data = cached(open_data(f"streets:{work / 'streets'}"))
        train, held_out = split_images(data, "train"), split_images(data, "val", 50)
        victims, fits = [], {}

        def note(**more: object) -> None:
            facts.update(more)
            (asked.out / "fits.json").write_text(json.dumps(facts, indent=1))

        try:
            with keeper:
                for name in networks:
                    if time.monotonic() - begun > 60 * asked.minutes:
                        fits[name] = {"left_out": f"no time to fit it after {asked.minutes:g} minutes"}
                        continue
                    since = time.monotonic()
                    place = work / name
                    miou = run_fit(name, train, held_out, config, place, device=device, on_progress=keeper)
                    fits[name] = {"miou": miou, "seconds": time.monotonic() - since}
                    victim = load_victim(str(place)).for_classes(data.classes)
                    victims.append(victim.to(torch.device(device)))
                    note(fits=fits)
                run_paper(
                    victims,
                    data,
                    plan,
                    work / "study",
                    command=" ".join(sys.argv),
                    on_progress=keeper,
                    on_estimate=lambda estimate: print(estimate.describe(), flush=True),
                )
        except OutOfTime as stop:
            note(stopped=str(stop))
        note(fits=fits, left_out=keeper.left_out)
    print(f"{time.monotonic() - begun:.0f} s in all", flush=True)
