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
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from segpatch.errors import BadInput, Missing
from segpatch.models.networks import MODELS, NetworkSpec, network_spec

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


def fill(module: nn.Module, state: dict[str, Tensor], name: str, spec: NetworkSpec, source: Path) -> None:
    """Loads the state into the module, every key used or known to be droppable; else BadInput.

    Half-precision values become the module's own type.
    """
    wanted = module.state_dict()
    state = {k: v for k, v in state.items() if k in wanted or not k.startswith(spec.droppable)}
    state = {k: v for k, v in state.items() if k in wanted or not k.endswith("num_batches_tracked")}
    missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in wanted]
    shapes = [k for k in state if k in wanted and state[k].shape != wanted[k].shape]
    if missing or unexpected or shapes:
        raise BadInput(_mismatch(name, source, state, wanted, missing, unexpected, shapes))
    module.load_state_dict({**wanted, **state})


def build_for(name: str, state: Mapping[str, Tensor], classes: int) -> nn.Module:
    """The bare network a state dict asks for: auxiliary heads only where it holds them."""
    spec = network_spec(name)
    with torch.device("meta"):
        keys = spec.build(classes).state_dict()
    auxiliary = any(key in state for key in keys if key.startswith(spec.droppable))
    return spec.build(classes, auxiliary=auxiliary)


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


def _mismatch(
    name: str,
    source: Path,
    state: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    missing: list[str],
    unexpected: list[str],
    shapes: list[str],
) -> str:
    hint = _likeness(name, state, wanted)
    if shapes and not missing and not unexpected:
        key = shapes[0]
        return (
            f"{source} does not fit {name}: {key} is {tuple(state[key].shape)}, expected "
            f"{tuple(wanted[key].shape)}; is it of another width or number of classes?{hint}"
        )
    example = f"{(missing or unexpected)[0]} is {'missing' if missing else 'not known'}"
    return (
        f"{source} is no {name} checkpoint: {len(missing)} keys missing, {len(unexpected)} unknown "
        f"({example}){hint}"
    )


def _likeness(name: str, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """A hint at another network that fits most of the state, and better than the wanted one; else nothing."""
    fits = {}
    for other in (known for known in MODELS if known != name):
        with torch.device("meta"):
            fits[other] = _fitting(state, MODELS[other].build().state_dict())
    best = max(fits, key=lambda other: fits[other])
    likely = fits[best] > max(len(state) // 2, _fitting(state, wanted))
    return f"; it looks like {best}" if likely else ""


def _fitting(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> int:
    """How many tensors of a state have the name and shape of one that is wanted."""
    return sum(key in wanted and value.shape == wanted[key].shape for key, value in state.items())
