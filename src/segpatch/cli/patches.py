"""`segpatch patch`: patches as things."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segpatch.cli import options
from segpatch.cli.examples import example

if TYPE_CHECKING:
    from segpatch.patch import Patch
    from segpatch.patches import Entry
    from segpatch.studies.round_trip import RoundTrip

app = typer.Typer(help="Patches as things.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="patch.safetensors, an attack run, or a PNG.")]


@app.command("list", epilog=example("patch list"))
def list_patches(
    directory: Annotated[Path, typer.Argument(help="Folder to look in, with all below it.")],
    sort: Annotated[str, typer.Option(help="name, or drop: the largest on a network of its own first.")] = "name",
    as_json: options.Json = False,
) -> None:
    """List the patches below a folder, with what runs there measured of them."""
    from segpatch.cli.tables import print_table
    from segpatch.errors import Missing, unknown_name
    from segpatch.patches import catalogue

    if sort not in ("name", "drop"):
        raise unknown_name("order", sort, ("name", "drop"))
    found = catalogue(directory)
    if not found:
        raise Missing(f"no patch file below {directory}; give a folder of attack or transfer runs")
    if sort == "drop":
        found.sort(key=lambda entry: -entry.drop)
    if as_json:
        print(json.dumps({"patches": [entry.facts() for entry in found]}, indent=2))
        return
    head = ["patch", "trained on", "preset", "loss", "steps", "seed", "size", "range"]
    print_table([*head, "drop on its own", "over random", "SHA-256", "file"], [_row(entry) for entry in found])


@app.command("show", epilog=example("patch show"))
def show(
    patch: File,
    victim: options.OneVictim = None,
    victims: options.VictimsFile = None,
    data: Annotated[str | None, typer.Option(help="Measure the patch and its 8-bit PNG on this data.")] = None,
    split: options.Split = None,
    images: options.Images = None,
    place: options.MeasuredPlace = "centre",
    class_map: options.MapFile = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """All that is known of a patch: what its file records, its pixels, and what 8 bits a channel change."""
    from segpatch.cli.loading import open_victim_and_data
    from segpatch.names import printable
    from segpatch.patch import load_patch
    from segpatch.studies.round_trip import pixel_change, pixel_statistics, round_trip

    if (data is None) != (victim is None and victims is None):
        raise typer.BadParameter("give both --data and --victim, or neither", param_hint="'--data'")
    held = load_patch(patch)
    largest, mean = pixel_change(held)
    about: dict[str, Any] = {
        **held.facts(),
        "origin": held.origin,
        "pixels": pixel_statistics(held),
        "eight_bits": {"largest_change": largest, "mean_change": mean},
    }
    measured = None
    if data:
        network, dataset = open_victim_and_data(victim, victims, data, class_map, device)
        measured = round_trip(network, dataset, held, split=split, images=images, place=place, seed=seed)
        about["eight_bits"] |= {"victim": network.name, "data": dataset.spec, **vars(measured)}
    if as_json:
        print(json.dumps(about, indent=2))
        return
    for heading, line in [*_lines(held, about), *_measured(measured)]:
        print(f"{heading:<12}  {printable(line)}")


@app.command("export", epilog=example("patch export"))
def export(
    patch: File,
    out: Annotated[Path, typer.Option(help="Picture to write (.png).")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file that is there.")] = False,
) -> None:
    """Write a patch as a PNG of 8 bits a channel, which says what it is and is a patch by itself."""
    from segpatch.errors import BadInput
    from segpatch.patch import as_png, load_patch
    from segpatch.studies.round_trip import pixel_change
    from segpatch.writing import refuse_existing, write_whole

    held = load_patch(patch)
    if out.suffix.lower() != ".png":
        raise BadInput(f"the picture is written as PNG; end its name in .png, not as in {out}")
    refuse_existing(out, overwrite)
    write_whole(out, as_png(held))
    print(f"{out}: {held.name} in 8 bits, which change a value by {pixel_change(held)[0]:.2f}/255 at most")


def _row(entry: Entry) -> list[str]:
    from segpatch.patch import range_name

    patch = entry.patch
    drops = [(cell, f"{cell.victim} " if len(entry.own) > 1 else "") for cell in entry.own]
    return [
        patch.name,
        ", ".join(patch.trained_on) or patch.kind,
        patch.preset or "",
        patch.loss or "",
        str(patch.steps or ""),
        "" if patch.seed is None else str(patch.seed),
        f"{patch.size[0]}x{patch.size[1]}",
        range_name(patch.range),
        "\n".join(name + _interval(cell.drop, cell.ci95) for cell, name in drops),
        "\n".join(name + _interval(cell.over_random, cell.over_random_ci95) for cell, name in drops),
        patch.sha256()[:12],
        entry.files[0],
    ]


def _lines(patch: Patch, about: dict[str, Any]) -> list[tuple[str, str]]:
    """Headings and what stands beside them."""
    from segpatch.patch import range_name

    data: Any = patch.origin.get("data")
    known = isinstance(data, dict) and {"spec", "split", "images"} <= data.keys()
    pixels, change = about["pixels"], about["eight_bits"]
    lines = [
        ("patch", patch.name),
        ("kind", patch.kind),
        ("trained on", ", ".join(patch.trained_on)),
        ("with data", f"{data['spec']} {data['split']}, {data['images']} images" if known else ""),
        ("preset", patch.preset),
        ("loss", patch.loss),
        ("steps", str(patch.steps or "")),
        ("seed", "" if patch.seed is None else str(patch.seed)),
        ("place", patch.place),
        ("size", f"{patch.size[0]}x{patch.size[1]}"),
        ("range", range_name(patch.range)),
        ("SHA-256", patch.sha256()),
        *(
            (name, f"{c['least']:.3f} to {c['most']:.3f}, mean {c['mean']:.3f}, deviation {c['deviation']:.3f}")
            for name, c in pixels["channels"].items()
        ),
        ("at a bound", f"{pixels['at_bound']:.1%} of the values"),
        ("8 bits", f"change a value by {change['largest_change']:.2f}/255 at most, "
                   f"{change['mean_change']:.2f}/255 on average"),
    ]  # fmt: skip
    return [(heading, line) for heading, line in lines if line]


def _measured(trip: RoundTrip | None) -> list[tuple[str, str]]:
    if trip is None:
        return []
    return [
        ("mIoU drop", f"{_interval(*trip.exact)} on {trip.images} images"),
        ("of the PNG", f"{_interval(*trip.png)}; it lacks {_interval(*trip.lost)}"),
    ]


def _interval(drop: float | None, ci95: tuple[float | None, float | None] | None) -> str:
    from segpatch.notebook import three

    if drop is None or ci95 is None or ci95[0] is None or ci95[1] is None:
        return ""
    return f"{three(drop)} [{three(ci95[0])}, {three(ci95[1])}]"
