"""Intervals, tests and verdicts from per-image confusion matrices.

The bootstrap resamples images (for video: blocks of consecutive frames, which are not independent) and
recomputes mIoU from the summed confusion matrices of each resample. It is paired: clean, random and trained
rows of one resample hold the same images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from segpatch.metrics import miou

REPLICATES = 2000
LEAST_BLOCKS = 8
"""Blocks of images below which no verdict is given: an interval from fewer is too narrow to be trusted."""
Verdict = Literal["transfers", "does not", "undecided"]


def block_ids(groups: Sequence[str], length: int) -> Tensor:
    """A block number (N,) int64 per image: runs of `length` consecutive images of one group (drive, city)."""
    blocks: list[int] = []
    block, filled = -1, length
    for index, group in enumerate(groups):
        if filled == length or (index and group != groups[index - 1]):
            block, filled = block + 1, 0
        blocks.append(block)
        filled += 1
    return torch.tensor(blocks, dtype=torch.int64)


def count_blocks(groups: Sequence[str], length: int) -> int:
    """How many blocks `block_ids` makes of the images."""
    return int(block_ids(groups, length).max()) + 1


def thinned(block: int, images: int, kept: int) -> int:
    """How many of `kept` images, evenly spaced among `images`, belong together where `block` consecutive ones
    do."""
    return max(1, -(-block * kept // images))


def resample_counts(blocks: Tensor, replicates: int, generator: np.random.Generator) -> Tensor:
    """How often each image occurs in each resample (R, N) float64: whole blocks drawn with replacement."""
    count = int(blocks.max()) + 1
    drawn = generator.multinomial(count, np.full(count, 1 / count), size=replicates)
    return torch.from_numpy(drawn).double()[:, blocks]


def resampled_miou(confusions: Tensor, counts: Tensor) -> Tensor:
    """mIoU (R,) of each resample, of per-image confusion matrices (N, K, K) and counts (R, N)."""
    n, k, _ = confusions.shape
    return miou((counts @ confusions.double().view(n, k * k)).view(-1, k, k))


def interval(values: Tensor, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of bootstrap values (R,). Source: Efron and Tibshirani 1993, chapter 13."""
    tail = (1 - level) / 2
    low, high = torch.quantile(values, torch.tensor([tail, 1 - tail], dtype=values.dtype)).tolist()
    return low, high


def p_value(value: float, resampled: Tensor, blocks: int) -> float:
    """Two-sided p-value that a value is 0, from its resamples (R,), each of so many blocks drawn.

    Student's t with blocks - 1 degrees of freedom, the standard error being the deviation of the resamples.
    Counting resamples on the other side of 0 could not go below 2 / (R + 1), which no correction for hundreds
    of cells survives. 1 where there is no value, in most resamples none, or a single block. Source: Efron and
    Tibshirani 1993, chapter 12.
    """
    from scipy.special import stdtr

    known = resampled[~resampled.isnan()]
    if math.isnan(value) or blocks < 2 or len(known) < max(2, len(resampled) / 2):
        return 1.0
    error = float(known.std()) * math.sqrt(blocks / (blocks - 1))  # resampling n of n understates it by this much
    if error == 0:
        return float(value == 0)
    return float(2 * stdtr(blocks - 1, -abs(value) / error))


def over_seeds(values: Tensor, generator: np.random.Generator) -> Tensor:
    """The mean over seeds in each resample (R, S) -> (R,), seeds drawn again too: S - 1 of them, which gives
    their mean the variance that it has. Source: Rao and Wu 1988, for clusters.
    """
    resamples, seeds = values.shape
    picked = generator.integers(seeds, size=(resamples, max(1, seeds - 1)))
    return values.gather(1, torch.from_numpy(picked)).mean(1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given. Source: Holm 1979."""
    order = np.argsort(p_values)
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def verdict(low: float, high: float, margin: float = 0.01, blocks: int = LEAST_BLOCKS) -> Verdict:
    """ "transfers" (interval above the margin), "does not" (inside +-margin) or "undecided".

    The margin is what arXiv:2502.16012 calls a minimal change (below 0.01 mIoU). blocks: that the interval was
    resampled from; with fewer than LEAST_BLOCKS all is undecided.
    """
    if blocks < LEAST_BLOCKS:
        return "undecided"
    if low > margin:
        return "transfers"
    return "does not" if -margin <= low and high <= margin else "undecided"


def spearman(x: Tensor, y: Tensor) -> Tensor:
    """Spearman's rank correlation (...) in [-1, 1] of values (..., K); equal values share their mean rank.

    Pairs with a NaN are left out; NaN where fewer than two differ. Source: Spearman 1904.
    """
    left_out = x.isnan() | y.isnan()
    a, b = (_centred_ranks(values.masked_fill(left_out, torch.nan)) for values in (x, y))
    return ((a * b).nansum(-1) / ((a * a).nansum(-1) * (b * b).nansum(-1)).sqrt()).clamp(-1, 1)


def rank_interval(rho: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a rank correlation over `count` values drawn from many; (-1, 1) of fewer than four.

    On Fisher's scale with the variance 1.06 / (count - 3). Source: Fieller, Hartley and Pearson 1957.
    """
    if count < 4:
        return -1.0, 1.0
    middle = math.atanh(max(-1 + 1e-9, min(1 - 1e-9, rho)))
    half = 1.96 * math.sqrt(1.06 / (count - 3))
    return math.tanh(middle - half), math.tanh(middle + half)


def _centred_ranks(values: Tensor) -> Tensor:
    """Ranks (..., K) minus their mean; NaN where the value is, which ranks nothing since it equals nothing."""
    own, other = values[..., :, None], values[..., None, :]
    ranks = (other < own).sum(-1) + ((other == own).sum(-1) + 1) / 2
    ranks = ranks.double().masked_fill(values.isnan(), torch.nan)
    return ranks - ranks.nanmean(-1, keepdim=True)
