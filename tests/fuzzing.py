"""Changing good files at random, and what their readers may then do: read them, or raise a SegpatchError."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segpatch.errors import SegpatchError

MINUTES = float(os.environ.get("SEGPATCH_FUZZ_MINUTES", "0"))
EXAMPLES = 20 if MINUTES else 40
MOST_SECONDS = 60
"""Of one example, on a busy machine too: what takes longer is a reader that hangs."""
MOST_BYTES = 4 * 1024**3
"""Of memory that the examples may take on top of what the process has."""
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([10**400, -1, 256, "\ud800", "a\nb\x1b[1m", "../../x", "<b>"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def mutated(data: st.DataObject, content: bytes) -> bytes:
    """Some bytes cut, changed, put in, or moved from elsewhere."""
    out = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(out)))
        kind = data.draw(st.sampled_from(["cut", "set", "insert", "splice"]))
        if kind == "cut":
            del out[at : at + data.draw(st.integers(1, len(out) + 1))]
        elif kind == "set":
            out[at : at + 1] = data.draw(st.binary(min_size=1, max_size=4))
        elif kind == "insert":
            out[at:at] = data.draw(st.binary(min_size=1, max_size=9))
        else:
            source = data.draw(st.integers(0, len(out)))
            out[at : at + 8] = out[source : source + 8]
    return bytes(out)


def changed(data: st.DataObject, content: Any) -> Any:
    """JSON with one value, anywhere in it, replaced or removed."""
    if isinstance(content, dict | list) and content and data.draw(st.integers(0, 5)):
        key = data.draw(st.sampled_from(sorted(content) if isinstance(content, dict) else range(len(content))))
        if data.draw(st.integers(0, 6)) == 0:
            if isinstance(content, dict):
                return {k: v for k, v in content.items() if k != key}
            return content[:key] + content[key + 1 :]
        if isinstance(content, dict):
            return {**content, key: changed(data, content[key])}
        return [*content[:key], changed(data, content[key]), *content[key + 1 :]]
    return data.draw(JSON)


def as_toml(data: st.DataObject, whole: bytes) -> bytes:
    """As `as_json` is of JSON: one value of a TOML file, anywhere in it, replaced or removed."""
    content = changed(data, tomllib.loads(whole.decode()))
    lines = (
        [f"{json.dumps(key)} = {_toml(value)}" for key, value in content.items()]
        if isinstance(content, dict)
        else [_toml(content)]
    )
    return "\n".join(lines).encode()


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value) if isinstance(value, float) else json.dumps(value)  # nan, not NaN


def fuzz(
    path: Path,
    read: Callable[[], object],
    spoil: Callable[[st.DataObject, bytes], bytes] = mutated,
    files: int = 1,
) -> None:
    """Reads a spoilt file again and again, and the file is whole again afterwards.

    Minutes are of processor time, so that a busy machine takes none of them away.
    The `files` of one reader share them.
    """
    whole = path.read_bytes()
    start = time.process_time()
    count = 0

    @settings(max_examples=EXAMPLES, deadline=None, database=None,
              derandomize=not MINUTES, suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.data())
    def check(data: st.DataObject) -> None:
        nonlocal count
        count += 1
        path.write_bytes(spoil(data, whole))
        try:
            with bounded_time():
                read()
        except SegpatchError as error:
            assert "\n" not in str(error).strip()

    try:
        with bounded_memory():
            check()
            while time.process_time() - start < 60 * MINUTES / files:
                check()
        if MINUTES:
            name = os.environ["PYTEST_CURRENT_TEST"].partition("::")[2]
            print(
                f"{name} {path.name}: {count} examples in {(time.process_time() - start) / 60:.2f} minutes",
                flush=True,
            )
    finally:
        path.write_bytes(whole)


@contextlib.contextmanager
def bounded_time() -> Iterator[None]:
    """Fails the test where what is inside takes longer than MOST_SECONDS; which no reader catches."""

    def stop(number: int, frame: object) -> None:
        pytest.fail(f"an example took more than {MOST_SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def bounded_memory() -> Iterator[None]:
    """Lets the process take MOST_BYTES more of memory, and no more: beyond that, what asks for it fails."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def as_json(data: st.DataObject, whole: bytes) -> bytes:
    return json.dumps(changed(data, json.loads(whole))).encode()
