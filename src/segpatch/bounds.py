"""What the numbers of a configuration may be: finite, of their kind and within bounds; else one line says so."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real

from segpatch.errors import BadInput

PRECISIONS = ("fp32", "bf16")
MOST = 10**9
"""Of anything that is only counted: steps, epochs, images."""
MOST_BATCH = 65_536
MOST_SIDE, MOST_PIXELS = 16_384, 8_192 * 8_192
"""Of a picture, in pixels, and of what is cut from it or laid on it; no driving camera comes near."""
MOST_SEED = 2**32 - 1
"""One word of the addresses that draws have, see `segpatch.eot.generator_at`."""
_SHOWN = 60  # letters of what came


def check_number(
    name: str, value: float, low: float, high: float, *, above: bool = False, below: bool = False
) -> None:
    """BadInput unless a number lies in [low, high]; above, below: without low, without high. NaN lies nowhere."""
    inside = isinstance(value, Real) and low <= value <= high
    if not inside or (above and value == low) or (below and value == high):
        opening, closing = "(" if above else "[", ")" if below else "]"
        raise BadInput(f"{name} must be in {opening}{low:g}, {high:g}{closing}, got {_brief(value)}")


def check_whole(name: str, value: int, low: int = 0, high: int = MOST) -> None:
    """BadInput unless a value is a whole number from low to high."""
    if not isinstance(value, Integral) or not low <= value <= high:
        raise BadInput(f"{name} must be a whole number from {low} to {high}, got {_brief(value)}")


def check_whole_or_none(name: str, value: int | None, low: int = 1, high: int = MOST) -> None:
    """The same of a value that may be None."""
    if value is not None:
        check_whole(name, value, low, high)


def check_pair(name: str, pair: Sequence[float], low: float, high: float, *, above: bool = False) -> None:
    """BadInput unless two numbers lie in [low, high], the first one no larger; above: without low."""
    if len(pair) != 2:
        raise BadInput(f"{name} must be two numbers (low, high), got {_brief(pair)}")
    for value in pair:
        check_number(name, value, low, high, above=above)
    if pair[0] > pair[1]:
        raise BadInput(f"{name} must be (low, high), the lower number first, got {_brief(pair)}")


def check_size(name: str, size: tuple[int, int]) -> None:
    """BadInput unless a height and a width in pixels are those of an image that can be."""
    if len(size) != 2:
        raise BadInput(f"{name} must be (height, width) in pixels, got {_brief(size)}")
    for side in size:
        check_whole(f"each side of {name}", side, 1, MOST_SIDE)
    if size[0] * size[1] > MOST_PIXELS:
        raise BadInput(
            f"{name} may hold {MOST_PIXELS // 1024**2} million pixels, got {size[0]}x{size[1]}; make it smaller"
        )


def check_precision(precision: str) -> None:
    """BadInput unless a precision is one of PRECISIONS; another one would pass for fp32."""
    if precision not in PRECISIONS:
        raise BadInput(f"precision must be {' or '.join(PRECISIONS)}, got {_brief(precision)}")


def check_seed(seed: int) -> None:
    """BadInput unless a seed is one."""
    check_whole("seed", seed, 0, MOST_SEED)


def check_seeds(seeds: Sequence[int]) -> None:
    """BadInput unless there is a seed, all are seeds, and no two are the same."""
    for seed in seeds:
        check_seed(seed)
    if not seeds or len(set(seeds)) < len(seeds):
        raise BadInput(f"seeds must be one or more, and different; got {_brief(seeds)}")


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}.. ({len(text)} letters)"
