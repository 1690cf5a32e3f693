"""From what a user types to a network: `NAME`, `NAME=FILE`, or the directory of a `segpatch fit` run."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segpatch.data.classes import CITYSCAPES, ClassSet
from segpatch.errors import BadInput, Missing
from segpatch.models.checkpoints import Opened, file_sha256, fill, open_network, read_checkpoint
from segpatch.models.networks import MODELS, network_spec
from segpatch.models.victim import Provenance, Victim

NETWORK_FILE = "network.safetensors"


def load_network(name: str, checkpoint: Path | str, *, dtype: torch.dtype | None = None) -> nn.Module:
    """The bare module in eval mode with a checkpoint's weights: normalised batch in, main logits out.

    Logits come at the stride that the released network itself returns; `network.all_outputs(x)` gives the
    auxiliary outputs too, where the file holds their weights. A float64 file stays float64 unless dtype is
    given. Raises BadInput where a key is missing, unknown or of another shape.
    """
    return _load(name, Path(checkpoint), dtype)[0]


def load_victim(spec: str) -> Victim:
    """The victim of a spec: `NAME` (shipped), `NAME=FILE`, or a `fit` run directory."""
    directory = Path(spec)
    name, equals, file = spec.partition("=")
    if equals and not directory.is_dir():
        return _victim(name, Path(file), label=name)
    if (directory / NETWORK_FILE).is_file():
        return _victim(None, directory / NETWORK_FILE, label=None)
    if directory.is_dir():
        raise Missing(f"{spec} holds no {NETWORK_FILE}; give a finished `segpatch fit` run")
    if "/" in spec:
        raise Missing(f"no such run directory: {spec}; give NAME, NAME=FILE or a `segpatch fit` run")
    network_spec(spec)
    if spec not in shipped():
        raise Missing(
            f"no weights for {spec} are shipped ({', '.join(shipped()) or 'none are'}); give {spec}=FILE or a "
            "`segpatch fit` run"
        )
    with as_file(_shipped_file(spec)) as path:
        return _victim(spec, path, label=spec)


def load_victims(specs: list[str]) -> list[Victim]:
    """Victims with different names: a network's name, with the file's where that name occurs twice."""
    victims = [load_victim(spec) for spec in specs]
    names = [victim.name for victim in victims]
    stems = [_stem(spec) for spec in specs]
    labels = [f"{name}:{stem}" if names.count(name) > 1 else name for name, stem in zip(names, stems, strict=True)]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise BadInput(f"the same network was given twice: {', '.join(twice)}; give each once")
    return [replace(victim, name=label) for victim, label in zip(victims, labels, strict=True)]


def shipped() -> tuple[str, ...]:
    """Names of the networks whose weights come with the package."""
    return tuple(name for name in MODELS if _shipped_file(name).is_file())


def model_facts() -> list[dict[str, Any]]:
    """What `segpatch models --json` lists: name, family, size, and whether weights are shipped."""
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
                "checkpoints": ["segpatch streets"] if facts else [],
                "clean_miou": facts.get("clean_miou"),
            }
        )
    return out


def shipped_facts(name: str) -> dict[str, Any]:
    """What is recorded with a shipped network: command, data, seed, clean mIoU."""
    with as_file(_shipped_file(name)) as path:
        return read_checkpoint(path)[1]


def _shipped_file(name: str) -> Any:
    return files("segpatch.models") / "shipped" / f"{name}.safetensors"


def _stem(spec: str) -> str:
    """The name of a file without its ending, or of a run directory as it is (it may hold dots)."""
    path = Path(spec.partition("=")[2] or spec)
    return path.name if path.is_dir() else path.stem


def _load(name: str | None, path: Path, dtype: torch.dtype | None = None) -> tuple[nn.Module, Opened]:
    opened = open_network(name, path)
    state, layout = opened.state, opened.layout
    classes = len(state[layout.classifier]) if layout.classifier in state else len(CITYSCAPES.names)
    module = layout.build_for(state, classes)
    widest = dtype or (torch.float64 if any(v.dtype == torch.float64 for v in state.values()) else torch.float32)
    module.to(widest)
    fill(module, state, opened.network, layout, path)
    return module.eval(), opened


def _victim(name: str | None, path: Path, label: str | None) -> Victim:
    module, (network, layout, _, facts) = _load(name, path)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Victim(
        module,
        mean=tuple(facts.get("mean", layout.mean)),
        std=tuple(facts.get("std", layout.std)),
        name=label or network,
        size_multiple=module.size_multiple,  # type: ignore[arg-type]
        align_corners=module.output_align_corners,  # type: ignore[arg-type]
        classes=_class_set(facts, module, layout.classifier, path),
        provenance=Provenance(
            network=network,
            family=network_spec(network).family,
            checkpoint=path.name,
            sha256=file_sha256(path),
            trained_on=facts.get("trained_on"),
            clean_miou=facts.get("clean_miou"),
            clean_on=facts.get("clean_on"),
        ),
    )


def _class_set(facts: dict[str, Any], module: nn.Module, classifier: str, path: Path) -> ClassSet:
    if "classes" in facts:
        about = facts["classes"]
        return ClassSet(about["name"], tuple(about["names"]), tuple(tuple(c) for c in about["colours"]))
    count = len(module.state_dict()[classifier])
    if count == len(CITYSCAPES.names):
        return CITYSCAPES
    raise BadInput(
        f"{path} predicts {count} classes and does not name them; segpatch knows the "
        f"{len(CITYSCAPES.names)} of Cityscapes. Fit it with `segpatch fit`, which records the names"
    )


def class_facts(classes: ClassSet) -> dict[str, Any]:
    """A class set as it is recorded in a network file."""
    plain = {"name": classes.name, "names": classes.names, "colours": classes.colours}
    return json.loads(json.dumps(plain))  # type: ignore[no-any-return]
