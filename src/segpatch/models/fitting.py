"""Which tensors of a checkpoint a network uses, and which network a checkpoint is of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from segpatch.errors import BadInput
from segpatch.models.layouts.layout import Layout, State
from segpatch.models.networks import MODELS

UNCOUNTED = "num_batches_tracked"
"""The end of keys that no network needs for inference: they may be absent, and are left out where they are."""


class Account(NamedTuple):
    """A checkpoint's keys, as the network names them, by what becomes of them.

    training: of heads that only training needs and that are not built; unused: nothing here needs them;
    misshapen: of another shape than the network's.
    """

    used: list[str]
    training: list[str]
    unused: list[str]
    missing: list[str]
    unknown: list[str]
    misshapen: list[str]

    @property
    def fits(self) -> bool:
        return not (self.missing or self.unknown or self.misshapen)


def account(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], layout: Layout) -> Account:
    """A canonical state held against the tensors that a network wants."""
    out = Account([], [], [], [], [], [])
    for key, value in state.items():
        if key in wanted:
            (out.used if value.shape == wanted[key].shape else out.misshapen).append(key)
        elif key.startswith(layout.auxiliary):
            out.training.append(key)
        elif key.startswith(layout.unused) or key.endswith(UNCOUNTED):
            out.unused.append(key)
        else:
            out.unknown.append(key)
    out.missing.extend(key for key in wanted if key not in state and not key.endswith(UNCOUNTED))
    return out


def canonical(layout: Layout, state: Mapping[str, Tensor], name: str, source: Path) -> State:
    """A file's tensors by the keys of the network; BadInput where they have a layout's names, not its shapes."""
    try:
        return layout.canonical(state)
    except BadInput:
        raise
    except (KeyError, ValueError, IndexError, TypeError, RuntimeError) as error:
        raise BadInput(
            f"{source} is no {name} checkpoint: its keys are of {layout.source}, its tensors are not ({error})"
        ) from error


def mismatch(
    name: str, source: Path, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], of: Account
) -> str:
    """Why a file does not fit a network, in one line, and which one it looks like."""
    like = likeness(name, state)
    hint = f"; it looks like {like}" if like else ""
    if of.misshapen and not of.missing and not of.unknown:
        key = of.misshapen[0]
        return (
            f"{source} does not fit {name}: {key} is {tuple(state[key].shape)}, expected "
            f"{tuple(wanted[key].shape)}; is it of another width or number of classes?{hint}"
        )
    return (
        f"{source} is no {name} checkpoint: {len(of.missing)} keys missing ({few(of.missing)}), "
        f"{len(of.unknown)} unknown ({few(of.unknown)}){hint}"
    )


def few(keys: list[str]) -> str:
    """The first names of a list."""
    return ", ".join(keys[:3]) + (" .." if len(keys) > 3 else "") if keys else "none"


def likeness(name: str, state: Mapping[str, Tensor]) -> str | None:
    """Another network that fits most of a state, and better than the named one (or none), if there is one."""
    fits = {known: _best_fit(known, state) for known in MODELS}
    best = max(fits, key=lambda known: fits[known])
    return best if fits[best] > max(len(state) // 2, fits.get(name, 0)) else None


def wanted_by(layout: Layout) -> dict[str, Tensor]:
    """Names and shapes of all tensors of a layout's network, without memory."""
    with torch.device("meta"):
        return layout.build().state_dict()


def _best_fit(name: str, state: Mapping[str, Tensor]) -> int:
    """How many tensors of a state have the name and shape of one of a network's, in the layout it bears."""
    layout = MODELS[name].layout_of(state)
    if layout is None:
        return 0
    try:
        state = canonical(layout, state, name, Path())
    except BadInput:
        return 0
    return len(account(state, wanted_by(layout), layout).used)
