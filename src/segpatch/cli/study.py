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
    grid: Annotated[
        str | None, typer.Option(help="Places of the patch, rows x columns, for the part `places`: 5x9.")
    ] = None,
    released: Annotated[
        bool,
        typer.Option("--as-released", help="The published run, exactly: what it fixed cannot be chosen."),
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
    import sys
    from dataclasses import replace

    from segpatch.cli.loading import open_victims_and_data, spare_inputs
    from segpatch.cli.measure import typed_command
    from segpatch.report.findings import findings
    from segpatch.report.record import read_study
    from segpatch.studies.paper import as_released, run_paper

    if overwrite:
        spare_inputs(out, config, *victim, *checkpoint, data, class_map, victims=victims)
    plan, named = read_plan(config)
    attack = options.given(
        steps=steps,
        batch_size=batch_size,
        crop=options.parse_size(crop),
        patch_size=options.parse_size(patch_size),
    )
    chosen = options.given(
        only=tuple(only.split(",")) if only else None,
        presets=tuple(preset) or None,
        seeds=options.parse_seeds(seeds) if seeds else None,
        ensembles=tuple(tuple(names.split(",")) for names in ensemble) or None,
        images=images,
        groups=tuple(group) or None,
        checkpoints=tuple(checkpoint) or None,
        train_images=train_images,
        grid=parse_grid(grid),
        split=split,
        precision=precision,
        overrides={**plan.overrides, **attack} if attack else None,
    )
    plan = replace(plan, **chosen)
    networks, dataset = open_victims_and_data(victim, victims, data, class_map, device)
    if released or plan.as_released:
        networks, plan = as_released(networks, dataset, plan, named | chosen.keys())
    if dry_run:
        from segpatch.studies.paper.cost import estimate_paper

        begun = out if resume and not overwrite else None
        print(estimate_paper(networks, dataset, plan, begun).describe())
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
        on_estimate=None if quiet else lambda estimate: print(estimate.describe(), file=sys.stderr, flush=True),
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


def parse_grid(text: str | None) -> tuple[int, int] | None:
    """(rows, columns) of "5x9"; BadInput for anything else."""
    from segpatch.errors import BadInput

    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise BadInput(f"--grid is rows x columns of places, such as 5x9; got {text!r}")
    return int(parts[0]), int(parts[1])


def read_plan(path: Path | None) -> tuple[PaperPlan, set[str]]:
    """The plan of a TOML file and the fields that it names; BadInput naming what cannot be used.

    The default plan without a file.
    """
    import tomllib
    from dataclasses import fields
    from typing import get_type_hints

    from segpatch.attack_config import AttackConfig
    from segpatch.errors import BadInput, Missing, unknown_name
    from segpatch.reading import read_text
    from segpatch.studies.paper import PaperPlan

    if path is None:
        return PaperPlan(), set()
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
    overrides = content.get("overrides")
    if isinstance(overrides, dict):
        kinds = get_type_hints(AttackConfig)
        for name in overrides.keys() & kinds.keys():  # the plan names the others
            overrides[name] = _typed(kinds[name], overrides[name], f"{path}: overrides.{name}")
    return _typed(PaperPlan, content, str(path)), set(content)


def _typed(kind: Any, content: Any, where: str) -> Any:
    """What TOML says, as a kind of value; BadInput naming where it cannot be."""
    from pydantic import TypeAdapter, ValidationError

    from segpatch.errors import BadInput

    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        parts = [where, ".".join(str(part) for part in first["loc"]), first["msg"].removeprefix("Value error, ")]
        raise BadInput(": ".join(part for part in parts if part)) from error
