"""What a checkpoint file is: its form, what becomes of each key, and which network it fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segpatch.data.classes import CITYSCAPES
from segpatch.errors import SegpatchError
from segpatch.models.checkpoints import file_sha256, read_checkpoint
from segpatch.models.fitting import Account, account, canonical, few, likeness
from segpatch.models.layouts.layout import Layout
from segpatch.models.load import load_victim
from segpatch.models.networks import MODELS, network_name
from segpatch.models.tensor_files import container
from segpatch.models.victim import Victim


@dataclass(frozen=True)
class Inspection:
    """A file held against a network.

    container, bytes, sha256, tensors: of the file. layout: the source whose names its keys have, keys: what
    becomes of them, training: how many of those used are of heads that only training needs; None and 0 where the
    keys are of no layout of the network. victim: what the file gives, or None, and then problem says why.
    """

    path: Path
    network: str
    container: str
    bytes: int
    sha256: str
    tensors: int
    layout: str | None
    keys: Account | None
    training: int
    victim: Victim | None
    problem: str | None

    def describe(self) -> list[tuple[str, str]]:
        """What there is to say, as headings and lines."""
        lines = [
            ("file", f"{self.path}, {self.bytes / 1e6:.1f} MB, {self.container}, {self.tensors} tensors"),
            ("SHA-256", self.sha256),
            ("network", f"{self.network}, {f'layout {self.layout}' if self.layout else 'in no layout of it'}"),
        ]
        if self.keys:
            used, training, unused, *rest = self.keys
            heads = f" ({self.training} of heads for training)" if self.training else ""
            lines.append(("keys", f"{len(used)} used{heads}, {len(training) + len(unused)} left out"))
            names = ("missing", "unknown", "of another shape")
            lines += [(name, f"{len(keys)}: {few(keys)}") for name, keys in zip(names, rest, strict=True) if keys]
        if self.victim:
            about = self.victim.provenance
            lines.append(("classes", f"{len(self.victim.classes)} ({self.victim.classes.name})"))
            lines.append(("inference", ", ".join(f"{k} {v}" for k, v in self.victim.inference.items())))
            taken = f", taken for {about.taken_for} by its file name" if about.taken_for else ""
            miou = f", mIoU {about.clean_miou:.4f} on {about.clean_on}" if about.clean_miou else ""
            lines.append(("weights", f"trained on {about.trained_on or 'unknown data'}{miou}{taken}"))
            if about.licence:
                lines.append(("licence", about.licence))
        return lines


def inspect(name: str, path: Path) -> Inspection:
    """What a file is, held against a network; Missing without it, BadInput where it is no checkpoint at all."""
    form = container(path)
    state, facts = read_checkpoint(path)
    victim = layout = keys = problem = None
    network = name
    try:
        network = network_name(name)
        layout = _layout(network, state, facts)
        if layout:
            keys = _keys(network, layout, state, path, ours="network" in facts)
        victim = load_victim(f"{network}={path}")
    except SegpatchError as error:
        problem = str(error)
        like = likeness(network, state)
        if like and f"looks like {like}" not in problem:
            problem += f"; the file looks like {like}"
    return Inspection(
        path=path,
        network=network,
        container=form,
        bytes=path.stat().st_size,
        sha256=file_sha256(path),
        tensors=len(state),
        layout=layout.source if layout else None,
        keys=keys,
        training=sum(key.startswith(layout.auxiliary) for key in keys.used) if layout and keys else 0,
        victim=victim,
        problem=problem,
    )


def _layout(network: str, state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Layout | None:
    if "network" not in facts:
        return MODELS[network].layout_of(state)
    if facts["network"] != network:
        return None
    return MODELS[network].layout(facts["layout"]) if "layout" in facts else MODELS[network].default


def _keys(network: str, layout: Layout, state: Mapping[str, Tensor], path: Path, *, ours: bool) -> Account:
    """What becomes of a file's keys; `ours` are the network's own already."""
    if not ours:
        state = canonical(layout, state, network, path)
    head = state.get(layout.classifier)
    classes = len(head) if head is not None and head.ndim and len(head) else len(CITYSCAPES)
    with torch.device("meta"):
        return account(state, layout.build_for(state, classes).state_dict(), layout)
