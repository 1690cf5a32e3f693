"""The options that several commands share, by the names of the contract."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from segpatch.processes import ALONE, Processes

_FORMS = "NAME (shipped), NAME=FILE, a `segpatch fit` run, hf:ID_OR_FOLDER, onnx:FILE, or a name in --victims"
Victims = Annotated[list[str], typer.Option("--victim", help=f"{_FORMS}; repeatable.")]
OneVictim = Annotated[str | None, typer.Option("--victim", help=f"{_FORMS}.")]
VictimsFile = Annotated[
    Path | None,
    typer.Option("--victims", help="TOML file of \\[victim.NAME] tables; all of them unless --victim chooses."),
]
Data = Annotated[
    str,
    typer.Option(help="cityscapes:DIR, camvid:DIR, folder:DIR, list:FILE, streets:DIR, or streets (drawn)."),
]
Out = Annotated[Path, typer.Option(help="Run directory to write.")]
MapFile = Annotated[Path | None, typer.Option("--class-map", help="File of 'network class, data class' lines.")]
Presets = Annotated[list[str], typer.Option("--preset", help="released, paper or strong; repeatable.")]
Preset = Annotated[str, typer.Option(help="released, paper or strong.")]
Seed = Annotated[int, typer.Option(help="Seed of every draw.")]
Seeds = Annotated[str, typer.Option(help="Seeds, a patch each: 0,1,2.")]
Loss = Annotated[str | None, typer.Option(help="correct-pixel, cross-entropy, segpgd, gamma-0.8 .. (LOSSES).")]
Steps = Annotated[int | None, typer.Option(help="Patch steps; unless given, the published epochs.")]
Epochs = Annotated[int | None, typer.Option(help="Epochs over the training images, instead of --steps.")]
BatchSize = Annotated[int | None, typer.Option(help="Images a step.")]
MicroBatch = Annotated[int | None, typer.Option(help="Images a forward pass (gradient accumulation).")]
PatchSize = Annotated[str | None, typer.Option(help="HxW or side, in pixels; unless given, 200/1024 of H.")]
Crop = Annotated[str | None, typer.Option(help="Training crop, HxW or side; unless given, H x H of the images.")]
Place = Annotated[str | None, typer.Option(help="Where the patch is trained: centre or drawn.")]
MeasuredPlace = Annotated[str, typer.Option("--place", help="Where patches lie when measured: centre or drawn.")]
Images = Annotated[int | None, typer.Option(help="Measure this many images, evenly spaced; all if not given.")]
TrainImages = Annotated[int | None, typer.Option(help="Train on this many images, evenly spaced.")]
TrainSplit = Annotated[str | None, typer.Option(help="Split that patches are trained on.")]
Split = Annotated[str | None, typer.Option(help="Split that is measured.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[str, typer.Option(help="fp32 or bf16.")]
Ray = Annotated[str | None, typer.Option(help="Train and measure side by side on Ray: local, or an address.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run, or start it.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Remove the run that is there first.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would run, its minutes and memory.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]


def parse_size(text: str | None) -> tuple[int, int] | None:
    """(height, width) of "70" or "60x80"; BadInput for anything else."""
    from segpatch.errors import BadInput

    if text is None:
        return None
    side = "[1-9][0-9]{0,49}"
    if not re.fullmatch(f"{side}(x{side})?", text, re.IGNORECASE):
        raise BadInput(f"a size is HxW or one side in pixels, such as 60x80 or 70; got {text[:40]!r}")
    parts = text.lower().split("x")
    return int(parts[0]), int(parts[-1])


def parse_seeds(text: str) -> tuple[int, ...]:
    """(0, 1, 2) of "0,1,2"; BadInput for anything else."""
    from segpatch.bounds import check_seeds
    from segpatch.errors import BadInput

    try:
        seeds = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise BadInput(f"seeds are whole numbers with commas between, such as 0,1,2; got {text[:40]!r}") from None
    check_seeds(seeds)
    return seeds


def choose_device(name: str, processes: Processes = ALONE) -> str:
    """The device to use; BadInput where it is not there. Of several processes, each has a GPU of its own.

    From here on the process computes, so a CPU is made ready for it.
    """
    import torch

    from segpatch import subnormals
    from segpatch.errors import BadInput

    subnormals.flush()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind == "cpu" and not number:
        return name
    if kind == "cuda" and re.fullmatch("[0-9]{0,4}", number):
        number = number or (str(processes.local) if processes.world > 1 else "")
        if int(number or 0) < torch.cuda.device_count():
            return f"cuda:{number}" if number else "cuda"
        shown = torch.cuda.device_count()
        fewer = (
            f"as few processes as that (--nproc-per-node {shown}), or " if shown and processes.world > 1 else ""
        )
        raise BadInput(f"--device {name}: this machine shows {shown} CUDA devices; use {fewer}cpu")
    raise BadInput(f"--device must be auto, cpu, cuda or cuda:N; got {name!r}")


def given(**values: Any) -> dict[str, Any]:
    """Only the options that the user gave."""
    return {key: value for key, value in values.items() if value is not None}
