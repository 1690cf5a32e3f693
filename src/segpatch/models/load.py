"""From what a user types to a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from segpatch.data.classes import CITYSCAPES, ClassSet
from segpatch.data.files import MAX_CLASSES
from segpatch.errors import BadInput, Missing
from segpatch.models.catalogue import Entry, entries_of, entry_of_file
from segpatch.models.checkpoints import Opened, fill, open_network, read_checkpoint
from segpatch.models.download import must_be_recorded
from segpatch.models.networks import MODELS, network_name, network_spec
from segpatch.models.settings import Settings, class_set
from segpatch.models.victim import Provenance, Victim

NETWORK_FILE = "network.safetensors"
FORMS = "NAME (shipped), NAME=FILE, a `segpatch fit` run, hf:ID_OR_FOLDER or onnx:FILE"


def load_network(name: str, checkpoint: Path | str, *, dtype: torch.dtype | None = None) -> nn.Module:
    """The bare module in eval mode with a checkpoint's weights: normalised batch in, main logits out.

    Logits come at the stride that the released network itself returns; `network.all_outputs(x)` gives the
    auxiliary outputs too, where the file holds their weights. A float64 file stays float64 unless dtype is
    given. Raises BadInput where a key is missing, unknown or of another shape.
    """
    return _load(name, Path(checkpoint), dtype).module


def load_victim(spec: str, settings: Settings = Settings()) -> Victim:  # noqa: B008
    """The victim of a spec: `NAME` (shipped), `NAME=FILE`, a `fit` run directory, `hf:ID_OR_FOLDER`, `onnx:FILE`.

    A FILE of the name of a published checkpoint is taken for it: what the file does not say (preprocessing,
    training split, mIoU) comes from the list of those. settings: what the caller knows better.
    """
    return settings.on(_open(spec, settings.classes))


def _open(spec: str, classes: ClassSet | None) -> Victim:
    """The victim of a spec. classes: what its logits mean, where the caller knows it."""
    kind, colon, source = spec.partition(":")
    if colon and kind == "hf":
        from segpatch.models.hf import hf_victim

        return hf_victim(source)
    if colon and kind == "onnx":
        from segpatch.models.onnx import onnx_victim

        return onnx_victim(Path(source), classes)
    directory = Path(spec)
    name, equals, file = spec.partition("=")
    if equals and not directory.is_dir():
        return _victim(name, Path(file), classes)
    if (directory / NETWORK_FILE).is_file():
        return _victim(None, directory / NETWORK_FILE, classes)
    if directory.is_dir():
        raise Missing(f"{spec} holds no {NETWORK_FILE}; give a finished `segpatch fit` run")
    if "/" in spec:
        raise Missing(f"no such run directory: {spec}; give {FORMS}")
    name = network_name(spec)
    if name not in shipped():
        raise Missing(
            f"no weights for {name} are shipped ({', '.join(shipped()) or 'none are'}); give {name}=FILE (from "
            f"`segpatch models download {name}`) or a `segpatch fit` run"
        )
    with as_file(_shipped_file(name)) as path:
        return _victim(name, path, classes)


def load_victims(specs: Sequence[str], named: Mapping[str, tuple[str, Settings]] | None = None) -> list[Victim]:
    """Victims with different names: a network's name, with the file's where that name occurs twice.

    named: names that stand for a spec with settings; a spec that is one of these names its victim.
    """
    named = named or {}
    victims = [load_victim(*named.get(spec, (spec, Settings()))) for spec in specs]
    names = [spec if spec in named else victim.name for spec, victim in zip(specs, victims, strict=True)]
    labels = [
        f"{name}:{_stem(spec)}" if names.count(name) > 1 and spec not in named else name
        for name, spec in zip(names, specs, strict=True)
    ]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise BadInput(f"the same network was given twice: {', '.join(twice)}; give each once")
    return [replace(victim, name=label) for victim, label in zip(victims, labels, strict=True)]


def shipped() -> tuple[str, ...]:
    """Names of the networks whose weights come with the package."""
    return tuple(name for name in MODELS if _shipped_file(name).is_file())


def model_facts() -> list[dict[str, Any]]:
    """What `segpatch models --json` lists: name, family, size, layouts, and the weights that there are."""
    out = []
    for name, spec in MODELS.items():
        with torch.device("meta"):
            module = spec.default.build(len(CITYSCAPES), auxiliary=False)
        facts = shipped_facts(name) if name in shipped() else {}
        out.append(
            {
                "name": name,
                "shipped": bool(facts),
                "family": spec.family,
                "classes": len(CITYSCAPES),
                "parameters": sum(parameter.numel() for parameter in module.parameters()),
                "layouts": [layout.source for layout in spec.layouts],
                "checkpoints": [*_shipped_checkpoint(facts), *map(_checkpoint, entries_of(name))],
                "clean_miou": facts.get("clean_miou"),
            }
        )
    return out


def _shipped_checkpoint(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """The shipped weights as `_checkpoint` has them; none without facts about them."""
    said = {"trained_on": facts.get("trained_on"), "miou": facts.get("clean_miou")}
    return [{"name": "shipped", "shipped": True, "measured_on": facts.get("clean_on"), **said}] if facts else []


def _checkpoint(entry: Entry) -> dict[str, Any]:
    names = ("name", "publisher", "layout", "file", "address", "steps", "miou", "measured_on", "trained_on")
    values = {name: getattr(entry, name) for name in (*names, "licence", "refused")}
    return {"shipped": False, **values}


def shipped_facts(name: str) -> dict[str, Any]:
    """What is recorded with a shipped network: command, data, seed, clean mIoU."""
    with as_file(_shipped_file(name)) as path:
        return read_checkpoint(path)[1]


def _shipped_file(name: str) -> Any:
    return files("segpatch.models") / "shipped" / f"{name}.safetensors"


def _stem(spec: str) -> str:
    """The name of a file without its ending; of a run directory, or after hf:, all of it (it may hold dots)."""
    if spec.startswith("hf:"):
        return spec.removeprefix("hf:")
    path = Path(spec.partition("=")[2] or spec)
    return path.name if path.is_dir() else path.stem


class _Loaded(NamedTuple):
    """A bare network with a file's weights. entry: the published checkpoint that the file is taken for, if any."""

    module: nn.Module
    opened: Opened
    entry: Entry | None
    sha256: str


def _load(name: str | None, path: Path, dtype: torch.dtype | None = None) -> _Loaded:
    opened = open_network(name, path)
    sha256 = must_be_recorded(path)
    network, layout, state, facts = opened
    entry = None if "network" in facts else entry_of_file(network, layout.source, path.name)
    if entry and entry.refused:
        raise BadInput(f"{path} cannot be used: as {entry.name}, which it is called, {entry.refused}")
    head = state.get(layout.classifier)
    classes = len(head) if head is not None and head.ndim and head.numel() else len(CITYSCAPES)
    if classes > MAX_CLASSES:
        raise BadInput(f"{path} predicts {classes} classes; labels have at most {MAX_CLASSES}")
    module = layout.build_for(state, classes, **(entry.variant if entry else {}))
    widest = dtype or (torch.float64 if any(v.dtype == torch.float64 for v in state.values()) else torch.float32)
    module.to(widest)
    fill(module, state, network, layout, path)
    return _Loaded(module.eval(), opened, entry, sha256)


def _victim(name: str | None, path: Path, classes: ClassSet | None) -> Victim:
    module, (network, layout, _, facts), entry, sha256 = _load(name, path)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if entry:
        facts = {
            "trained_on": entry.trained_on,
            "clean_miou": entry.miou,
            "clean_on": entry.measured_on if entry.miou else None,
        }
    victim = Victim(
        module,
        mean=tuple(facts.get("mean", layout.mean)),
        std=tuple(facts.get("std", layout.std)),
        name=network,
        size_multiple=module.size_multiple,  # type: ignore[arg-type]
        size_offset=getattr(module, "size_offset", 0),
        align_corners=module.output_align_corners,  # type: ignore[arg-type]
        classes=_class_set(facts, module, layout.classifier, path, classes),
        provenance=Provenance(
            network=network,
            family=network_spec(network).family,
            checkpoint=path.name,
            sha256=sha256,
            trained_on=facts.get("trained_on"),
            clean_miou=facts.get("clean_miou"),
            clean_on=facts.get("clean_on"),
            taken_for=entry.name if entry else None,
            licence=entry.licence if entry else None,
        ),
    )
    return entry.settings.on(victim) if entry else victim


def _class_set(
    facts: dict[str, Any], module: nn.Module, classifier: str, path: Path, given: ClassSet | None
) -> ClassSet:
    count = len(module.state_dict()[classifier])
    if given:
        if len(given) != count:
            raise BadInput(f"{path} predicts {count} classes; the {len(given)} of {given.name} do not name them")
        return given
    if "classes" in facts:
        return class_set(facts["classes"], path)
    if count == len(CITYSCAPES):
        return CITYSCAPES
    raise BadInput(
        f"{path} predicts {count} classes and does not name them; segpatch knows the {len(CITYSCAPES)} of "
        "Cityscapes. Name them in a file for --victims, or fit it with `segpatch fit`, which records the names"
    )
