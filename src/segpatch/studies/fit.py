"""One network, as a run: fitted to a data set, resumable, best weights by mIoU on held-out images."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segpatch.data.classes import ClassSet
from segpatch.data.images import SplitImages
from segpatch.errors import BadInput
from segpatch.memory import memory_advice
from segpatch.models.checkpoints import open_network, read_checkpoint, write_network
from segpatch.models.layouts.layout import Layout
from segpatch.models.load import NETWORK_FILE
from segpatch.models.networks import network_name, network_spec
from segpatch.models.settings import class_facts
from segpatch.models.victim import IMAGENET_MEAN, IMAGENET_STD, Provenance, Victim
from segpatch.processes import ALONE, Processes
from segpatch.runs import Run, open_run
from segpatch.studies.attack import data_record
from segpatch.studies.progress import OnProgress, Progress, silent
from segpatch.training import FitConfig, FitState, FitStep, fit_network
from segpatch.writing import make_folder

CHECKPOINTS = "checkpoints"


def run_fit(
    name: str,
    train: SplitImages,
    held_out: SplitImages,
    config: FitConfig,
    out: Path,
    *,
    init: Path | None = None,
    device: str = "cpu",
    half: bool = False,
    checkpoints: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: OnProgress = silent,
    processes: Processes = ALONE,
) -> float:
    """Fits a network into a run directory and returns its mIoU on held_out (a fraction).

    Writes network.safetensors (half: kernels in half precision), which is a victim by itself, and steps.jsonl;
    checkpoints: also checkpoints/STEP.safetensors at every validation, with the mIoU of that step.
    init: a network file to start from; its classifier is left out where the classes differ. Interrupted, the
    state is saved and the interrupt passed on; `resume` goes on.
    """
    name = network_name(name)
    spec = network_spec(name)
    classes = train.dataset.classes
    record = {
        "command": "fit",
        "network": name,
        "config": asdict(config),
        "init": str(init) if init else None,
        "half": half,
        "data": data_record(train),
        "held_out": data_record(held_out),
    }
    with open_run(out, record, NETWORK_FILE, resume=resume, overwrite=overwrite, processes=processes) as run:
        if run.finished:
            return _score_of(out / NETWORK_FILE)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            with run.kept_if_begun():
                module, layout = start(name, len(classes), init)
        module.to(device)
        if checkpoints:
            make_folder(out / CHECKPOINTS)
        latest = coming = _load(run)

        def keep(state: FitState) -> None:
            nonlocal coming
            coming = state

        def report(step: FitStep) -> None:
            nonlocal latest
            run.append_step(step._asdict())
            latest = coming  # not before its row is written: a state has the rows of all its steps
            scored = f", mIoU {step.miou:.3f}" if step.miou == step.miou else ""
            if checkpoints and scored and latest:
                write(out / CHECKPOINTS / f"{step.step:06d}.safetensors", latest.average, step.miou)
            if latest and run.state_is_due(step.step):
                _save(run, latest)
            on_progress(Progress(f"fit {name}", step.step, config.steps, f"loss {step.loss:.3f}{scored}"))
            if any(processes.gathered(lambda: bool(interrupts))):
                raise KeyboardInterrupt

        def write(path: Path, weights: dict[str, Tensor], score: float) -> None:
            """A network file of these weights, without the heads that only training needs."""
            facts = {
                "network": name,
                "layout": layout.source,
                "classes": class_facts(classes),
                "mean": IMAGENET_MEAN,
                "std": IMAGENET_STD,
                "trained_on": str(train),
                "clean_miou": score,
                "clean_on": str(held_out),
                "seed": config.seed,
                "fit": record,
            }
            bare = layout.build(len(classes), auxiliary=False)
            bare.load_state_dict({key: weights[key] for key in bare.state_dict()})
            processes.by_first(lambda: write_network(path, bare, facts, half=half))

        try:
            with held_back() as interrupts, run.kept_if_begun(), memory_advice(config.batch_size):
                state = fit_network(
                    module,
                    lambda m: victim_for(m, name, spec.family, classes),
                    train,
                    held_out,
                    config,
                    resume=latest,
                    on_step=report,
                    on_state=keep,
                    processes=processes,
                )
        except KeyboardInterrupt:
            if latest and len(interrupts) < 2:
                _save(run, latest)
            raise
        write(out / NETWORK_FILE, state.best, state.best_miou)
        run.finish()
        return state.best_miou


@contextlib.contextmanager
def held_back() -> Iterator[list[int]]:
    """Collects Ctrl-C in a list instead of raising it; the second one is raised at once.

    In the middle of a step the weights are no state to go on from, nor are they while averages are validated.
    """
    caught: list[int] = []

    def catch(number: int, frame: object) -> None:
        caught.append(number)
        if len(caught) > 1:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield caught  # only the main thread may catch signals, and gets all of them
        return
    before = signal.signal(signal.SIGINT, catch)
    try:
        yield caught
    finally:
        signal.signal(signal.SIGINT, before)


def victim_for(module: nn.Module, name: str, family: str, classes: ClassSet) -> Victim:
    """The victim of a network built here, with the input format that all fits use."""
    return Victim(
        module,
        name=name,
        size_multiple=module.size_multiple,  # type: ignore[arg-type]
        size_offset=getattr(module, "size_offset", 0),
        align_corners=module.output_align_corners,  # type: ignore[arg-type]
        classes=classes,
        provenance=Provenance(network=name, family=family),
    )


def start(name: str, classes: int, init: Path | None) -> tuple[nn.Module, Layout]:
    """A network to train, with its auxiliary heads, and its layout: random weights, or those of a file.

    The classifier of a file for other classes, and heads that it lacks, keep their random start. Raises BadInput
    where the file is of another network.
    """
    spec = network_spec(name)
    if init is None:
        return spec.default.build(classes), spec.default
    _, layout, state, _ = open_network(name, init)
    module = layout.build(classes)
    wanted = module.state_dict()
    fitting = {k: v for k, v in state.items() if k in wanted and v.shape == wanted[k].shape}
    heads = (*layout.auxiliary, layout.classifier.removesuffix("weight"))
    left = [k for k in wanted if k not in fitting and not k.endswith("num_batches_tracked")]
    wrong = [k for k in left if not k.startswith(heads)]
    if wrong:
        raise BadInput(f"{init} does not fit {name}: {len(wrong)} keys differ, the first is {wrong[0]}")
    module.load_state_dict({**wanted, **fitting})
    return module, layout


def _score_of(path: Path) -> float:
    """The mIoU that a fitted network's file says it has."""
    said = read_checkpoint(path)[1].get("clean_miou")
    if not isinstance(said, float):
        raise BadInput(f"{path} does not say its mIoU; start again with --overwrite")
    return said


def _save(run: Run, state: FitState) -> None:
    tensors: dict[str, Tensor] = {}
    for part in ("weights", "average", "optimiser", "best"):
        for key, value in getattr(state, part).items():
            tensors[f"{part}/{key}"] = value
    run.save_state(state.step, tensors, {"best_miou": state.best_miou})


def _load(run: Run) -> FitState | None:
    def build(tensors: dict[str, Tensor], facts: dict[str, Any]) -> FitState:
        parts: dict[str, dict[str, Any]] = {"weights": {}, "average": {}, "optimiser": {}, "best": {}}
        for key, value in tensors.items():
            part, _, name = key.partition("/")
            parts[part][name] = value
        return FitState(step=facts["step"], best_miou=facts["best_miou"], **parts)

    return run.load_state(build)
