"""transfer.json: the measured matrix as a pydantic model, and its way to and from a run directory.

transfer.json        everything derived, for people's scripts (schema: `TransferResult.model_json_schema()`)
transfer.csv         one line a cell
scores.safetensors   the raw rows: confusion matrices (N, K, K) int32 per image, "<cell index>/<which>"
scenes/              index maps of some scenes as PNG: labels, clean and patched predictions
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from segpatch.checks import has_seen
from segpatch.errors import BadInput, Missing
from segpatch.evaluation import ROWS, Picture
from segpatch.metrics import iou_per_class
from segpatch.models.victim import Victim
from segpatch.names import safe_name
from segpatch.reading import read_bytes
from segpatch.runs import write_json
from segpatch.transfer import Cell, TransferMatrix
from segpatch.writing import make_folder, write_png, write_whole

Share = Annotated[float, Field(ge=-1, le=1)]  # of 1, or the difference of two such
Pair = tuple[Share | None, Share | None]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DatasetRecord(_Record):
    """What was measured on. groups: the drive or city of each image; block: images resampled together."""

    kind: str
    split: str
    images: int
    height: int
    width: int
    fingerprint: str
    class_map: str | None = None
    names: list[str]
    groups: list[str]
    block: int


class VictimRecord(_Record):
    """A network: weights, classes, the split it was trained on, and whether it has seen the measured one."""

    name: str
    network: str
    family: Literal["cnn", "transformer"]
    checkpoint: str | None
    checkpoint_sha256: str | None
    classes: str
    trained_split: str | None
    seen_split: bool
    preprocessing: dict[str, Any]


class PatchRecord(_Record):
    """A patch or control; file is relative to the run directory, null for "none"."""

    name: str
    kind: Literal["none", "grey", "random", "natural", "trained"]
    preset: str | None = None
    trained_on: list[str] = []
    loss: str | None = None
    steps: int = 0
    seed: int | None = None
    height: int | None = None
    width: int | None = None
    place: str | None = None
    range: list[tuple[float, float]] | None = None
    sha256: str | None = None
    file: str | None = None


class OverRandomRecord(_Record):
    drop: Share | None
    ci95: Pair
    p_holm: float
    verdict: Literal["transfers", "does not", "undecided"]


class CellRecord(_Record):
    """One patch on one network; fractions over the pixels outside the patch."""

    patch: str
    victim: str
    white_box: bool
    miou: Share | None
    miou_clean: Share | None
    miou_clean_outside: Share | None
    miou_drop: Share | None
    ci95: Pair
    pixel_accuracy: Share | None
    iou: dict[str, Share | None]
    iou_clean_outside: dict[str, Share | None]
    over_random: OverRandomRecord | None = None


class GroupRecord(_Record):
    patch_group: str
    victim: str
    seeds: list[int]
    miou_drop: Share | None
    ci95: Pair


class TransferResult(_Record):
    """The content of transfer.json."""

    schema_: Literal[1] = 1
    command: str
    segpatch: str
    precision: str
    place: str
    margin: float
    warnings: list[str]
    dataset: DatasetRecord
    classes: list[str]
    colours: list[tuple[int, int, int]]
    victims: list[VictimRecord]
    patches: list[PatchRecord]
    cells: list[CellRecord]
    groups: list[GroupRecord]

    model_config = ConfigDict(
        alias_generator=lambda name: "schema" if name == "schema_" else name,
        populate_by_name=True,
    )

    def cell(self, patch: str, victim: str) -> CellRecord:
        """The cell of a patch and a victim, by name."""
        return next(cell for cell in self.cells if (cell.patch, cell.victim) == (patch, victim))


def transfer_result(
    matrix: TransferMatrix,
    victims: Sequence[Victim],
    dataset: DatasetRecord,
    *,
    command: str,
    precision: str,
    warnings: Sequence[str],
    files: Mapping[str, str],
) -> TransferResult:
    """The record of a matrix. files: where each patch lies in the run directory, by patch name."""
    from segpatch import __version__

    return TransferResult(
        command=command,
        segpatch=__version__,
        precision=precision,
        place=matrix.place,
        margin=matrix.margin,
        warnings=list(warnings),
        dataset=dataset,
        classes=list(matrix.classes),
        colours=list(victims[0].label_classes.colours),
        victims=[victim_record(victim, dataset) for victim in victims],
        patches=[
            PatchRecord(name="none", kind="none"),
            *(PatchRecord(**patch.facts(), file=files.get(patch.name)) for patch in matrix.patches),
        ],
        cells=[_cell_record(cell, matrix.classes) for cell in matrix.cells],
        groups=[
            GroupRecord(
                patch_group=group.patch_group,
                victim=group.victim,
                seeds=list(group.seeds),
                miou_drop=_number(group.miou_drop),
                ci95=_pair(group.ci95),
            )
            for group in matrix.groups
        ],
    )


def victim_record(victim: Victim, dataset: DatasetRecord) -> VictimRecord:
    """The record of a victim, measured on a data set."""
    from_file = victim.provenance
    return VictimRecord(
        name=victim.name,
        network=from_file.network,
        family="transformer" if from_file.family == "transformer" else "cnn",
        checkpoint=from_file.checkpoint,
        checkpoint_sha256=from_file.sha256,
        classes=victim.classes.name,
        trained_split=from_file.trained_on,
        seen_split=has_seen(from_file.trained_on, f"{dataset.kind} {dataset.split}"),
        preprocessing=victim.inference,
    )


def write_transfer(directory: Path, result: TransferResult, matrix: TransferMatrix) -> None:
    """Writes scores.safetensors and transfer.csv, and last transfer.json."""
    tensors: dict[str, Tensor] = {}
    for index, cell in enumerate(matrix.cells):
        for which in ROWS:
            if (rows := getattr(cell.scores, which)) is not None:
                tensors[f"{index}/{which}"] = rows.contiguous()
    about = json.dumps([[cell.patch, cell.victim] for cell in matrix.cells])
    write_whole(directory / "scores.safetensors", save(tensors, metadata={"cells": about}))
    write_whole(directory / "transfer.csv", transfer_csv(result).encode())
    write_json(directory / "transfer.json", result.model_dump(by_alias=True))


def transfer_csv(result: TransferResult) -> str:
    """One line a cell: names, scores, intervals, verdict, and the IoU of each class."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ["patch", "victim", "white_box", "miou", "miou_clean", "miou_clean_outside", "miou_drop"]
    head += ["ci95_low", "ci95_high", "pixel_accuracy", "over_random", "over_random_low", "over_random_high"]
    writer.writerow([*head, "p_holm", "verdict", *(f"iou {name}" for name in result.classes)])
    for cell in result.cells:
        over = cell.over_random
        judged = [over.drop, *over.ci95, over.p_holm, over.verdict] if over else [None] * 5
        row = [cell.miou, cell.miou_clean, cell.miou_clean_outside, cell.miou_drop, *cell.ci95]
        row += [cell.pixel_accuracy, *judged, *(cell.iou[name] for name in result.classes)]
        writer.writerow([cell.patch, cell.victim, cell.white_box, *row])
    return out.getvalue()


def read_transfer(directory: Path) -> TransferResult:
    """The result of a finished transfer run; Missing where there is none, BadInput where it is damaged."""
    path = directory / "transfer.json"
    if not path.is_file():
        raise Missing(f"no transfer.json in {directory}; give a finished `segpatch transfer` run")
    try:
        result = TransferResult.model_validate_json(read_bytes(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"{path} is no valid result ({where}: {first['msg']}); measure again") from error
    if reason := _disagreement(result):
        raise BadInput(f"{path} is no valid result ({reason}); measure again")
    return result


def _disagreement(result: TransferResult) -> str | None:
    """What of a result does not fit the rest of it."""
    pairs = sorted((patch.name, victim.name) for patch in result.patches for victim in result.victims)
    measured = {(cell.patch, cell.victim) for cell in result.cells}
    if not pairs or pairs != sorted(measured) or len(measured) < len(result.cells):
        return "it does not have one cell for each patch and victim"
    about = result.dataset
    if not len(about.names) == len(about.groups) == about.images > 0 or about.block < 1:
        return "its images, their names and their groups do not go together"
    if any(set(iou) != set(result.classes) for cell in result.cells for iou in (cell.iou, cell.iou_clean_outside)):
        return "its cells are not about its classes"
    if len(result.colours) != len(result.classes) or not all(0 <= v <= 255 for c in result.colours for v in c):
        return "its colours are not those of its classes"
    return None


def read_scores(directory: Path) -> dict[str, Tensor]:
    """The raw counts (N, K, K) int32 by "<cell index>/<which>", of `evaluation.ROWS`; old runs lack "of_right"."""
    path = directory / "scores.safetensors"
    if not path.is_file():
        raise Missing(f"no scores.safetensors in {directory}; give a finished `segpatch transfer` run")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise BadInput(f"{path} is damaged ({error}); measure again") from error


def write_picture(directory: Path, picture: Picture) -> None:
    """Adds a scene's index maps to scenes/: NAME/labels.png, NAME/<victim>/clean.png and <patch>.png."""
    folder = directory / "scenes" / safe_name(picture.image)
    seen = make_folder(folder / safe_name(picture.victim))
    write_png(folder / "labels.png", picture.labels.numpy())
    write_png(seen / "clean.png", picture.clean.numpy())
    write_png(seen / f"{safe_name(picture.patch)}.png", picture.patched.numpy())
    write_json(folder / f"{safe_name(picture.patch)}.json", {"region": list(picture.region)})


def _cell_record(cell: Cell, classes: Sequence[str]) -> CellRecord:
    scores, over = cell.scores, cell.over_random
    clean = iou_per_class(scores.clean_outside.sum(0)).tolist()
    return CellRecord(
        patch=cell.patch,
        victim=cell.victim,
        white_box=cell.white_box,
        miou=_number(scores.miou),
        miou_clean=_number(scores.miou_clean),
        miou_clean_outside=_number(scores.miou_clean_outside),
        miou_drop=_number(scores.miou_drop),
        ci95=_pair(cell.ci95),
        pixel_accuracy=_number(scores.pixel_accuracy),
        iou={name: _number(value) for name, value in zip(classes, scores.iou, strict=True)},
        iou_clean_outside={name: _number(value) for name, value in zip(classes, clean, strict=True)},
        over_random=None
        if over is None
        else OverRandomRecord(
            drop=_number(over.drop), ci95=_pair(over.ci95), p_holm=over.p_holm, verdict=over.verdict
        ),
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _pair(pair: tuple[float, float]) -> Pair:
    return _number(pair[0]), _number(pair[1])
