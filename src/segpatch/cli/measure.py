"""`segpatch evaluate`, `transfer`, `report` and `demo`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segpatch.cli import options
from segpatch.cli.progress import ProgressPrinter
from segpatch.processes import Processes

if TYPE_CHECKING:
    from segpatch.results import TransferResult


def evaluate(
    context: typer.Context,
    patch: Annotated[Path, typer.Option(help="patch.safetensors, or the attack run that holds it.")],
    data: options.Data,
    out: options.Out,
    victim: options.OneVictim = None,
    victims: options.VictimsFile = None,
    split: options.Split = None,
    images: options.Images = None,
    place: options.MeasuredPlace = "centre",
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
    """Measure one patch on one network, beside its controls."""
    from segpatch.cli.loading import open_victim_and_data, spare_inputs
    from segpatch.patch import load_patch
    from segpatch.studies.estimate import estimate_matrix
    from segpatch.studies.matrix import run_matrix
    from segpatch.studies.planned import MatrixPlan

    if overwrite:
        spare_inputs(out, patch, victim, data, class_map, victims=victims)
    processes: Processes = context.obj
    plan = MatrixPlan(
        presets=(),
        split=split,
        measured=images,
        place=place,
        seed=seed,
        precision=precision,
    )
    network, dataset = processes.together(
        lambda: open_victim_and_data(victim, victims, data, class_map, device, processes)
    )
    given = [load_patch(patch)]
    if dry_run:
        print(estimate_matrix([network], dataset, plan, given).describe())
        return
    result = run_matrix(
        [network],
        dataset,
        plan,
        out,
        given=given,
        command=typed_command(),
        resume=resume,
        overwrite=overwrite,
        on_progress=ProgressPrinter(quiet or not processes.first),
        processes=processes,
    )
    _print(result, out, as_json)


def transfer(
    context: typer.Context,
    data: options.Data,
    out: options.Out,
    victim: options.Victims = [],  # noqa: B006
    victims: options.VictimsFile = None,
    preset: options.Presets = [],  # noqa: B006
    seeds: options.Seeds = "0",
    ensemble: Annotated[list[str], typer.Option(help="Victims of one shared patch: A,B; repeatable.")] = [],  # noqa: B006
    patch: Annotated[list[Path], typer.Option(help="Ready patch to measure as well; repeatable.")] = [],  # noqa: B006
    loss: options.Loss = None,
    steps: options.Steps = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    micro_batch: options.MicroBatch = None,
    patch_size: options.PatchSize = None,
    crop: options.Crop = None,
    place: options.MeasuredPlace = "centre",
    train_split: options.TrainSplit = None,
    train_images: options.TrainImages = None,
    split: options.Split = None,
    images: options.Images = None,
    group: Annotated[list[str], typer.Option(help="Measure images of this drive or city only; repeatable.")] = [],  # noqa: B006
    margin: Annotated[float, typer.Option(help="mIoU below which a change is none.")] = 0.01,
    pictures: Annotated[int, typer.Option(help="Scenes to keep index maps of.")] = 4,
    with_images: Annotated[bool, typer.Option("--with-images", help="Keep their photographs too.")] = False,
    class_map: options.MapFile = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    precision: options.Precision = "fp32",
    ray: options.Ray = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a patch per network, preset and seed (or take the given ones) and measure all on all."""
    from segpatch.cli.loading import open_victims_and_data, spare_inputs
    from segpatch.patch import load_patch
    from segpatch.studies.estimate import estimate_matrix
    from segpatch.studies.matrix import run_matrix
    from segpatch.studies.planned import MatrixPlan

    if overwrite:
        spare_inputs(out, *patch, *victim, data, class_map, victims=victims)
    processes: Processes = context.obj
    ready = [load_patch(path) for path in patch]
    overrides = options.given(
        loss=loss,
        steps=steps,
        epochs=epochs,
        batch_size=batch_size,
        micro_batch=micro_batch,
        patch_size=options.parse_size(patch_size),
        crop=options.parse_size(crop),
        precision=precision,
    )
    plan = MatrixPlan(
        presets=tuple(preset or ([] if ready else ["paper"])),
        seeds=options.parse_seeds(seeds),
        ensembles=tuple(tuple(names.split(",")) for names in ensemble),
        overrides=overrides,
        train_split=train_split,
        trained=train_images,
        split=split,
        measured=images,
        groups=tuple(group),
        place=place,
        precision=precision,
        margin=margin,
        pictures=pictures,
        photographs=with_images,
        seed=seed,
    )
    networks, dataset = processes.together(
        lambda: open_victims_and_data(victim, victims, data, class_map, device, processes)
    )
    if dry_run:
        print(estimate_matrix(networks, dataset, plan, ready).describe())
        return
    result = run_matrix(
        networks,
        dataset,
        plan,
        out,
        given=ready,
        command=typed_command(),
        resume=resume,
        overwrite=overwrite,
        on_progress=ProgressPrinter(quiet or not processes.first),
        processes=processes,
        ray=ray,
    )
    _print(result, out, as_json)


def report(
    runs: Annotated[list[Path], typer.Argument(help="A finished run; or two, to be compared.")],
    out: options.Out,
    with_images: Annotated[bool, typer.Option("--with-images", help="Show photographs of the scenes.")] = False,
    fail_on_drop: Annotated[
        float | None,
        typer.Option(
            help="Exit with 1 where a trained patch surely costs more mIoU (in the second run of two: by more)."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write beside, or over, other files.")] = False,
) -> None:
    """Write the page, tables and plots of a run again, from its directory alone; or two runs side by side."""
    from segpatch.checks import comparable
    from segpatch.errors import BadInput
    from segpatch.report import refuse_taken, write_report
    from segpatch.report.compare import check_limit, gate, matrix_run, write_comparison
    from segpatch.results import read_transfer

    if fail_on_drop is not None:
        check_limit(fail_on_drop)
    if len(runs) > 2:
        raise BadInput(f"report takes one run, or two to compare; got {len(runs)}")
    if not overwrite:
        refuse_taken(out)
    if len(runs) == 1:
        print(write_report(runs[0], out, photographs=with_images))
    elif with_images:
        raise BadInput("a comparison of two runs shows no scenes; --with-images is for the page of one run")
    else:
        print(write_comparison(runs[0], runs[1], out))
        for difference in comparable(*(read_transfer(matrix_run(run)) for run in runs)):
            print(f"warning: {difference}", file=sys.stderr)
    if fail_on_drop is not None:
        gate(fail_on_drop, *map(matrix_run, runs))


def demo(
    out: options.Out,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """The main job on drawn streets and the shipped networks, within minutes."""
    from segpatch.studies.demo import estimate_demo, run_demo

    if dry_run:
        print(estimate_demo().describe())
        return
    result = run_demo(
        out,
        command=typed_command(),
        resume=resume,
        overwrite=overwrite,
        on_progress=ProgressPrinter(quiet),
    )
    _print(result, out, as_json)


def typed_command() -> str:
    """The command as it was typed, for the record, but for how the run was begun: one gone on with is the same."""
    import shlex

    return shlex.join(["segpatch", *(word for word in sys.argv[1:] if word not in ("--resume", "--overwrite"))])


def _print(result: TransferResult, out: Path, as_json: bool) -> None:
    from segpatch.cli.tables import transfer_table
    from segpatch.report.verdicts import people_line

    if as_json:
        print(result.model_dump_json(by_alias=True))
        return
    print(transfer_table(result))
    for warning in result.warnings:
        print(f"warning: {warning}")
    if people := people_line(out, result):
        print(people)
    print(f"results: {out / 'transfer.json'}, {out / 'transfer.csv'}; page: {out / 'report' / 'index.html'}")
