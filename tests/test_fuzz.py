"""Readers of files from strangers, on valid files that were cut, changed, lengthened and mixed: what cannot be
read is a SegpatchError, and nothing else comes out.

A few dozen examples of each reader, or SEGPATCH_FUZZ_MINUTES of them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from fabricate import write_folder
from segpatch.cli.study import read_plan
from segpatch.data import open_data
from segpatch.data.files import label_table, read_image, read_labels
from segpatch.errors import SegpatchError
from segpatch.models.checkpoints import open_network, read_checkpoint
from segpatch.patch import grey_patch, load_patch, save_patch
from segpatch.report import write_report
from segpatch.results import read_scores
from segpatch.victims import read_victims
from test_report import write_run

MINUTES = float(os.environ.get("SEGPATCH_FUZZ_MINUTES", "0"))
EXAMPLES = 200 if MINUTES else 40
VICTIMS = """[victim.pidnet-s]
checkpoint = "p.safetensors"
mean = [0.4, 0.4, 0.4]
window = 64
classes = ["road", "car"]
"""
PLAN = 'presets = ["paper"]\nseeds = [0, 1]\nonly = ["matrix"]\n'
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([10**400, -1, 256]),
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


def fuzz(path: Path, read: Callable[[], object], spoil: Callable[[st.DataObject, bytes], bytes] = mutated) -> None:
    """Reads a spoilt file again and again; the file is whole again afterwards."""
    whole = path.read_bytes()
    until = time.monotonic() + 60 * MINUTES
    count = 0

    @settings(max_examples=EXAMPLES, deadline=None, database=None,
              derandomize=not MINUTES, suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.data())
    def check(data: st.DataObject) -> None:
        nonlocal count
        count += 1
        path.write_bytes(spoil(data, whole))
        try:
            read()
        except SegpatchError as error:
            assert "\n" not in str(error).strip()

    try:
        check()
        while time.monotonic() < until:
            check()
        if MINUTES:
            print(f"{path.name}: {count} examples")
    finally:
        path.write_bytes(whole)


def as_json(data: st.DataObject, whole: bytes) -> bytes:
    return json.dumps(changed(data, json.loads(whole))).encode()


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's about a damaged TIFF, which is then refused
@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "bmp", "webp"])
def test_images(tmp_path: Path, kind: str):
    path = tmp_path / f"a.{kind}"
    Image.fromarray(np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)).save(path)
    fuzz(path, lambda: read_image(path))


def test_labels(tmp_path: Path):
    path = tmp_path / "a.png"
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16) % 3).save(path)
    fuzz(path, lambda: read_labels(path, label_table(range(3))))


def test_patches(tmp_path: Path):
    save_patch(grey_patch((3, 3)), tmp_path / "p.safetensors")
    fuzz(tmp_path / "p.safetensors", lambda: load_patch(tmp_path / "p.safetensors"))


def test_records_of_patches(tmp_path: Path):
    path = tmp_path / "p.json"
    path.write_text(json.dumps({**grey_patch((3, 3)).facts(), "origin": {}}))

    def read() -> None:
        pixels = torch.full((3, 3, 3), 0.5)
        save_as = save({"pixels": pixels}, metadata={"segpatch": path.read_text()})
        (tmp_path / "p.safetensors").write_bytes(save_as)
        json.dumps(load_patch(tmp_path / "p.safetensors").facts())

    fuzz(path, read, as_json)


@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")  # pickletools' about a text
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_checkpoints(tmp_path: Path, kind: str):
    state = {"a.weight": torch.ones(2, 2), "b": torch.arange(3)}
    path = tmp_path / ("c.safetensors" if kind == "safetensors" else "c.pth")
    if kind == "safetensors":
        path.write_bytes(save(state, metadata={"segpatch": '{"network": "pidnet-s"}'}))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    fuzz(path, lambda: read_checkpoint(path))


def test_records_of_networks(tmp_path: Path):
    path = tmp_path / "c.json"
    path.write_text('{"network": "pidnet-s", "layout": "segpatch"}')

    def read() -> None:
        content = save({"a": torch.ones(1)}, metadata={"segpatch": path.read_text()})
        (tmp_path / "c.safetensors").write_bytes(content)
        open_network(None, tmp_path / "c.safetensors")

    fuzz(path, read, as_json)


def test_victim_files(tmp_path: Path):
    path = tmp_path / "v.toml"
    path.write_text(VICTIMS)
    fuzz(path, lambda: read_victims(path))


def test_plans(tmp_path: Path):
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    fuzz(path, lambda: read_plan(path))


def test_classes_and_lists(tmp_path: Path):
    root = write_folder(tmp_path / "d", {"val": 1})
    fuzz(root / "classes.txt", lambda: open_data(f"folder:{root}"))
    (root / "classes.json").write_text(
        '{"classes": [{"id": 0, "name": "road", "color": [1, 2, 3]}, {"id": 1, "name": "car"}]}'
    )
    fuzz(root / "classes.json", lambda: open_data(f"folder:{root}"), as_json)
    (root / "all.txt").write_text("images/val/val0.png labels/val/val0.png\n")
    fuzz(root / "all.txt", lambda: open_data(f"list:{root}/all.txt").samples("all"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("file", ["scores.safetensors", "transfer.json"])
def test_results(run: Path, file: str, tmp_path: Path):
    fuzz(run / file, lambda: read_scores(run) if file == "scores.safetensors" else write_report(run, tmp_path))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")
@pytest.mark.parametrize("file", ["transfer.json", "config.json", "region", "labels.png", "steps.jsonl"])
def test_reports(run: Path, file: str, tmp_path: Path):
    names = {
        "region": "scenes/*/*.json",
        "labels.png": "scenes/*/labels.png",
        "steps.jsonl": "cells/*/steps.jsonl",
    }
    path = min(run.glob(names.get(file, file)))
    fuzz(path, lambda: write_report(run, tmp_path / "out"), as_json if path.suffix == ".json" else mutated)
