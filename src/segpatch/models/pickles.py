"""The pickle of a torch file, followed by hand: what it describes, without running anything that it asks for.

Its instructions are carried out with plain containers and descriptions of tensors as the only values, because
torch.load allocates what a description claims, and refuses the training records that published mmsegmentation
files hold beside their tensors.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

MOST_INSTRUCTIONS = 1_000_000
"""Far more than any state dict takes; a bound on the time and memory that a pickle may cost."""

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# What published files name beside their tensors: settings, scores and training records. None of it is looked up.
_LEFT_OUT = {
    *("torch Size", "torch device", *(f"torch {dtype}".replace("torch.", "") for dtype in _STORAGES.values())),
    *(f"{module} {name}" for module in ("__builtin__", "builtins") for name in ("getattr", "set")),
    *("collections Counter", "collections defaultdict", "_codecs encode", "numpy dtype", "numpy ndarray"),
    *(f"numpy.{core}.multiarray {name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    "mmengine.logging.history_buffer HistoryBuffer",
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES"),
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Storage(NamedTuple):
    """The bytes that tensors lie in, as a file describes them: name, type and number of elements."""

    name: str
    dtype: torch.dtype
    elements: int

    @property
    def bytes(self) -> int:
        return self.elements * self.dtype.itemsize


class Stored(NamedTuple):
    """A tensor as a file describes it: its storage, first element, shape and strides, all within bounds."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class WantsMore(Exception):
    """A pickle asks for something that is not part of a state dict."""


class _Name(NamedTuple):
    """A function or class that a pickle names."""

    path: str


MALFORMED = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError)
"""What `follow` raises on a pickle that makes no sense."""


def follow(stream: Any) -> tuple[Any, dict[str, Storage]]:
    """What a pickle of containers and tensors describes, and the storages that it claims, by name.

    stream: bytes, or a file that is left behind the pickle. Nothing that it names is looked up or called.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    storages: dict[str, Storage] = {}

    def above_mark() -> list[Any]:
        mark = marks.pop()
        items = stack[mark:]
        del stack[mark:]
        return items

    instructions: Any = pickletools.genops(stream)
    for count, (opcode, argument, _) in enumerate(instructions):
        name = opcode.name
        if count >= MOST_INSTRUCTIONS:
            raise WantsMore(f"over {MOST_INSTRUCTIONS} instructions")
        if name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "TUPLE":
            stack.append(tuple(above_mark()))
        elif name in ("SETITEM", "SETITEMS"):
            items = above_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            _set(stack[-1], zip(items[::2], items[1::2], strict=True))
        elif name in ("APPEND", "APPENDS"):
            items = above_mark() if name == "APPENDS" else [stack.pop()]
            if isinstance(stack[-1], list):
                stack[-1].extend(items)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            if name == "STACK_GLOBAL":
                argument = " ".join((stack.pop(-2), stack.pop()))
            stack.append(_known(argument))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = stack.pop(), stack.pop()
            stack.append(_made(function, arguments))
        elif name == "BUILD":
            stack.pop()  # attributes of an object: of a state dict, its versions
        elif name == "BINPERSID":
            storage = _storage(stack.pop())
            if storages.setdefault(storage.name, storage) != storage:
                raise ValueError(f"storage {storage.name} is described in two ways")
            stack.append(storage)
        elif name == "STOP":
            return stack.pop(), storages
        elif name not in ("PROTO", "FRAME"):
            raise WantsMore(f"instruction {name}")
    raise ValueError("it ends too early")


def _known(path: str) -> _Name:
    module, _, name = path.partition(" ")
    ours = module == "torch" and name in _STORAGES
    if ours or path in _LEFT_OUT or path in _MADE:
        return _Name(path)
    raise WantsMore(path.replace(" ", "."))


def _made(function: Any, arguments: Any) -> Any:
    """The value of a call that a pickle asks for; None for what is left out."""
    if not isinstance(function, _Name) or not isinstance(arguments, tuple):
        return None
    return _MADE[function.path](*arguments) if function.path in _MADE else None


def _ordered(*items: Any) -> dict[Any, Any]:
    out: dict[Any, Any] = {}
    _set(out, items[0] if items else ())
    return out


def _set(container: Any, pairs: Any) -> None:
    if isinstance(container, dict):  # a key of another type, such as a tuple, can take forever to hash
        container.update((key, value) for key, value in pairs if isinstance(key, str | int | float))


def _storage(claim: Any) -> Storage:
    kind, of, name, _, elements, *view = claim
    if kind != "storage" or any(part is not None for part in view) or not isinstance(name, str):
        raise ValueError("a storage is described in an unknown way")
    return Storage(name, _STORAGES[of.path.removeprefix("torch ")], _count(elements))


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Stored:
    if not isinstance(storage, Storage) or len(shape) != len(stride):
        raise ValueError("a tensor has no storage, or not as many strides as sides")
    stored = Stored(storage, _count(offset), tuple(map(_count, shape)), tuple(map(_count, stride)))
    elements = math.prod(stored.shape)
    last = stored.offset + sum((n - 1) * step for n, step in zip(stored.shape, stored.stride, strict=True))
    if elements and (last >= storage.elements or elements > storage.elements):
        raise ValueError(f"a tensor of shape {stored.shape} claims more than its storage's {storage.elements}")
    return stored


def _count(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError("a size is no number above 0")
    return value


_MADE: dict[str, Callable[..., Any]] = {
    "collections OrderedDict": _ordered,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": lambda tensor, *_: tensor,
}
