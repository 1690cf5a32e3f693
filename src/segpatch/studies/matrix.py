"""The main job as a run: a patch per network, preset and seed (or given ones), all against all, controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from segpatch.attack_config import resolve
from segpatch.checks import check_matrix
from segpatch.data import Dataset, batches
from segpatch.data.images import SplitImages, spaced, split_images
from segpatch.errors import BadInput, unknown_name
from segpatch.memory import memory_advice, memory_warning
from segpatch.models.victim import Victim
from segpatch.names import safe_name
from segpatch.patch import Patch, as_uint8, grey_patch, natural_patch, random_patch, save_patch
from segpatch.probes import check_network, check_png, probe_images
from segpatch.processes import ALONE, Processes
from segpatch.report import write_report
from segpatch.results import (
    DatasetRecord,
    TransferResult,
    read_transfer,
    transfer_result,
    write_transfer,
)
from segpatch.runs import open_run
from segpatch.statistics import thinned
from segpatch.studies.attack import PATCH_FILE, training_warnings, victim_facts
from segpatch.studies.planned import MatrixPlan, PlannedPatch, planned_patches, train_planned
from segpatch.studies.progress import OnProgress, silent
from segpatch.studies.rows import FOLDER, Measurement, measure_rows
from segpatch.transfer import judged, must_differ
from segpatch.transforms import as_float
from segpatch.writing import make_folder, remove, write_png

PROBED = 4
"""Images that the probes look at."""
VIDEO_BLOCKS = {"camvid": 10}
"""Consecutive frames that are resampled together; images of other data sets count as independent."""


def run_matrix(
    victims: Sequence[Victim],
    dataset: Dataset,
    plan: MatrixPlan,
    out: Path | str,
    *,
    given: Sequence[Patch] = (),
    command: str = "",
    resume: bool = False,
    overwrite: bool = False,
    on_progress: OnProgress = silent,
    processes: Processes = ALONE,
    ray: str | None = None,
) -> TransferResult:
    """Trains what the plan names, measures all patches and controls on all victims, writes the run and its page.

    Victims of other classes than the data set's speak these from here on (Victim.for_classes). With `resume`, what
    is trained and measured is read, not done again. processes: train each patch together, measure a share of the
    images each, and all return the result; each writes the rows and index maps of what it measured, the first one
    all else. ray: trains patches and measures images side by side, see `run_cells`.
    """
    out = Path(out)
    classes = dataset.classes
    victims = [v if v.label_classes.names == classes.names else v.for_classes(classes) for v in victims]
    must_differ("victims", [victim.name for victim in victims])
    todo = planned_patches(victims, plan)
    images = split_images(dataset, plan.train_split or dataset.train_split, plan.trained)
    split = plan.split or dataset.eval_split
    measured = measured_indices(dataset, split, plan)
    record = {
        "command": "transfer",
        "argv": command,
        "plan": {key: value for key, value in vars(plan).items() if key not in ("overrides", "variants")},
        "variants": [asdict(config) for config in plan.variants],
        "overrides": plan.overrides,
        "data": {"spec": dataset.spec, "split": split, "fingerprint": dataset.fingerprint(split)},
        "victims": [victim_facts(victim) for victim in victims],
        "given": [patch.facts() for patch in given],
    }
    _refuse_early(todo, given, images)
    shows = plan.photographs and plan.pictures > 0
    with open_run(out, record, "transfer.json", resume=resume, overwrite=overwrite, processes=processes) as run:
        if run.finished:
            if not (out / "report" / "index.html").exists():  # stopped between the result and its page
                processes.by_first(lambda: write_report(out, out / "report", photographs=shows))
            processes.by_first(lambda: remove(out / FOLDER))
            return read_transfer(out)
        with run.kept_if_begun():
            patches, files, warnings = list(given), {}, []
            for patch in given:
                files[patch.name] = f"given/{safe_name(patch.name)}.safetensors"
            patches += train_planned(todo, images, out, ray=ray, on_progress=on_progress, processes=processes)
            for item in todo:
                files[item.name] = f"{item.folder}/{PATCH_FILE}"
                warnings += training_warnings(out / item.folder)
            controls = control_patches(patches, images, plan.seed)
            files |= {patch.name: f"controls/{safe_name(patch.name)}.safetensors" for patch in controls}

            def make_ready() -> None:
                for patch in (*controls, *given):
                    make_folder((out / files[patch.name]).parent)
                    save_patch(patch, out / files[patch.name])

            processes.by_first(make_ready)
            names = dataset.names(split)
            groups = [dataset.groups(split)[index] for index in measured]
            shown = (
                frozenset(names[measured[i]] for i in spaced(len(measured), plan.pictures))
                if plan.pictures
                else frozenset()
            )
            block = block_of(dataset, sum(g in groups for g in dataset.groups(split)), len(measured))
            asked = Measurement(
                victims,
                [None, *controls, *patches],
                dataset,
                split,
                measured,
                batch_size=plan.batch_size,
                place=plan.place,
                seed=plan.seed,
                precision=plan.precision,
                shown=shown,
                run=out,
            )
            with memory_advice(1):
                rows, at_once = measure_rows(asked, ray=ray, on_progress=on_progress, processes=processes)
            matrix = judged(
                rows,
                [victim.name for victim in victims],
                classes.names,
                [*controls, *patches],
                groups=groups,
                block=block,
                margin=plan.margin,
                place=plan.place,
                seed=plan.seed,
            )
            height, width = dataset.size(split)
            about = DatasetRecord(
                kind=dataset.kind,
                split=split,
                images=len(measured),
                height=height,
                width=width,
                fingerprint=dataset.fingerprint(split),
                class_map=next((v.class_map.name for v in victims if v.class_map), None),
                names=[names[index] for index in measured],
                groups=groups,
                block=block,
            )
            these = SplitImages(dataset, split, measured)
            warnings += processes.by_first(lambda: _probed(victims, patches, these))
            warnings += check_matrix(matrix, victims, str(these))
            warnings += memory_warning("measuring", plan.batch_size, at_once)
            result = transfer_result(
                matrix,
                victims,
                about,
                command=command,
                precision=plan.precision,
                warnings=list(dict.fromkeys(warnings)),
                files=files,
            )

            def write() -> None:
                if plan.photographs:
                    _keep_photographs(dataset, split, shown, out)
                write_transfer(out, result, matrix)
                remove(out / FOLDER)
                write_report(out, out / "report", photographs=shows)

            processes.by_first(write)
        run.finish()
        return result


def _probed(victims: Sequence[Victim], patches: Sequence[Patch], images: SplitImages) -> list[str]:
    """What the networks do to a few of the measured images, and the pictures of the patches to the networks."""
    seen = probe_images(images)
    some = [images.indices[at] for at in spaced(len(images), PROBED)]
    few = list(batches(images.dataset, images.split, batch_size=PROBED, indices=some, workers=1))
    said = [text for victim in victims for text in check_network(victim, seen)]
    return said + check_png([patch for patch in patches if patch.kind == "trained"], victims, few)


def _refuse_early(todo: Sequence[PlannedPatch], given: Sequence[Patch], images: SplitImages) -> None:
    """BadInput, before anything is trained or written, for patches that one matrix cannot hold."""
    sizes = [patch.size for patch in given]
    for item in todo:
        size = resolve(item.config, images, item.victims).patch_size
        assert size
        sizes.append(size)
    one_size(sizes)
    must_differ("patches", ["none", *(patch.name for patch in given), *(item.name for item in todo)])


def one_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The one size (h, w) of all patches of a matrix; such of other sizes are measured in runs of their own."""
    if len(set(sizes)) != 1:
        listed = ", ".join(f"{h}x{w}" for h, w in sorted(set(sizes))) or "none"
        raise BadInput(f"the patches of one matrix must have one size; got {listed}")
    return sizes[0]


def control_patches(patches: Sequence[Patch], images: SplitImages, seed: int) -> list[Patch]:
    """A grey, a natural and, per pixel range, a random patch, of the patches' one size."""
    size = one_size([patch.size for patch in patches])
    scene = as_float(images[seed % len(images)][0])
    ranges = dict.fromkeys(patch.range for patch in patches)
    return [
        grey_patch(size),
        *(random_patch(size, within, seed) for within in ranges),
        natural_patch(size, scene, seed),
    ]


def measured_indices(dataset: Dataset, split: str, plan: MatrixPlan) -> list[int]:
    """Positions of the measured images in the split, in order."""
    groups = dataset.groups(split)
    for group in plan.groups:
        if group not in groups:
            raise unknown_name("group", group, set(groups))
    chosen = [i for i, group in enumerate(groups) if not plan.groups or group in plan.groups]
    return [chosen[i] for i in spaced(len(chosen), plan.measured)]


def block_of(dataset: Dataset, images: int, kept: int) -> int:
    """How many of `kept` images, evenly spaced among `images` of a data set, are resampled together."""
    return thinned(VIDEO_BLOCKS.get(dataset.kind, 1), images, kept)


def _keep_photographs(dataset: Dataset, split: str, names: frozenset[str], out: Path) -> None:
    for index, name in enumerate(dataset.names(split)):
        if name in names:
            image = SplitImages(dataset, split, [index])[0][0]
            write_png(out / "scenes" / safe_name(name) / "image.png", as_uint8(as_float(image)))
