"""`segpatch fit` and `segpatch attack`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from segpatch.cli import options
from segpatch.cli.progress import ProgressPrinter
from segpatch.processes import Processes


def fit(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="Network, as `segpatch models` lists them.")],
    data: options.Data,
    out: options.Out,
    init: Annotated[Path | None, typer.Option(help="Network file to start from.")] = None,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 2000,
    batch_size: Annotated[int, typer.Option(help="Crops a step.")] = 8,
    crop: Annotated[str, typer.Option(help="Crop, HxW or side, in pixels.")] = "256",
    scales: Annotated[str, typer.Option(help="Smallest and largest random scale.")] = "0.5,2.0",
    learning_rate: Annotated[float, typer.Option(help="Of AdamW, at its highest.")] = 1e-3,
    criterion: Annotated[str, typer.Option(help="balanced or ohem.")] = "balanced",
    jitter: Annotated[float, typer.Option(help="Largest random change of light and colour.")] = 0.3,
    label_stride: Annotated[int, typer.Option(help="Look at every n-th label pixel and row.")] = 1,
    warmup: Annotated[int, typer.Option(help="Steps until the learning rate is at its highest.")] = 100,
    averaging: Annotated[float, typer.Option(help="Decay per step of the weights' moving average.")] = 0.995,
    validate_every: Annotated[int, typer.Option(help="Steps between validations.")] = 250,
    train_split: options.TrainSplit = None,
    split: Annotated[str | None, typer.Option(help="Split that the best weights are chosen on.")] = None,
    images: Annotated[int | None, typer.Option(help="Validate on this many images, evenly spaced.")] = None,
    half: Annotated[bool, typer.Option("--half", help="Write kernels in half precision.")] = False,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Keep the network of every validation, each a victim.")
    ] = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    precision: options.Precision = "fp32",
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a network; the run directory is a victim by itself."""
    from segpatch.cli.loading import spare_inputs
    from segpatch.data import cached, open_data
    from segpatch.data.images import split_images
    from segpatch.errors import BadInput
    from segpatch.studies.estimate import estimate_fit
    from segpatch.studies.fit import run_fit
    from segpatch.training import FitConfig

    if overwrite:
        spare_inputs(out, init, data)
    processes: Processes = context.obj
    size = options.parse_size(crop)
    try:
        low, high = (float(part) for part in scales.split(","))
    except ValueError:
        raise BadInput(f"--scales is two numbers with a comma between, such as 0.5,2.0; got {scales!r}") from None
    config = FitConfig(
        steps=steps,
        batch_size=batch_size,
        crop=size or (256, 256),
        scales=(low, high),
        learning_rate=learning_rate,
        criterion=criterion,
        jitter=jitter,
        label_stride=label_stride,
        warmup=warmup,
        averaging=averaging,
        validate_every=validate_every,
        precision=precision,
        seed=seed,
    )
    dataset = cached(open_data(data))
    train = split_images(dataset, train_split or dataset.train_split)
    held_out = split_images(dataset, split or dataset.select_split, images)
    chosen = processes.together(lambda: options.choose_device(device, processes))
    if dry_run:
        print(estimate_fit(model, train, held_out, config, init=init, device=chosen).describe())
        return
    score = run_fit(
        model,
        train,
        held_out,
        config,
        out,
        init=init,
        device=chosen,
        half=half,
        checkpoints=checkpoints,
        resume=resume,
        overwrite=overwrite,
        on_progress=ProgressPrinter(quiet or not processes.first),
        processes=processes,
    )
    if as_json:
        print(json.dumps({"network": model, "out": str(out), "clean_miou": score}))
    else:
        print(f"{model}: mIoU {score:.4f} on the held-out images; use it as --victim {out}")


def attack(
    context: typer.Context,
    data: options.Data,
    out: options.Out,
    victim: options.Victims = [],  # noqa: B006
    victims: options.VictimsFile = None,
    preset: options.Preset = "paper",
    loss: options.Loss = None,
    steps: options.Steps = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    micro_batch: options.MicroBatch = None,
    patch_size: options.PatchSize = None,
    crop: options.Crop = None,
    place: options.Place = None,
    train_split: options.TrainSplit = None,
    images: options.TrainImages = None,
    class_map: options.MapFile = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    precision: options.Precision = "fp32",
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train one patch on a network, or on several at once."""
    from dataclasses import replace

    from segpatch.attack_config import attack_preset
    from segpatch.cli.loading import open_victims_and_data, spare_inputs
    from segpatch.data.images import split_images
    from segpatch.studies.attack import run_attack, training_warnings
    from segpatch.studies.estimate import estimate_attack

    if overwrite:
        spare_inputs(out, *victim, data, class_map, victims=victims)
    processes: Processes = context.obj
    overrides = options.given(
        loss=loss,
        steps=steps,
        epochs=epochs,
        batch_size=batch_size,
        micro_batch=micro_batch,
        patch_size=options.parse_size(patch_size),
        crop=options.parse_size(crop),
        place=place,
        precision=precision,
    )
    config = replace(attack_preset(preset), seed=seed, **overrides)
    networks, dataset = processes.together(
        lambda: open_victims_and_data(victim, victims, data, class_map, device, processes)
    )
    training = split_images(dataset, train_split or dataset.train_split, images)
    if dry_run:
        print(estimate_attack(networks, training, config).describe())
        return
    patch = run_attack(
        networks,
        training,
        config,
        out,
        resume=resume,
        overwrite=overwrite,
        on_progress=ProgressPrinter(quiet or not processes.first),
        processes=processes,
    )
    warnings = training_warnings(out)
    if as_json:
        print(json.dumps({**patch.facts(), "out": str(out), "warnings": warnings}))
        return
    print(f"{patch.name}: {patch.size[0]}x{patch.size[1]} patch after {patch.steps} steps in {out}")
    for warning in warnings:
        print(f"warning: {warning}")
