"""`segpatch study`: whole studies as one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segpatch.cli import options
from segpatch.cli.examples import example
from segpatch.cli.progress import ProgressPrinter

if TYPE_CHECKING:
    from segpatch.studies.paper import PaperPlan

study_app = typer.Typer(no_args_is_help=True, help="Whole studies, of independent cells that resume.")


@study_app.command("paper", epilog=example("study paper"))
def paper(
    data: options.Data,
    out: options.Out,
    victim: options.Victims = [],  # noqa: B006
    victims: options.VictimsFile = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with fields of the plan; options given here replace them.")
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="Parts with commas between: matrix,alignment,curves,...")
    ] = None,
    preset: options.Presets = [],  # noqa: B006
    seeds: Annotated[str | None, typer.Option(help="Seeds, a patch each: 0,1,2.")] = None,
    ensemble: Annotated[list[str], typer.Option(help="Victims of one shared patch: A,B; repeatable.")] = [],  # noqa: B006
    steps: options.Steps = None,
    batch_size: options.BatchSize = None,
    crop: options.Crop = None,
    patch_size: options.PatchSize = None,
    images: options.Images = None,
    group: Annotated[list[str], typer.Option(help="Measure images of this drive or city only; repeatable.")] = [],  # noqa: B006
    train_images: options.TrainImages = None,
    split: options.Split = None,
    checkpoint: Annotated[
        list[str],
        typer.Option(help="Victim for the part `accuracy`, from little to full accuracy; repeatable."),
    ] = [],  # noqa: B006
    released: Annotated[
        bool,
        typer.Option("--as-released", help="The published run: its inputs, range, crops, batches and epochs."),
    ] = False,
    class_map: options.MapFile = None,
    device: options.Device = "auto",
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16.")] = None,
    ray: options.Ray = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """The experiments of arXiv:2502.16012 on any networks and data set."""
    import json
    from dataclasses import replace

    from segpatch.cli.loading import open_victims_and_data, spare_inputs
    from segpatch.cli.measure import typed_command
    from segpatch.report.findings import findings
    from segpatch.report.record import read_study
    from segpatch.studies.paper import as_released, run_paper

    if overwrite:
        spare_inputs(out, config, *victim, *checkpoint, data, class_map, victims=victims)
    plan = read_plan(config)
    attack = options.given(
        steps=steps,
        batch_size=batch_size,
        crop=options.parse_size(crop),
        patch_size=options.parse_size(patch_size),
    )
    plan = replace(
        plan,
        **options.given(
            only=tuple(only.split(",")) if only else None,
            presets=tuple(preset) or None,
            seeds=options.parse_seeds(seeds) if seeds else None,
            ensembles=tuple(tuple(names.split(",")) for names in ensemble) or None,
            images=images,
            groups=tuple(group) or None,
            checkpoints=tuple(checkpoint) or None,
            train_images=train_images,
            split=split,
            precision=precision,
        ),
        overrides={**plan.overrides, **attack},
    )
    networks, dataset = open_victims_and_data(victim, victims, data, class_map, device)
    if released:
        networks, plan = as_released(networks, dataset, plan)
    if dry_run:
        from segpatch.studies.paper.cost import estimate_paper

        print(estimate_paper(networks, dataset, plan).describe())
        return
    study = run_paper(
        networks,
        dataset,
        plan,
        out,
        command=typed_command(),
        resume=resume,
        overwrite=overwrite,
        on_progress=ProgressPrinter(quiet),
        ray=ray,
    )
    written = read_study(out)
    if as_json:
        print(json.dumps({**study, "warnings": written.warnings}, indent=2))
        return
    for finding in findings(written):
        print(f"{finding.verdict}: {finding.claim}")
    for warning in written.warnings:
        print(f"warning: {warning}")
    print(f"results: {out / 'study.json'}; page: {out / 'report' / 'index.html'}")


def read_plan(path: Path | None) -> PaperPlan:
    """The plan of a TOML file, the default one without a file; BadInput naming what cannot be used."""
    import tomllib
    from dataclasses import fields

    from pydantic import TypeAdapter, ValidationError

    from segpatch.errors import BadInput, Missing, unknown_name
    from segpatch.reading import read_text
    from segpatch.studies.paper import PaperPlan

    if path is None:
        return PaperPlan()
    if not path.is_file():
        raise Missing(f"no file at {path}; give a TOML file with fields of the plan")
    text = read_text(path)
    try:
        content: dict[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is no TOML file ({error}); see `segpatch study paper --help`") from error
    known = [field.name for field in fields(PaperPlan)]
    for key in content:
        if key not in known:
            raise unknown_name(f"field in {path.name}", key, known)
    try:
        return TypeAdapter(PaperPlan).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"{path}: {where}: {first['msg']}") from error
