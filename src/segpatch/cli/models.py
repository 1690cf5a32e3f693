"""`segpatch models`: what can be attacked, what a file is, where to get one, and one as ONNX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segpatch.cli import options
from segpatch.cli.examples import example
from segpatch.cli.progress import ProgressPrinter

if TYPE_CHECKING:
    from segpatch.models.catalogue import Entry

app = typer.Typer(help="What can be attacked.", invoke_without_command=True, epilog=example("models"))

Network = Annotated[str, typer.Argument(help="Network, as `segpatch models` lists them.")]


@app.callback()
def models(
    context: typer.Context,
    published: Annotated[bool, typer.Option("--published", help="List the published checkpoints.")] = False,
    as_json: options.Json = False,
) -> None:
    """List the networks that can be attacked."""
    if context.invoked_subcommand:
        return
    from segpatch.cli.tables import table
    from segpatch.models.catalogue import catalogue
    from segpatch.models.load import model_facts

    if published and not as_json:
        head = ["checkpoint", "network", "mIoU", "measured on", "trained on", "fetched", "licence"]
        print(table(head, [_row(entry) for entry in catalogue()]))
        return
    facts = model_facts()
    if as_json:
        print(json.dumps({"models": facts}))
        return
    rows = [
        [
            f["name"],
            f["family"],
            f"{f['parameters'] / 1e6:.1f} M",
            str(len(f["layouts"])),
            str(sum(not checkpoint["shipped"] for checkpoint in f["checkpoints"])),
            f"{f['clean_miou']:.3f}" if f["shipped"] else "",
        ]
        for f in facts
    ]
    head = ["network", "family", "parameters", "layouts", "published", "shipped, mIoU on streets"]
    print(table(head, rows))


@app.command("check", epilog=example("models check"))
def check(name: Network, file: Annotated[Path, typer.Argument(help="Checkpoint file.")]) -> None:
    """Say what a checkpoint is, key by key, and whether it fits a network."""
    from segpatch.errors import BadInput
    from segpatch.models.inspection import inspect

    found = inspect(name, file)
    for heading, line in found.describe():
        print(f"{heading:<16}  {line}")
    if found.victim is None:
        raise BadInput(found.problem)
    classes = found.victim.classes
    print(f"{file} fits {found.network}: {len(classes)} classes ({classes.name})")


@app.command("download", epilog=example("models download"))
def download(
    name: Annotated[str, typer.Argument(help="A checkpoint of `segpatch models --published`, or a network.")],
    out: Annotated[Path | None, typer.Option(help="Folder to keep it in; unless given, the user's cache.")] = None,
    max_size: Annotated[float, typer.Option(help="Refuse what is larger than this many megabytes.")] = 1000.0,
    quiet: options.Quiet = False,
) -> None:
    """Fetch a published checkpoint (of a network, its best one), or say how to get it."""
    from segpatch.bounds import check_number
    from segpatch.models.catalogue import find_entry
    from segpatch.models.download import default_folder, download, must_be_recorded
    from segpatch.studies.progress import Progress

    check_number("--max-size", max_size, 0, 1e6, above=True)
    entry = find_entry(name)
    about = f"trained on {entry.trained_on}{_miou(entry)}; licence: {entry.licence}"
    if not entry.address:
        print(f"{entry.name} of {entry.publisher} has no address that it can be fetched from directly: {about}")
        print(f"get it {entry.steps}, keep it as {entry.file} and use it as --victim {entry.network}={entry.file}")
        return
    show = ProgressPrinter(quiet)

    def on_bytes(done: int, total: int | None) -> None:
        show(Progress(f"{entry.file}, MB", done // 10**6, (total or done + 10**6) // 10**6))

    path = download(entry, out or default_folder(), max_size=int(max_size * 1e6), on_bytes=on_bytes)
    print(f"{entry.name} of {entry.publisher}: {about}")
    print(f"SHA-256 {must_be_recorded(path)}")
    print(f"use it as --victim {entry.network}={path}")


@app.command("export", epilog=example("models export"))
def export(
    victim: Annotated[str, typer.Argument(help="A network, as for --victim.")],
    out: Annotated[Path, typer.Option(help="File to write (.onnx).")],
    size: Annotated[str, typer.Option(help="Size of its images, HxW in pixels.")] = "1024x2048",
    victims: options.VictimsFile = None,
) -> None:
    """Write a network as ONNX: images in [0, 1] in, logits at their size out."""
    from segpatch.models.load import load_victims
    from segpatch.models.onnx_export import export_onnx
    from segpatch.victims import read_victims

    sides = options.parse_size(size)
    assert sides is not None  # it has a default
    (network,) = load_victims([victim], read_victims(victims) if victims else {})
    difference = export_onnx(network, out, sides)
    print(f"{out}: {network.name} for images of {sides[0]}x{sides[1]}, logits within {difference:.1e} of its own")


def _row(entry: Entry) -> list[str]:
    miou = "" if entry.miou is None else f"{entry.miou:.4f}"
    how = "no: " + entry.refused if entry.refused else "directly" if entry.address else "by hand"
    return [entry.name, entry.network, miou, entry.measured_on, entry.trained_on, how, entry.licence]


def _miou(entry: Entry) -> str:
    return "" if entry.miou is None else f", mIoU {entry.miou:.4f} on {entry.measured_on}"
