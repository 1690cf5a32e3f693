"""The study as the published run: what that run fixed, what contradicts it, and what still differs from it."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from segpatch.data import Dataset
from segpatch.errors import BadInput
from segpatch.models.catalogue import entries_of
from segpatch.models.settings import Settings
from segpatch.models.victim import Victim
from segpatch.published import published_matrix, published_settings, updates_as_released, victim_as_released
from segpatch.studies.paper.plan import PaperPlan

DEVIATIONS = (
    "No seed was set there. Here start, order of images, scenes and controls follow from the seed.",
    "Every step here takes a full batch. There the last batch of an epoch of the CNNs held 5 images instead of 6: "
    "over the same 14,880 updates 30 images fewer of 89,280.",
    "Scenes are resized here in floating point, there from bytes to bytes by OpenCV. A label here is that of the "
    "pixel whose centre is nearest, there of one up to half a scaled pixel above and to the left of it.",
    "The patch is kept here in pixels and normalised with the image, there in normalised units: the same up to "
    "rounding.",
    "Where no pixel of a batch is right, the gradient here is 0. There the loss was not a number, and its step "
    "presumably 0 as well.",
    "The random row here is one random patch for all images, there a new one for each image.",
    "A class that never occurs is left out of the mIoU here and counts as 0 there; over a whole split all occur.",
    "A point of a curve is measured here with the patch as it was at the end of an epoch, on as many crops as "
    "images are held out; there during the epoch, over all its crops, while the patch was changing.",
    "The curve of SegFormer has 15 points, evenly spaced; that run ended 435 images into its 16th epoch.",
    "Only the matrix and the curves on training crops are of the published run; all other parts are added here.",
)
"""Known differences between `as_released` and the published run, for the page."""


def as_released(
    victims: Sequence[Victim], dataset: Dataset, plan: PaperPlan, given: Collection[str] = ()
) -> tuple[list[Victim], PaperPlan]:
    """The networks with the input that the published run gave them, and the plan trained and measured as it was.

    given: fields of the plan that the user chose; the others are set, whatever the plan says. Any seeds may be
    chosen, as the run set none, and any parts; unless chosen, they are those that the run had. Raises BadInput for
    a chosen field that contradicts the run, for another data set than Cityscapes, and for networks that the run
    did not have.
    """
    if dataset.kind != "cityscapes":
        raise BadInput(f"--as-released is of Cityscapes; got {dataset.spec}: give --data cityscapes:DIR")
    shown = [Settings(**victim_as_released(victim.provenance.network)).on(victim) for victim in victims]
    settings, attacks = published_settings(), updates_as_released()
    # An override that is none of `attacks`, such as micro_batch, is left as it is.
    fixed: dict[str, Any] = {
        "only": plan.only if "only" in given else ("matrix", "curves"),
        "presets": ("released",),
        "seeds": plan.seeds if "seeds" in given else (0,),
        "ensembles": (),
        "images": None,
        "groups": (),
        "train_images": None,
        "split": settings["val_split"].value,
        "snapshots": settings["epochs"].of("cnn"),
        "precision": settings["precision"].value,
        "batch_size": settings["eval_batch_size"].value,
    }
    for name in fixed:
        if name in given:
            _refuse_other(name, getattr(plan, name), fixed[name])
    if "overrides" in given:
        for victim in victims:
            for name, value in attacks[victim.provenance.family].items():
                _refuse_other(name, plan.overrides.get(name, value), value)
    kept = {name: value for name, value in plan.overrides.items() if name not in attacks["cnn"]}
    return shown, replace(plan, **fixed, overrides=kept, as_released=True)


def released_warnings(victims: Sequence[Victim], dataset: Dataset) -> list[str]:
    """What of data and weights is not the published run's."""
    settings, published = published_settings(), published_matrix()
    out = []
    for split, which in ((dataset.train_split, "train"), (settings["val_split"].value, "val")):
        known = f"{settings[f'{which}_images'].value} images of {settings[f'{which}_split'].value}"
        if (found := f"{len(dataset.samples(split))} images of {split}") != known:
            out.append(f"the published run had {known}; here there are {found}")
    for victim in victims:
        about = victim.provenance
        weights = published.networks[published.full_name(about.network)].weights
        if weights is None:
            out.append(f"{victim.name}: the weights of the published run are not public, so these are others")
        elif not any(
            entry.name == about.taken_for and entry.file.removesuffix(".bin") == weights.removeprefix("nvidia/")
            for entry in entries_of(about.network)
        ):
            out.append(
                f"{victim.name} has weights of {about.checkpoint or 'unknown origin'}, the published run those of "
                f"{weights}: its row and column are another network's"
            )
    return out


def _refuse_other(name: str, got: Any, wanted: Any) -> None:
    if json.dumps(got, default=str) != json.dumps(wanted, default=str):  # a list as its tuple
        said = {"null": "all", "[]": "none"}.get(json.dumps(wanted), str(wanted))
        raise BadInput(
            f"{name} is {said} in the published run, got {got}; leave it out, or leave out --as-released"
        )
