"""The study as a run: the matrix, then every other part cell by cell, each resumable by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from segpatch.clean import CleanPredictions
from segpatch.data import Dataset
from segpatch.data.images import split_images
from segpatch.errors import BadInput
from segpatch.models.victim import Victim
from segpatch.report import write_report
from segpatch.runs import LOCK, open_run, read_json, write_json
from segpatch.studies.attack import victim_facts
from segpatch.studies.cells import PATIENCE, connected, from_driver, run_cells, to_workers
from segpatch.studies.estimate import Estimate
from segpatch.studies.matrix import measured_indices, run_matrix
from segpatch.studies.paper.aligning import alignment_cells
from segpatch.studies.paper.context import Cell, Context, run_cell
from segpatch.studies.paper.cost import estimate_paper
from segpatch.studies.paper.curves import curve_cells
from segpatch.studies.paper.drives import drive_cells
from segpatch.studies.paper.local import locality_cells
from segpatch.studies.paper.matrices import study_matrices
from segpatch.studies.paper.places import place_cells
from segpatch.studies.paper.plan import PARTS, PaperPlan
from segpatch.studies.paper.released import DEVIATIONS, as_released, released_warnings
from segpatch.studies.paper.sizes import size_cells
from segpatch.studies.progress import OnProgress, Progress, silent
from segpatch.writing import leftovers, remove

STUDY = "study.json"
CELLS: dict[str, Callable[[Context], list[Cell]]] = {
    "drives": drive_cells,
    "alignment": alignment_cells,
    "curves": curve_cells,
    "sizes": size_cells,
    "locality": locality_cells,
    "places": place_cells,
}


def run_paper(
    victims: Sequence[Victim],
    dataset: Dataset,
    plan: PaperPlan,
    out: Path,
    *,
    command: str = "",
    resume: bool = False,
    overwrite: bool = False,
    on_progress: OnProgress = silent,
    on_estimate: Callable[[Estimate], None] | None = None,
    ray: str | None = None,
) -> dict[str, Any]:
    """Runs the parts of the plan into a directory and returns what study.json holds: every cell's result, by name.

    The victims must speak the data set's classes. `matrix` and `ablations/NAME` hold transfer runs,
    `cells/PART/NAME` the rest. Interrupted, `resume` goes on with the first cell that is not finished; none is
    worked out twice. on_estimate gets what is left to do and to wait for, before anything begins; a finished study
    has no estimate. ray: trains, measures and works out cells side by side, see `run_cells`.
    """
    if plan.as_released:
        victims, plan = as_released(victims, dataset, plan, [field.name for field in fields(plan)])
    training = split_images(dataset, dataset.train_split, plan.train_images)
    plan = _with_finished_parts(plan, out) if resume and not overwrite else plan
    asked = study_matrices(victims, training, plan)
    record = {
        "command": "study paper",
        "argv": command,
        "plan": {key: value for key, value in asdict(plan).items() if key != "only"},
        "victims": [victim_facts(victim) for victim in victims],
        "data": {"spec": dataset.spec, "fingerprint": dataset.fingerprint(plan.split or dataset.eval_split)},
    }
    with open_run(out, record, STUDY, resume=resume, overwrite=overwrite) as run:
        if run.finished:
            if not (out / "report" / "index.html").exists():  # stopped between the result and its page
                _write_pages(out)
            done: dict[str, Any] = read_json(out / STUDY)
            return done
        results: dict[str, Any] = {}
        with run.kept_if_begun(), connected(ray) if ray else nullcontext():
            if on_estimate:
                on_estimate(estimate_paper(victims, dataset, plan, out))
            for name, (networks, matrix) in asked.items():
                place = out / name
                result = run_matrix(
                    networks,
                    dataset,
                    matrix,
                    place,
                    command=command,
                    resume=place.exists(),
                    on_progress=on_progress,
                    ray=ray,
                )
                split = plan.split or dataset.eval_split
                context = Context(
                    victims=networks,
                    dataset=dataset,
                    plan=plan,
                    training=training,
                    split=split,
                    measured=measured_indices(dataset, split, matrix),
                    block=result.dataset.block,
                    matrix=place,
                    result=result,
                    on_progress=on_progress,
                )
                results |= _run_cells(name, context, out / "cells", ray)
        study = {
            "schema": 1,
            "command": command,
            "plan": asdict(plan),
            "parts": plan.parts,
            "matrices": list(asked),
            "warnings": released_warnings(victims, dataset) if plan.as_released else [],
            "deviations": DEVIATIONS if plan.as_released else [],
            "cells": results,
        }
        write_json(out / STUDY, study)
        _write_pages(out)
        run.finish()
    return study


def _run_cells(matrix: str, context: Context, out: Path, ray: str | None) -> dict[str, dict[str, Any]]:
    """The results of what is asked of the patches of a matrix, by name of the cell: worked out here, or on Ray."""
    names = [cell.name for cell in _cells(matrix, context)]
    if ray is None or not names:
        return {cell.name: run_cell(cell, context, out / cell.name) for cell in _cells(matrix, context)}

    def show(done: int) -> None:
        context.on_progress(Progress("cells", done, len(names), f"on {ray}"))

    victims, device = to_workers(context.victims)
    at = context.matrix.resolve()
    sent = replace(context, victims=victims, matrix=at, on_progress=silent, clean=CleanPredictions())
    shared = (matrix, sent, out.resolve(), device)
    done = run_cells(_run_named, shared, names, ray=ray, gpus=float(device == "cuda"), on_done=show)
    return dict(zip(names, done, strict=True))


def _run_named(shared: tuple[str, Context, Path, str], name: str) -> dict[str, Any]:
    """Works out a cell in another process, where it is made again: what it does cannot be sent."""
    matrix, sent, out, device = shared
    context = replace(sent, victims=from_driver(sent.victims, device))
    cell = next(cell for cell in _cells(matrix, context) if cell.name == name)
    return run_cell(cell, context, out / name, PATIENCE)


def _write_pages(out: Path) -> None:
    """The page of the matrix again, which shows parts of the study too, and last the page of the study."""
    if (out / "matrix").is_dir():
        for path in leftovers(out / "matrix", LOCK):  # of one that was killed here
            remove(path)
        write_report(out / "matrix", out / "matrix" / "report")
    write_report(out, out / "report")


def _cells(matrix: str, context: Context) -> Iterator[Cell]:
    """What is asked of the patches of a matrix."""
    if matrix == "matrix":
        for part in (part for part in context.plan.parts if part in CELLS):
            yield from CELLS[part](context)
    elif matrix == "ablations/scenes":
        yield from size_cells(context, "distances")


def _with_finished_parts(plan: PaperPlan, out: Path) -> PaperPlan:
    """The plan with the parts that a finished study in the directory has too.

    A study that is asked for more parts than it has is begun again: its cells are kept, and only read.
    """
    if not (out / STUDY).is_file():
        return plan
    try:
        had = set(read_json(out / STUDY)["parts"])
    except (KeyError, TypeError) as error:
        raise BadInput(f"{out / STUDY} is no study's result; start again with --overwrite") from error
    if not set(plan.parts) <= had:
        remove(out / STUDY)
    return replace(plan, only=tuple(part for part in PARTS if part in had.union(plan.parts)))
