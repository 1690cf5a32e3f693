"""`segpatch data` and `show`: what there is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segpatch.cli import options
from segpatch.cli.examples import example
from segpatch.cli.progress import ProgressPrinter

data_app = typer.Typer(help="Write procedural data; check a data set.", no_args_is_help=True)


@data_app.command("make", epilog=example("data make"))
def data_make(
    what: Annotated[str, typer.Argument(help="streets")],
    out: options.Out,
    train: Annotated[int, typer.Option(help="Training images.")] = 1000,
    val: Annotated[int, typer.Option(help="Validation images.")] = 100,
    height: Annotated[int, typer.Option(help="Height in pixels.")] = 256,
    width: Annotated[int, typer.Option(help="Width in pixels.")] = 512,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
) -> None:
    """Write procedural streets in the Cityscapes layout."""
    from segpatch.data.make import make_streets
    from segpatch.errors import unknown_name
    from segpatch.studies.progress import Progress

    if what != "streets":
        raise unknown_name("procedural data", what, ["streets"])
    show = ProgressPrinter(quiet)
    make_streets(
        out,
        train=train,
        val=val,
        height=height,
        width=width,
        seed=seed,
        on_image=lambda done, total: show(Progress("draw streets", done, total)),
    )
    print(f"{train} training and {val} validation streets of {height}x{width}: use --data streets:{out}")


@data_app.command("check", epilog=example("data check"))
def data_check(
    data: Annotated[str, typer.Argument(help="Data set, as for --data.")],
    quiet: options.Quiet = False,
) -> None:
    """Read every file of a data set and name every bad one."""
    from segpatch.cli.tables import print_table
    from segpatch.data.check import check_data
    from segpatch.studies.progress import Progress

    show = ProgressPrinter(quiet)
    report = check_data(data, on_image=lambda done, total: show(Progress("check", done, total)))
    for split in report.splits:
        sizes = ", ".join(f"{h}x{w}" for h, w in split.sizes)
        print(f"{split.name}: {split.images} images, {split.labelled} labelled, {sizes}")
    for note in report.notes:
        print(f"note: {note}")
    if report.problems:
        print_table(["problem", "what is wrong"], [[p.kind, p.message] for p in report.problems])
    if not report.ok:
        raise typer.Exit(1)
    print("no problem found")


def show(
    data: options.Data,
    out: Annotated[Path, typer.Option(help="Picture to write (.png).")],
    victim: options.OneVictim = None,
    victims: options.VictimsFile = None,
    patch: Annotated[Path | None, typer.Option(help="Patch file, attack run or PNG.")] = None,
    image: Annotated[list[str], typer.Option(help="Name or position of an image; repeatable; the first.")] = [],  # noqa: B006
    split: options.Split = None,
    place: options.MeasuredPlace = "centre",
    class_map: options.MapFile = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file that is there.")] = False,
) -> None:
    """A picture of scenes: image, label, prediction; attacked image and prediction, what changed; the classes."""
    from segpatch.cli.loading import open_victim_and_data
    from segpatch.patch import load_patch
    from segpatch.studies.show import write_scenes
    from segpatch.writing import refuse_existing

    refuse_existing(out, overwrite)
    network, dataset = open_victim_and_data(victim, victims, data, class_map, device)
    held = load_patch(patch) if patch else None
    write_scenes(network, dataset, out, patch=held, images=image or ["0"], split=split, place=place, seed=seed)
    print(out)
