"""Batch norms folded into the convolutions before them: the same function in fewer passes over memory."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from segpatch.models.victim import Victim

TOLERANCE = 1e-3
"""Of the spread of the logits: far above what rounding does, far below what a wrong fold does."""


def folded(victim: Victim) -> Victim:
    """The victim with every batch norm that follows a convolution folded into it; the given one is not changed.

    The pairs are found by running a small random image. Where the folded copy does not give the same logits (a
    convolution whose output is used elsewhere too), or the module cannot be copied, the victim itself comes back.
    """
    done = getattr(victim.module, "folded", False)
    if done or not any(isinstance(module, nn.BatchNorm2d) for module in victim.module.modules()):
        return victim
    try:
        fast = replace(victim, module=copy.deepcopy(victim.module))
    except (RuntimeError, TypeError):  # torch and pickle refuse what cannot be copied
        return victim
    weight = next(victim.module.parameters())
    probe = torch.rand(1, 3, 128, 192, generator=torch.Generator().manual_seed(0)).to(weight.device)
    with torch.inference_mode():
        wanted = victim.raw(probe).logits
        pairs = _pairs(fast, probe)
    for conv, norm in pairs:
        _fold(fast.module, conv, norm)
    fast.module.requires_grad_(False)
    fast.module.folded = True  # type: ignore[assignment]
    with torch.inference_mode():
        same = (fast.raw(probe).logits - wanted).abs().max() <= TOLERANCE * wanted.std()
    return fast if bool(same) else victim


def _pairs(victim: Victim, probe: Tensor) -> list[tuple[str, str]]:
    """Names of each convolution and the batch norm that is given its output, where both run once."""
    maker: dict[int, str] = {}
    kept: list[Tensor] = []  # a freed tensor's id could be given to another
    runs: dict[str, int] = {}
    pairs: list[tuple[str, str]] = []
    hooks = []
    for name, module in victim.module.named_modules():
        if isinstance(module, nn.Conv2d):

            def made(_: nn.Module, __: object, output: Tensor, name: str = name) -> None:
                maker[id(output)] = name
                kept.append(output)
                runs[name] = runs.get(name, 0) + 1

            hooks.append(module.register_forward_hook(made))
        elif isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:

            def given(_: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                runs[name] = runs.get(name, 0) + 1
                if id(inputs[0]) in maker:
                    pairs.append((maker[id(inputs[0])], name))

            hooks.append(module.register_forward_pre_hook(given))
    victim.raw(probe)
    for hook in hooks:
        hook.remove()
    return [(conv, norm) for conv, norm in pairs if runs[conv] == runs[norm] == 1]


def _fold(module: nn.Module, conv_name: str, norm_name: str) -> None:
    conv, norm = module.get_submodule(conv_name), module.get_submodule(norm_name)
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None and norm.running_var is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    parent, _, name = norm_name.rpartition(".")
    setattr(module.get_submodule(parent), name, nn.Identity())
