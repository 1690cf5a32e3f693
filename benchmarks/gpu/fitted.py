"""Networks fitted on drawn streets, then `segpatch study paper` on them, in one process; results out, no weights.

Every script here that studies networks calls `study`. DIR/fits.json is written after each network; after the study
its findings, page and study.json, transfer.json and .csv of each matrix, and the confusion matrices summed over
images (those of each image are gigabytes for ten networks).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

import torch
from safetensors.torch import save_file

from segpatch.data import cached, open_data
from segpatch.data.images import split_images
from segpatch.data.make import make_streets
from segpatch.machine import environment
from segpatch.models.load import load_victim
from segpatch.results import read_scores, safe_name
from segpatch.studies.fit import run_fit
from segpatch.studies.paper import PaperPlan, run_paper
from segpatch.studies.progress import OnProgress, Progress
from segpatch.training import FitConfig

RECIPE = FitConfig(
    batch_size=16,
    crop=(192, 192),
    scales=(0.6, 1.8),
    label_stride=2,
    learning_rate=2e-3,
    averaging=0.99,
    precision="bf16",
)


def options(doc: str | None, **defaults: object) -> argparse.Namespace:
    """The options that the scripts share. train, val: streets; minutes: when the last network's fit must begin."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--network", action="append", help="repeatable; unless given, those of the script")
    for name, value in {"minutes": 4.0, **defaults}.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    return parser.parse_args()


def study(asked: argparse.Namespace, networks: Sequence[str], plan: PaperPlan, config: FitConfig) -> None:
    """Draws asked.train and asked.val streets of asked.height rows, fits, studies and writes to asked.out."""
    asked.out.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        size = {"height": asked.height, "width": 2 * asked.height}
        make_streets(work / "streets", train=asked.train, val=asked.val, seed=0, **size)
        data = cached(open_data(f"streets:{work / 'streets'}"))
        train, held_out = split_images(data, "train"), split_images(data, "val", 50)
        victims, fits = [], {}
        for name in networks:
            if time.monotonic() - begun > 60 * asked.minutes:
                fits[name] = {"left_out": f"no time to fit it after {asked.minutes:g} minutes"}
                continue
            since = time.monotonic()
            miou = run_fit(name, train, held_out, config, work / name, device=device)
            fits[name] = {"miou": miou, "seconds": time.monotonic() - since}
            victims.append(load_victim(str(work / name)).for_classes(data.classes).to(torch.device(device)))
            facts = {"environment": environment(), "fits": fits}
            (asked.out / "fits.json").write_text(json.dumps(facts, indent=1))
            print(name, fits[name], flush=True)
        run_paper(victims, data, plan, work / "study", command=" ".join(sys.argv), on_progress=_stages())
        _keep(work / "study", asked.out)
    print(f"{time.monotonic() - begun:.0f} s in all", flush=True)


def _stages() -> OnProgress:
    """Prints each stage as it ends."""

    def show(progress: Progress) -> None:
        if progress.done == progress.total:
            print(progress.stage, progress.note, flush=True)

    return show


def _keep(run: Path, out: Path) -> None:
    """Copies what a reader needs of a study to a folder without folders."""
    record = json.loads((run / "study.json").read_text())
    for name in ("study.json", "report/findings.md", "report/index.html"):
        shutil.copy(run / name, out / Path(name).name)
    for name in record["matrices"]:
        for file in ("transfer.json", "transfer.csv"):
            shutil.copy(run / name / file, out / f"{safe_name(name)}-{file}")
        summed = {key: rows.sum(0) for key, rows in read_scores(run / name).items()}
        save_file(summed, out / f"{safe_name(name)}-confusions.safetensors")
