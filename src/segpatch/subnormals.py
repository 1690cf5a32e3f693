"""Numbers too small to be kept in full, on which a processor may work many times slower: taken for 0 instead.

The gradient of a pixel that a network is sure of is that small, and a backward pass full of such takes half as
long again on an Intel processor. In a library it would change what the code of others computes: the commands ask.
"""

from __future__ import annotations


def flush() -> bool:
    """Takes subnormal numbers for 0 in this thread and those that it starts; whether the processor can.

    To be called before torch computes anything: threads that it has already started go on as they are.
    """
    import torch

    return torch.set_flush_denormal(True)
