"""The golden values in golden/, and the recipe that made them from networks that are not in this project.

golden/KEYS.txt.gz: names and shapes of a published checkpoint (see `zless`). golden_logits.json: some output
values of each reference network, in float64 and eval mode, with the weights and the input below.
hrnet_official_logits.json holds two more, measured in the same way with HRNet/HRNet-Semantic-Segmentation 0bbb288
(torch 2.13.0, CPU).
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = 1e-9  # of the largest output


def published_keys(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes in the order of the published state dict."""
    lines = gzip.decompress((GOLDEN / f"{name}.txt.gz").read_bytes()).decode().splitlines()
    pairs = (line.split("\t") for line in lines if not line.startswith("#"))
    return {key: tuple(json.loads(shape)) for key, shape in pairs}


def keys_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def fill(network: nn.Module, source_keys: Mapping[str, str] | None = None) -> nn.Module:
    """The network in float64 and eval mode, each tensor drawn from a generator seeded with its key.

    source_keys: our key to the key it is drawn by, where the source uses other names.
    """
    state = network.double().eval().state_dict()
    with torch.no_grad():
        for key, value in state.items():
            if value.is_floating_point():
                value.copy_(_draw(source_keys[key] if source_keys else key, tuple(value.shape)))
    return network


def published_state(name: str) -> dict[str, Tensor]:
    """What a checkpoint with these keys would hold: every tensor drawn by the recipe, in float64.

    The recipe's keys have no wrapper prefix, which one of the published files does have.
    """
    return {
        key: torch.zeros(shape, dtype=torch.int64)
        if key.endswith("num_batches_tracked")
        else _draw(key.removeprefix("module."), shape)
        for key, shape in published_keys(name).items()
    }


def golden_input(name: str) -> Tensor:
    shape = _entry(name)["input"]
    return torch.from_numpy(np.random.Generator(np.random.PCG64(12345)).standard_normal(shape))


def assert_golden(name: str, outputs: Iterable[Tensor]) -> None:
    """Fails unless every output has the shape and the values of the reference, in its order."""
    for got, wanted in zip(outputs, _entry(name)["outputs"], strict=True):
        assert list(got.shape) == wanted["shape"]
        values = got.detach().contiguous().flatten().numpy()
        limit = TOLERANCE * wanted["absmax"]
        assert abs(np.abs(values).max() - wanted["absmax"]) <= limit
        assert abs(values.mean() - wanted["mean"]) <= limit
        assert abs(values.std() - wanted["std"]) <= limit
        assert np.abs(values[wanted["idx"]] - wanted["val"]).max() <= limit


def _draw(key: str, shape: tuple[int, ...]) -> Tensor:
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode("utf-8"))))
    one_axis = len(shape) == 1
    if key.endswith("running_var") or (one_axis and key.endswith("weight")):
        values = rng.uniform(0.5, 1.5, shape)
    elif one_axis:
        values = 0.1 * rng.standard_normal(shape)
    else:
        values = rng.standard_normal(shape) * np.sqrt(1.5 / np.prod(shape[1:]))
    return torch.from_numpy(values)


def golden_entries() -> dict[str, Any]:
    """What is stored of each reference network, by the name of its key list."""
    return {k: v for file in GOLDEN.glob("*_logits.json") for k, v in json.loads(file.read_text()).items()}


def _entry(name: str) -> Any:
    return golden_entries()[name]
