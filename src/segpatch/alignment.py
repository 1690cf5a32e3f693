"""Do networks pull a patch the same way? Cosines between the patch gradients of different networks.

arXiv:2502.16012 explains that its patches do not travel by gradients that do not agree between architectures; it
does not measure them. Two gradients of the same scenes also agree in what is particular to these, which is of no
use to a patch on other scenes: so gradients of different draws are compared. A gradient of few scenes is noisy,
and noise lowers such a cosine: each network's agreement with itself stands beside that with others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from segpatch.attack_config import AttackConfig
from segpatch.attack_step import Samples, draw_samples, network_gradients, scene_gradients
from segpatch.errors import BadInput
from segpatch.losses import LOSSES
from segpatch.models.folding import folded
from segpatch.models.victim import Victim
from segpatch.types import LabelledImages

_NORMAL = 1.96


@dataclass(frozen=True)
class Alignment:
    """Agreement of V networks over the same S draws of scenes.

    cosine (V, V): between the gradients of two networks summed over all draws, of which only the products of
    different draws count (times S / (S - 1), for those that are left out): what two networks share on any scenes.
    low, high: its 95 % interval by the jackknife over draws, rather too wide than too narrow (Efron and Stein
    1981). On the diagonal the same of a network and itself: 1 without noise; the root of the product of theirs is
    about the most that noise leaves two networks. together (V, V): as cosine, with the products of the same draw,
    whose noise is shared. draws (V, V): the mean cosine between gradients of the same single draw. NaN for a
    network whose gradients are all 0.
    """

    cosine: Tensor
    low: Tensor
    high: Tensor
    together: Tensor
    draws: Tensor

    @property
    def itself(self) -> Tensor:
        """The diagonal of cosine (V,)."""
        return self.cosine.diagonal()


def patch_gradients(
    victims: Sequence[Victim],
    images: LabelledImages,
    pixels: Tensor | None,
    config: AttackConfig,
    draws: int,
    on_draw: Callable[[int], None] | None = None,
) -> Tensor:
    """Gradients (S, V, D), float64, of the loss by a patch (3, h, w), per draw of scenes and network, D = 3hw.

    config: a resolved one, whose scenes, loss and batch are drawn; draw number s is that of training step s.
    pixels None: on clean scenes, by what is seen in the patch's place, which takes a config without patch EOT.
    """
    if pixels is None and config.patch_eot is not None:
        raise BadInput("the gradient on clean scenes needs a patch that is pasted as it is; give no patch EOT")
    fast = [folded(victim) for victim in victims]
    device = fast[0].device
    out = []
    for draw in range(draws):
        samples = partial(draw_samples, images, range(len(images)), draw, config, device=device)
        if pixels is None:
            drawn = samples()
            found = torch.stack([_on_clean(victim, drawn, config) for victim in fast])
        else:
            found = network_gradients(fast, pixels.to(device), config, samples, step=draw).directions
        out.append(found.flatten(1).double().cpu())
        if on_draw:
            on_draw(draw + 1)
    return torch.stack(out)


def _on_clean(victim: Victim, samples: Samples, config: AttackConfig) -> Tensor:
    """The gradient (3, h, w) of the mean loss by the pixels under the patch, summed over the scenes."""
    rules = LOSSES[config.loss].rules()
    (whole, *_), tally = scene_gradients(
        victim, victim.prepared(samples.scenes), samples.labels, config, rules[:1]
    )
    regions = [victim.gradient_of_images(one[look.at]) for one, look in zip(whole, samples.looks, strict=True)]
    return torch.stack(regions).sum(0) / tally[-2].clamp(min=1).to(whole)


def alignment(gradients: Tensor) -> Alignment:
    """The agreement of networks, from their gradients (S, V, D) over S draws, at least 4."""
    count = len(gradients)
    if count < 4:
        raise BadInput(f"agreement between networks needs at least 4 draws of scenes, got {count}")
    # The cosine of any two sums over draws follows from the inner products of single draws.
    products = torch.einsum("svd,twd->vwst", gradients, gradients)
    whole = torch.ones(1, count, dtype=products.dtype)
    (cosine,), (together,) = _cosines(products, whole)
    deleted, _ = _cosines(products, 1 - torch.eye(count, dtype=products.dtype))
    # Drawing with replacement would double some of the noise, and lower every cosine with it.
    error = ((count - 1) * deleted.var(0, correction=0)).sqrt()
    units = F.normalize(gradients, dim=2)
    return Alignment(
        cosine=cosine,
        low=cosine - _NORMAL * error,
        high=cosine + _NORMAL * error,
        together=together,
        draws=torch.einsum("svd,swd->vw", units, units) / count,
    )


def _cosines(products: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines (R, V, V) of sums over the draws that are kept[r, s], 1 or 0, of inner products (V, V, S, S): of
    different draws alone, and of all."""
    sums = torch.einsum("rs,vwst,rt->rvw", kept, products, kept)
    same = torch.einsum("rs,vwss->rvw", kept, products)
    lengths = sums.diagonal(dim1=1, dim2=2).sqrt()
    scale = lengths[:, :, None] * lengths[:, None, :]
    count = kept.sum(1)[:, None, None]
    return (sums - same) * (count / (count - 1)) / scale, sums / scale
