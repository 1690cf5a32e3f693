"""Checkpoint files: tensors only, every key accounted for.

A segpatch network file is safetensors with its metadata; a published file is mostly what torch.save wrote.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn

from segpatch.errors import BadInput, SegpatchError
from segpatch.models.fitting import account, canonical, few, likeness, mismatch, wanted_by
from segpatch.models.layouts.layout import Layout, State
from segpatch.models.networks import MODELS, network_name, network_spec
from segpatch.models.pickles import Stored
from segpatch.models.settings import read_facts
from segpatch.models.tensor_files import SAFETENSORS, container, open_torch, read_safetensors
from segpatch.writing import write_whole

WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model")
PREFIXES = ("module.", "model.")


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a checkpoint by key, without wrappers and prefixes, and its segpatch metadata or {}.

    Raises Missing without the file, BadInput where it holds anything but tensors, or lies about their sizes.
    """
    if container(path) == SAFETENSORS:
        state, metadata = read_safetensors(path)
        return _strip(state), read_facts(metadata.get("segpatch"), path)
    opened = open_torch(path)
    return _strip(opened.read(_unwrap(opened.content, path))), {}


def write_network(path: Path, module: nn.Module, metadata: Mapping[str, Any], *, half: bool = False) -> None:
    """Writes a module's state dict and JSON metadata; the file appears whole or not at all.

    half: matrices and kernels in float16, everything else (batch-norm statistics, biases) in float32. Raises
    SegpatchError for values that are not finite, or too large to be so in float16.
    """
    state = {}
    for key, value in module.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        small = half and value.is_floating_point() and value.ndim >= 2
        state[key] = value.detach().cpu().to(torch.float16 if small else value.dtype).contiguous()
    if wrong := not_finite(state):
        hint = "; leave --half out" if half and bool(module.state_dict()[wrong].isfinite().all()) else ""
        raise SegpatchError(f"{path} is not written: {wrong} holds values that are not finite{hint}")
    write_whole(path, save(state, metadata={"segpatch": json.dumps(dict(metadata))}))


def not_finite(state: Mapping[str, Tensor]) -> str | None:
    """The first key of a state dict whose values are not all finite, None if they are."""
    return next((key for key, value in state.items() if not bool(value.isfinite().all())), None)


def recognise(name: str, state: Mapping[str, Tensor], source: Path) -> Layout:
    """The layout of a network's checkpoint, from its keys; BadInput where none fits or its form is refused."""
    layout = network_spec(name).layout_of(state)
    if layout is None:
        layouts = MODELS[name].layouts
        known = ", ".join(f"{layout.source} has {layout.marks[0]}" for layout in layouts)
        if len(layouts) == 1 or not state:  # the nearest to a name for what is missing
            wanted = wanted_by(layouts[0])
            raise BadInput(mismatch(name, source, state, wanted, account(state, wanted, layouts[0])))
        like = likeness(name, state)
        raise BadInput(
            f"{source} is no {name} checkpoint: its keys ({few(list(state))}) are of none of the known layouts "
            f"({known}){f'; it looks like {like}' if like else ''}"
        )
    reason = layout.refuse(state) if layout.refuse else None
    if reason:
        raise BadInput(f"{source} cannot be used as {name}: {reason}")
    return layout


class Opened(NamedTuple):
    """A checkpoint of a network: tensors by the network's own keys, layout, segpatch metadata or {}."""

    network: str
    layout: Layout
    state: State
    facts: dict[str, Any]


def open_network(name: str | None, path: Path) -> Opened:
    """The checkpoint of a network; without a name, of the one that a file written by segpatch says it is.

    Raises Missing without the file, BadInput where it holds anything but tensors, or another network.
    """
    if name is not None:
        name = network_name(name)  # a mistyped name is said before a large file is read
    state, facts = read_checkpoint(path)
    network = name or facts.get("network")
    if network is None:
        raise BadInput(f"{path} does not say which network it is; give it as NAME={path}")
    spec = network_spec(network)
    if "network" not in facts:
        layout = recognise(network, state, path)
        return Opened(network, layout, canonical(layout, state, network, path), facts)
    if facts["network"] != network:
        raise BadInput(f"{path} holds {facts['network']}, not {network}; give {facts['network']}={path}")
    layout = spec.layout(facts["layout"]) if "layout" in facts else spec.default
    return Opened(network, layout, state, facts)  # segpatch writes the network's own keys


def fill(module: nn.Module, state: State, name: str, layout: Layout, source: Path) -> None:
    """Loads a canonical state into the module, every key used or known to be unused; else BadInput.

    Half-precision values become the module's own type.
    """
    wanted = module.state_dict()
    keys = account(state, wanted, layout)
    if not keys.fits:
        raise BadInput(mismatch(name, source, state, wanted, keys))
    module.load_state_dict({**wanted, **{key: state[key] for key in keys.used}})


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unwrap(content: Any, path: Path) -> dict[str, Stored]:
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(v, Stored) for v in content.values()):
        raise BadInput(f"{path} holds no state dict (names to tensors); save the network's state_dict()")
    return {str(key): value for key, value in content.items()}


def _strip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefix that a wrapper left on most keys; loss buffers keep theirs and are dropped later."""
    for prefix in PREFIXES:
        if sum(key.startswith(prefix) for key in state) > len(state) // 2:
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state
