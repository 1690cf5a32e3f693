"""A layout: how one source of checkpoints names a network's tensors, and which variant of it they belong to."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from segpatch.errors import BadInput
from segpatch.models.victim import IMAGENET_MEAN, IMAGENET_STD

State = dict[str, Tensor]
Rules = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One source's form of a network.

    source: its name, such as "official" or "mmsegmentation". build(classes, auxiliary=...): the variant of the
    network that the source's weights belong to, random weights. marks: keys of the file that tell this layout
    from the network's others, all present. rename: regular expressions and what replaces them, each applied in
    turn to every key; what comes out are the keys of the network built here. zero_biases: biases that the source
    leaves out where the network has them. convert: what renaming cannot say, on the renamed state.
    refuse: why a file that bears the marks is of no use, or None.

    classifier: key whose first axis is the number of classes. auxiliary: prefixes of the heads that only training
    needs. unused: prefixes of keys that nothing here needs. These three are keys of the network.
    mean, std: of the input, for images in [0, 1], RGB.
    """

    source: str
    build: Callable[..., nn.Module]
    classifier: str
    marks: tuple[str, ...] = ()
    rename: Rules = ()
    zero_biases: tuple[str, ...] = ()
    convert: Callable[[State], State] | None = None
    refuse: Callable[[Mapping[str, Tensor]], str | None] | None = None
    auxiliary: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def bears(self, state: Mapping[str, Tensor]) -> bool:
        """Whether a file's keys bear this layout's marks."""
        return all(mark in state for mark in self.marks)

    def canonical(self, state: Mapping[str, Tensor]) -> State:
        """A file's tensors by the keys of the network; BadInput where two keys become one."""
        out: State = {}
        for key, value in state.items():
            name = key
            for pattern, replacement in self.rename:
                name = re.sub(pattern, replacement, name)
            if name in out:
                raise BadInput(f"the keys of this {self.source} checkpoint overlap: two lead to {name}")
            out[name] = value
        for bias in self.zero_biases:
            weight = out.get(f"{bias.removesuffix('bias')}weight")
            if weight is not None and bias not in out:
                out[bias] = weight.new_zeros(len(weight))
        return self.convert(out) if self.convert else out

    def build_for(self, state: Mapping[str, Tensor], classes: int, **variant: Any) -> nn.Module:
        """The bare network that a canonical state asks for: auxiliary heads only where it holds them.

        variant: arguments of `build` that the keys do not show.
        """
        return self.build(classes, auxiliary=any(key.startswith(self.auxiliary) for key in state), **variant)
