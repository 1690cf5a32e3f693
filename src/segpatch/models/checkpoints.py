"""Checkpoint files: tensors only, every key accounted for.

A segpatch network file is safetensors with its metadata; a published file is a pickle that holds tensors
and containers and nothing else (torch's weights_only reader refuses everything else).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from segpatch.errors import BadInput, Missing
from segpatch.models.layouts.layout import Layout, State
from segpatch.models.networks import MODELS, network_spec

WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model")
PREFIXES = ("module.", "model.")


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a checkpoint by key, without wrappers and prefixes, and its segpatch metadata or {}.

    Raises Missing without the file, BadInput where it holds anything but tensors.
    """
    if not path.is_file():
        raise Missing(f"no checkpoint at {path}; give the path of a .safetensors, .pt or .pth file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BadInput(
            f"{path} holds more than tensors and is not opened; load it where you trust it and save its "
            "state_dict alone with torch.save or safetensors"
        ) from error
    except Exception as error:
        raise BadInput(f"{path} cannot be read as a checkpoint ({type(error).__name__}: {error})") from error
    return _strip(_unwrap(content, path)), {}


def write_network(path: Path, module: nn.Module, metadata: Mapping[str, Any], *, half: bool = False) -> None:
    """Writes a module's state dict and JSON metadata; the file appears whole or not at all.

    half: matrices and kernels in float16, everything else (batch-norm statistics, biases) in float32.
    """
    state = {}
    for key, value in module.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        small = half and value.is_floating_point() and value.ndim >= 2
        state[key] = value.detach().cpu().to(torch.float16 if small else value.dtype).contiguous()
    write_whole(path, save(state, metadata={"segpatch": json.dumps(dict(metadata))}))


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name in its folder, then renames it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise BadInput(f"cannot write {path}: {error.strerror or error}; nothing was changed") from error


def recognise(name: str, state: Mapping[str, Tensor], source: Path) -> Layout:
    """The layout of a network's checkpoint, from its keys; BadInput where none fits or its form is refused."""
    layout = network_spec(name).layout_of(state)
    if layout is None:
        layouts = MODELS[name].layouts
        known = ", ".join(layout.source for layout in layouts)
        if len(layouts) == 1 or not state:  # the nearest to a name for what is missing
            raise BadInput(_mismatch(name, source, state, _wanted(layouts[0])))
        raise BadInput(
            f"{source} is no {name} checkpoint: its keys ({_few(list(state))}) are of none of the known layouts "
            f"({known}){_likeness(name, state)}"
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
        network_spec(name)  # a mistyped name is said before a large file is read
    state, facts = read_checkpoint(path)
    network = name or facts.get("network")
    if network is None:
        raise BadInput(f"{path} does not say which network it is; give it as NAME={path}")
    spec = network_spec(network)
    if "network" not in facts:
        layout = recognise(network, state, path)
        return Opened(network, layout, layout.canonical(state), facts)
    if facts["network"] != network:
        raise BadInput(f"{path} holds {facts['network']}, not {network}; give {facts['network']}={path}")
    layout = spec.layout(facts["layout"]) if "layout" in facts else spec.default
    return Opened(network, layout, state, facts)  # segpatch writes the network's own keys


def fill(module: nn.Module, state: State, name: str, layout: Layout, source: Path) -> None:
    """Loads a canonical state into the module, every key used or known to be unused; else BadInput.

    Half-precision values become the module's own type.
    """
    wanted = module.state_dict()
    left_out = (*layout.unused, *layout.auxiliary)
    state = {k: v for k, v in state.items() if k in wanted or not k.startswith(left_out)}
    state = {k: v for k, v in state.items() if k in wanted or not k.endswith("num_batches_tracked")}
    if _missing(state, wanted) or _unknown(state, wanted) or _misshapen(state, wanted):
        raise BadInput(_mismatch(name, source, state, wanted))
    module.load_state_dict({**wanted, **state})


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return _strip(state), json.loads(metadata.get("segpatch", "{}"))
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise BadInput(f"{path} is not a whole safetensors file ({error})") from error


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise BadInput(f"{path} holds no state dict (names to tensors); save the network's state_dict()")
    return dict(content)


def _strip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefix that a wrapper left on most keys; loss buffers keep theirs and are dropped later."""
    for prefix in PREFIXES:
        if sum(key.startswith(prefix) for key in state) > len(state) // 2:
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _mismatch(name: str, source: Path, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    missing, unknown, shapes = (f(state, wanted) for f in (_missing, _unknown, _misshapen))
    hint = _likeness(name, state)
    if shapes and not missing and not unknown:
        key = shapes[0]
        return (
            f"{source} does not fit {name}: {key} is {tuple(state[key].shape)}, expected "
            f"{tuple(wanted[key].shape)}; is it of another width or number of classes?{hint}"
        )
    return (
        f"{source} is no {name} checkpoint: {len(missing)} keys missing ({_few(missing)}), "
        f"{len(unknown)} unknown ({_few(unknown)}){hint}"
    )


def _missing(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    return [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]


def _unknown(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    return [key for key in state if key not in wanted]


def _misshapen(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    return [key for key in state if key in wanted and state[key].shape != wanted[key].shape]


def _few(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (" .." if len(keys) > 3 else "") if keys else "none"


def _likeness(name: str, state: Mapping[str, Tensor]) -> str:
    """A hint at another network that fits most of the state, and better than the named one; else nothing."""
    fits = {known: _best_fit(known, state) for known in MODELS}
    best = max(fits, key=lambda known: fits[known])
    return f"; it looks like {best}" if fits[best] > max(len(state) // 2, fits[name]) else ""


def _best_fit(name: str, state: Mapping[str, Tensor]) -> int:
    """How many tensors of a state have the name and shape of one of a network's, in the layout it bears."""
    layout = MODELS[name].layout_of(state)
    if layout is None:
        return 0
    wanted = _wanted(layout)
    try:
        state = layout.canonical(state)
    except (
        BadInput,
        KeyError,
        ValueError,
        IndexError,
        RuntimeError,
    ):  # the marks of a layout, but not its tensors
        return 0
    return sum(key in wanted and value.shape == wanted[key].shape for key, value in state.items())


def _wanted(layout: Layout) -> dict[str, Tensor]:
    with torch.device("meta"):
        return layout.build().state_dict()
