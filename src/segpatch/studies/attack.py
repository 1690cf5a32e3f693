"""One patch, as a run: trained on one network or several, resumable, with its warnings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from segpatch.attack import AttackState, train_patch
from segpatch.attack_config import AttackConfig, resolve, snapshot_steps
from segpatch.attack_step import Step
from segpatch.checks import check_training
from segpatch.data.images import SplitImages
from segpatch.errors import BadInput, Lost
from segpatch.memory import memory_advice
from segpatch.models.victim import Victim
from segpatch.patch import Patch, load_patch, save_patch
from segpatch.probes import check_network, probe_images
from segpatch.processes import ALONE, Processes
from segpatch.runs import Run, open_run, read_json, read_steps, write_json
from segpatch.studies.progress import OnProgress, Progress, silent
from segpatch.updates import AdamState
from segpatch.writing import make_folder, write_whole

PATCH_FILE = "patch.safetensors"
SNAPSHOTS = "snapshots"
WARNINGS = "warnings.json"
_WHOLE = ("step", "micro_batch")


def run_attack(
    victims: Sequence[Victim],
    images: SplitImages,
    config: AttackConfig,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: OnProgress = silent,
    processes: Processes = ALONE,
    patience: float = 0.0,
) -> Patch:
    """Trains a patch into a run directory: patch.safetensors, patch.png, steps.jsonl, warnings.json, snapshots/.

    Interrupted (Ctrl-C), the state is saved and the interrupt passed on; `resume` then gives the same bits as
    a run that was never stopped, on a CPU in as many processes and threads. A finished run is read, not run again.
    patience: seconds to wait where another process has the directory.
    """
    config = resolve(config, images, victims)
    record = attack_record(victims, images, config)
    opened = open_run(
        out, record, PATCH_FILE, resume=resume, overwrite=overwrite, processes=processes, patience=patience
    )
    with opened as run:
        if run.finished:
            return load_patch(out)
        latest = coming = _load(run)

        kept = set(snapshot_steps(config))

        def keep(state: AttackState) -> None:
            nonlocal coming
            coming = state
            if state.step in kept and processes.first:
                _write_snapshot(out, state.step, state.pixels)

        name = f"{'+'.join(victim.name for victim in victims)}/{config.preset}/s{config.seed}"
        asked = config.micro_batch or config.batch_size or 1

        def report(step: Step) -> None:
            nonlocal latest
            run.append_step(step._asdict())
            latest = coming  # not before its row is written: a state has the rows of all its steps
            if latest and run.state_is_due(step.step):
                _save(run, latest)
            note = f"loss {step.loss:.3f}, {step.correct:.1%} of pixels right"
            if step.micro_batch < asked:
                note += f", for want of memory {step.micro_batch} at a time"
            on_progress(Progress(f"attack {name}", step.step, config.steps or 0, note))

        try:
            with run.kept_if_begun(), memory_advice(1):
                patch = train_patch(
                    victims, images, config, resume=latest, on_step=report, on_state=keep, processes=processes
                )
        except (KeyboardInterrupt, Lost):
            if latest:
                _save(run, latest)
            raise
        patch = replace(patch, origin={**patch.origin, "data": data_record(images)})

        def write() -> None:
            steps = _read_rows(out)
            seen = probe_images(images, config.crop)
            probed = [text for victim in victims for text in check_network(victim, seen)]
            write_json(out / WARNINGS, [*probed, *check_training(patch.name, steps, config)])
            save_patch(patch, out / PATCH_FILE)

        processes.by_first(write)
        run.finish()
        return patch


def read_snapshots(directory: Path) -> dict[int, Tensor]:
    """The pixels (3, h, w) of a finished attack run after its steps that were to be kept, by step, in order."""
    paths = sorted((directory / SNAPSHOTS).glob("*.safetensors"))
    try:
        return {int(path.stem): load_file(path)["pixels"] for path in paths}
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise BadInput(f"{directory / SNAPSHOTS} is damaged ({error}); train the patch again") from error


def _read_rows(directory: Path) -> list[Step]:
    """The steps of a run; BadInput where a row is none, as in a run whose log was changed meanwhile."""

    def numbers(row: dict[str, Any]) -> dict[str, Any]:
        return {key: int(value) if key in _WHOLE else float(value) for key, value in row.items()}

    try:
        return [Step(**numbers(row)) for row in read_steps(directory)]
    except (TypeError, ValueError, OverflowError) as error:
        raise BadInput(f"{directory}/steps.jsonl is damaged ({error}); start again with --overwrite") from error


def _write_snapshot(directory: Path, step: int, pixels: Tensor) -> None:
    path = make_folder(directory / SNAPSHOTS) / f"{step:06d}.safetensors"
    write_whole(path, save({"pixels": pixels.detach().cpu().contiguous()}))


def training_warnings(directory: Path) -> list[str]:
    """The warnings of a finished attack run."""
    held = read_json(directory / WARNINGS)
    if not isinstance(held, list) or not all(isinstance(text, str) for text in held):
        raise BadInput(f"{directory / WARNINGS} is damaged (no list of texts); train the patch again")
    return held


def attack_record(victims: Sequence[Victim], images: SplitImages, config: AttackConfig) -> dict[str, Any]:
    """What config.json holds: the resolved config, the victims and the data."""
    return {
        "command": "attack",
        "config": asdict(config),
        "victims": [victim_facts(victim) for victim in victims],
        "data": data_record(images),
    }


def victim_facts(victim: Victim) -> dict[str, Any]:
    """A victim as config.json holds it: a run is resumed with the same weights and the same inference."""
    return {"name": victim.name, **asdict(victim.provenance), "inference": victim.inference}


def data_record(images: SplitImages) -> dict[str, Any]:
    """Which images were used, and their fingerprint."""
    return {
        "spec": images.dataset.spec,
        "split": images.split,
        "images": len(images),
        "fingerprint": images.dataset.fingerprint(images.split),
    }


def _save(run: Run, state: AttackState) -> None:
    tensors: dict[str, Tensor] = {
        "pixels": state.pixels,
        "mean": state.adam.mean,
        "square": state.adam.square,
        "best_pixels": state.best_pixels,
        "best_miou": torch.tensor(state.best_miou, dtype=torch.float64),
    }
    run.save_state(state.step, tensors, {"adam_steps": state.adam.steps})


def _load(run: Run) -> AttackState | None:
    return run.load_state(
        lambda tensors, facts: AttackState(
            step=facts["step"],
            pixels=tensors["pixels"],
            adam=AdamState(tensors["mean"], tensors["square"], facts["adam_steps"]),
            best_pixels=tensors["best_pixels"],
            best_miou=float(tensors["best_miou"]),
        )
    )
