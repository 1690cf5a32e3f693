"""Readers of files from strangers, on valid files that were cut, changed, lengthened and mixed: what cannot be
read is a SegpatchError, and nothing else comes out.

A few dozen examples of each file, or SEGPATCH_FUZZ_MINUTES for each reader, which its files share.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save

from fabricate import write_folder
from fuzzing import MOST_BYTES, as_json, as_toml, bounded_memory, bounded_time, fuzz, mutated
from segpatch.attack_config import resolve
from segpatch.cli.study import read_plan
from segpatch.data import CITYSCAPES, open_data
from segpatch.data.classes import ClassSet, class_map
from segpatch.data.files import label_table, read_image, read_labels
from segpatch.data.images import split_images
from segpatch.eot import EOT, draw
from segpatch.errors import BadInput
from segpatch.models.catalogue import Entry, find_entry
from segpatch.models.checkpoints import open_network, read_checkpoint
from segpatch.models.download import LEDGER, download
from segpatch.models.hf import hf_victim
from segpatch.models.networks import MODELS
from segpatch.models.onnx import onnx_victim
from segpatch.models.settings import class_facts
from segpatch.patch import as_png, grey_patch, load_patch, save_patch
from segpatch.report import write_report
from segpatch.report.compare import write_comparison
from segpatch.report.record import read_study
from segpatch.results import read_scores
from segpatch.studies import estimate
from segpatch.studies.attack import run_attack, training_warnings
from segpatch.studies.fit import run_fit
from segpatch.studies.paper import cost
from segpatch.studies.paper.cost import estimate_paper
from segpatch.studies.paper.matrices import study_matrices
from segpatch.studies.planned import planned_patches
from segpatch.studies.progress import Progress
from segpatch.training import FitConfig
from segpatch.transforms import SceneEOT
from segpatch.victims import read_victims
from test_hf import saved
from test_onnx import write as write_onnx
from test_report import write_run
from test_study_report import write_study
from tiny import TINY, TINY_SPEC, conv_victim, learnable_dataset

VICTIMS = """[victim.pidnet-s]
checkpoint = "p.safetensors"
mean = [0.4, 0.4, 0.4]
window = 64
classes = ["road", "car"]
"""
PLAN = """presets = ["paper"]
seeds = [0, 1]
only = ["matrix", "alignment", "sizes", "places", "losses"]
losses = ["correct-pixel"]
scales = [0.5, 2.0]
images = 2
margin = 0.01

[overrides]
steps = 4
crop = [10, 10]
patch_size = [4, 4]
scales = [0.8, 1.2]
step_size = 0.01
patch_eot = {rotation = 5, scale = [0.9, 1.1]}
"""
Spoil = Callable[[st.DataObject, bytes], bytes]
REPORTED, RESUMED = 12, 5
"""Files that a report, and a run that goes on, are read from here."""


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's about a damaged TIFF, which is then refused
@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "bmp", "webp"])
def test_images(tmp_path: Path, kind: str):
    path = tmp_path / f"a.{kind}"
    Image.fromarray(np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)).save(path)
    fuzz(path, lambda: read_image(path), files=5)


def test_labels(tmp_path: Path):
    path = tmp_path / "a.png"
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16) % 3).save(path)
    fuzz(path, lambda: read_labels(path, label_table(range(3))))


def test_patches(tmp_path: Path):
    save_patch(grey_patch((3, 3)), tmp_path / "p.safetensors")
    fuzz(tmp_path / "p.safetensors", lambda: load_patch(tmp_path / "p.safetensors"), files=4)


def test_records_of_patches(tmp_path: Path):
    path = tmp_path / "p.json"
    path.write_text(json.dumps({**grey_patch((3, 3)).facts(), "origin": {}}))

    def read() -> None:
        pixels = torch.full((3, 3, 3), 0.5)
        save_as = save({"pixels": pixels}, metadata={"segpatch": path.read_text()})
        (tmp_path / "p.safetensors").write_bytes(save_as)
        json.dumps(load_patch(tmp_path / "p.safetensors").facts())

    fuzz(path, read, as_json, files=4)


@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")  # pickletools' about a text
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_checkpoints(tmp_path: Path, kind: str):
    state = {"a.weight": torch.ones(2, 2), "b": torch.arange(3)}
    path = tmp_path / ("c.safetensors" if kind == "safetensors" else "c.pth")
    if kind == "safetensors":
        path.write_bytes(save(state, metadata={"segpatch": '{"network": "pidnet-s"}'}))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    fuzz(path, lambda: read_checkpoint(path), files=4)


def test_records_of_networks(tmp_path: Path):
    path = tmp_path / "c.json"
    path.write_text('{"network": "pidnet-s", "layout": "segpatch"}')

    def read() -> None:
        content = save({"a": torch.ones(1)}, metadata={"segpatch": path.read_text()})
        (tmp_path / "c.safetensors").write_bytes(content)
        open_network(None, tmp_path / "c.safetensors")

    fuzz(path, read, as_json, files=4)


def test_victim_files(tmp_path: Path):
    path = tmp_path / "v.toml"
    path.write_text(VICTIMS)
    fuzz(path, lambda: read_victims(path))


@pytest.mark.parametrize("spoil", [mutated, as_toml])
def test_plans(tmp_path: Path, spoil: Spoil, monkeypatch: pytest.MonkeyPatch):
    """What can be read can be planned, estimated and drawn from."""
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    victims, dataset = [conv_victim(0, name="a"), conv_victim(1, name="b")], learnable_dataset(tmp_path / "data")
    training = split_images(dataset, "train")
    for module in (cost, estimate):
        monkeypatch.setattr(module, "seconds_of", lambda work: 1.0)

    def read() -> None:
        plan, _ = read_plan(path)
        estimate_paper(victims, dataset, plan).describe()
        for networks, matrix in study_matrices(victims, training, plan).values():
            config = resolve(planned_patches(networks, matrix)[0].config, training, networks)
            assert config.patch_size
            eot = EOT(SceneEOT(config.scales, config.crop, config.flip), config.patch_eot, config.place)
            draw(eot, (config.seed, 0, 0), (12, 16), config.patch_size)

    read()
    fuzz(path, read, spoil, files=2)


def test_classes_and_lists(tmp_path: Path):
    root = write_folder(tmp_path / "d", {"val": 1})
    fuzz(root / "classes.txt", lambda: open_data(f"folder:{root}"), files=2)
    (root / "classes.json").write_text(
        '{"classes": [{"id": 0, "name": "road", "color": [1, 2, 3]}, {"id": 1, "name": "car"}]}'
    )
    fuzz(root / "classes.json", lambda: open_data(f"folder:{root}"), as_json, files=2)
    (root / "all.txt").write_text("images/val/val0.png labels/val/val0.png\n")
    fuzz(root / "all.txt", lambda: open_data(f"list:{root}/all.txt").samples("all"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("file", ["scores.safetensors", "transfer.json"])
def test_results(run: Path, file: str, tmp_path: Path):
    if file == "scores.safetensors":
        fuzz(run / file, lambda: read_scores(run))
    else:
        fuzz(run / file, lambda: write_report(run, tmp_path / "out"), files=REPORTED)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    "file",
    [
        "transfer.json",
        "config.json",
        "environment.json",
        "region",
        "labels.png",
        "steps.jsonl",
        "patch.safetensors",
        "patch.png",
    ],
)
def test_reports(run: Path, file: str, tmp_path: Path):
    names = {
        "region": "scenes/*/*.json",
        "labels.png": "scenes/*/labels.png",
        "steps.jsonl": "cells/*/steps.jsonl",
        "patch.safetensors": "cells/*/patch.safetensors",
        "patch.png": "cells/*/patch.png",
    }
    path = min(run.glob(names.get(file, file)))
    fuzz(path, lambda: write_report(run, tmp_path / "out"), spoil(path), files=REPORTED)


def spoil(path: Path) -> Callable[[st.DataObject, bytes], bytes]:
    return as_json if path.suffix == ".json" else mutated


@pytest.fixture
def answers(tmp_path: Path) -> Iterator[tuple[Path, Entry]]:
    """A server that answers whatever the file holds, and the checkpoint that is to be had from it."""
    content = save({"weight": torch.ones(3)})
    head = f'HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\nETag: "one"\r\nConnection: close\r\n\r\n'
    path = tmp_path / "answer"
    path.write_bytes(head.encode() + content)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                self.request.recv(1 << 16)
                self.request.sendall(path.read_bytes())

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/net.safetensors"
        yield path, replace(find_entry("pidnet-s"), file="net.safetensors", address=address)
        server.shutdown()


def test_downloads(tmp_path: Path, answers: tuple[Path, Entry]):
    path, entry = answers
    folder = tmp_path / "cache"

    def read() -> None:
        (folder / entry.file).unlink(missing_ok=True)
        (folder / LEDGER).unlink(missing_ok=True)
        download(entry, folder, max_size=1 << 20)

    fuzz(path, read, files=5)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"200 OK", b"206 Partial Content\r\nContent-Range: bytes 3-/99"))
    part, version = folder / f".{entry.file}.part", folder / f".{entry.file}.version"

    def go_on() -> None:
        part.write_bytes(b"abc")
        version.write_text('"one"')
        read()

    fuzz(path, go_on, files=5)


@pytest.mark.parametrize("file", [LEDGER, ".net.safetensors.part", ".net.safetensors.version"])
def test_what_downloads_left(tmp_path: Path, answers: tuple[Path, Entry], file: str):
    _, entry = answers
    path = tmp_path / file
    ledger = {entry.file: {"sha256": "0" * 64, "first_seen": "2026-01-01"}, "other": {"sha256": "1"}}
    content = {LEDGER: json.dumps(ledger), ".net.safetensors.part": "ab"}.get(file, '"one"')
    path.write_text(content)

    def read() -> None:
        held = path.read_bytes()
        (tmp_path / entry.file).unlink(missing_ok=True)
        if file.endswith("version"):
            (tmp_path / ".net.safetensors.part").write_bytes(b"ab")
        try:
            download(entry, tmp_path, max_size=1 << 20)
        finally:
            path.write_bytes(held)

    fuzz(path, read, as_json if file == LEDGER else mutated, files=5)


@pytest.mark.parametrize("file", ["png", "record"])
def test_pictures_of_patches(tmp_path: Path, file: str):
    path = tmp_path / ("p.png" if file == "png" else "p.json")
    path.write_bytes(as_png(grey_patch((3, 3))))

    def read() -> None:
        text = PngInfo()
        text.add_text("segpatch", path.read_text())
        Image.new("RGB", (3, 3)).save(tmp_path / "p.png", pnginfo=text)
        json.dumps(load_patch(tmp_path / "p.png").facts())

    if file == "record":
        path.write_text(json.dumps(grey_patch((3, 3)).facts()))
        fuzz(path, read, as_json, files=4)
    else:
        fuzz(path, lambda: load_patch(path), files=4)


def test_class_maps(tmp_path: Path):
    path = tmp_path / "map.csv"
    path.write_text("road,street\ncar,vehicle\n")
    source, target = ClassSet.of(["road", "car"], "a"), ClassSet.of(["street", "vehicle"], "b")
    fuzz(path, lambda: class_map(source, target, path))


@pytest.mark.parametrize("file", ["net.onnx", "record"])
def test_onnx_files(tmp_path: Path, file: str):
    about = json.dumps(
        {"network": "tiny", "mean": [0, 0, 0], "std": [1, 1, 1], "classes": class_facts(CITYSCAPES)}
    )
    path = write_onnx(tmp_path / "net.onnx", facts=about)
    images = torch.rand(1, 3, 6, 8)
    if file == "net.onnx":
        fuzz(path, lambda: onnx_victim(path)(images), files=2)
        return
    record = tmp_path / "record.json"
    record.write_text(about)

    def read() -> None:
        onnx_victim(write_onnx(path, facts=record.read_text()))(images)

    fuzz(record, read, as_json, files=2)


def test_onnx_files_read_no_weights_from_elsewhere(tmp_path: Path):
    (tmp_path / "secret").write_bytes(bytes(4 * 19 * 27))
    (tmp_path / "in").mkdir()
    path = write_onnx(tmp_path / "in/net.onnx")
    model = onnx.load(path)
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../secret")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BadInput, match="no ONNX file that onnxruntime can run"):
        onnx_victim(path)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # of transformers, about odd settings
@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_folders_of_hugging_face(tmp_path: Path, file: str):
    folder = saved(tmp_path / "net", preprocessor={"image_mean": [0.5, 0.5, 0.5], "image_std": [1, 1, 1]})
    path = Path(folder, file)
    fuzz(path, lambda: hf_victim(folder), as_json if path.suffix == ".json" else mutated, files=3)


def test_records_of_studies(run: Path, tmp_path: Path):
    shutil.copytree(run, tmp_path / "matrix")
    record = {"command": "x", "plan": {}, "matrices": ["matrix"], "cells": {"sizes/a": {"b": 1}}}
    (tmp_path / "study.json").write_text(json.dumps(record))
    fuzz(tmp_path / "study.json", lambda: read_study(tmp_path), as_json)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")
@pytest.mark.parametrize("file", ["study.json", "matrix/transfer.json", "matrix/config.json"])
def test_reports_of_studies(study: Path, file: str, tmp_path: Path):
    fuzz(study / file, lambda: write_report(study, tmp_path / "out"), as_json, files=REPORTED)


@pytest.mark.parametrize("file", ["transfer.json", "scores.safetensors"])
def test_comparisons(run: Path, file: str, tmp_path: Path):
    other = tmp_path / "other"
    shutil.copytree(run, other)
    fuzz(other / file, lambda: write_comparison(run, other, tmp_path / "out"), spoil(other / file), files=2)


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """An attack run with all that one leaves that is stopped, a finished one beside it, and how each goes on."""
    images = split_images(learnable_dataset(tmp_path / "data"), "train")
    config = replace(TINY, steps=3)

    def stop(progress: Progress) -> None:
        if progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_attack([conv_victim()], images, config, tmp_path / "run", on_progress=stop)
    shutil.copytree(tmp_path / "run", tmp_path / "whole")

    def resume() -> None:
        shutil.copytree(tmp_path / "run", tmp_path / "again")
        try:
            run_attack([conv_victim()], images, config, tmp_path / "again", resume=True)
            training_warnings(tmp_path / "again")
        finally:
            shutil.rmtree(tmp_path / "again")

    yield tmp_path / "run", resume


@pytest.mark.parametrize("file", ["config.json", "state.safetensors", "steps.jsonl"])
def test_resumed_attacks(stopped: tuple[Path, Callable[[], None]], file: str):
    run, resume = stopped
    fuzz(run / file, resume, spoil(run / file), files=RESUMED)


def test_finished_attacks(stopped: tuple[Path, Callable[[], None]]):
    run, resume = stopped
    images = split_images(learnable_dataset(run.parent / "data"), "train")
    run_attack([conv_victim()], images, replace(TINY, steps=3), run, resume=True)
    fuzz(run / "warnings.json", resume, as_json, files=RESUMED)


def test_resumed_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(MODELS, "tiny", TINY_SPEC)
    data = learnable_dataset(tmp_path / "data")
    train, held_out = split_images(data, "train"), split_images(data, "val")
    config = FitConfig(steps=3, batch_size=2, crop=(8, 8), warmup=1, validate_every=3)

    def stop(progress: Progress) -> None:
        if progress.done == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_fit("tiny", train, held_out, config, tmp_path / "run", on_progress=stop)

    def resume() -> None:
        shutil.copytree(tmp_path / "run", tmp_path / "again")
        try:
            run_fit("tiny", train, held_out, config, tmp_path / "again", resume=True)
        finally:
            shutil.rmtree(tmp_path / "again")

    fuzz(tmp_path / "run/state.safetensors", resume, files=RESUMED)


def test_a_reader_that_hangs_or_takes_all_memory_is_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fuzzing.MOST_SECONDS", 0.2)
    with (
        pytest.raises(pytest.fail.Exception, match="an example took more than"),
        bounded_time(),
        contextlib.suppress(Exception),  # as readers catch what decoders raise
    ):
        time.sleep(60)
    with pytest.raises(MemoryError), bounded_memory():
        bytearray(2 * MOST_BYTES)
