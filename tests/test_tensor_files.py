from __future__ import annotations

import pickle
import subprocess
import sys
import types
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from segpatch.errors import BadInput, Missing
from segpatch.models.checkpoints import read_checkpoint, write_network
from segpatch.models.pickles import MOST_INSTRUCTIONS, Stored
from segpatch.models.tensor_files import LEGACY, SAFETENSORS, ZIP, container, open_torch

FORMS = pytest.mark.parametrize("zipped", [True, False], ids=[ZIP, LEGACY])


def save(content, path: Path, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def tensors() -> dict[str, torch.Tensor]:
    """All types, and all that a view can be: shared, shifted, transposed, without elements, without sides."""
    shared = torch.arange(24.0)
    out = {
        "shared": shared,
        "part": shared[3:9],
        "turned": shared.view(4, 6).t(),
        "channels last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "scalar": torch.tensor(7),
        "none": torch.empty(0, 3),
        "yes": torch.tensor([True, False]),
    }
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.int16, torch.int8, torch.uint8):
        out[str(dtype)] = torch.arange(5).to(dtype)
    return out


@FORMS
def test_every_tensor_is_what_torch_reads(tmp_path, zipped):
    path = save(tensors(), tmp_path / "n.pth", zipped)
    assert container(path) == (ZIP if zipped else LEGACY)
    file = open_torch(path)
    mine, theirs = file.read(file.content), torch.load(path, weights_only=True)
    assert mine.keys() == theirs.keys()
    for key, value in theirs.items():
        assert torch.equal(mine[key], value) and mine[key].dtype == value.dtype, key
        assert mine[key].stride() == value.stride(), key


@FORMS
def test_a_module_with_parameters_and_versions(tmp_path, zipped):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    state = network.state_dict(keep_vars=True)
    assert isinstance(state["0.weight"], nn.Parameter) and state._metadata
    read, _ = read_checkpoint(save({"state_dict": state, "epoch": 3}, tmp_path / "n.pth", zipped))
    assert read.keys() == state.keys()
    assert all(torch.equal(read[key], value) for key, value in state.items())


class HistoryBuffer:
    """As mmengine's, whose training records lie in published files."""

    def __init__(self) -> None:
        self._log_history = np.array([0.5, 0.25])
        self.statistics = {"mean": np.float32(0.5)}


HistoryBuffer.__module__ = "mmengine.logging.history_buffer"


@FORMS
def test_training_records_beside_the_tensors_are_left_out(tmp_path, zipped, monkeypatch):
    for name in ("mmengine", "mmengine.logging", HistoryBuffer.__module__):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules[HistoryBuffer.__module__].HistoryBuffer = HistoryBuffer
    content = {
        "meta": {
            "best": np.float64(0.7),
            "steps": np.arange(3),
            "seed": None,
            "done": True,
            "name": "é",
            "lr": 0.1,
        },
        "message_hub": {"log_scalars": OrderedDict(loss=HistoryBuffer()), 3: {(1, 2): "by a tuple"}},
        "scheduler": {"milestones": Counter([80]), "dtype": torch.float32, "size": torch.Size([2]), "set": {1}},
        "state_dict": OrderedDict(weight=torch.ones(2)),
    }
    path = save(content, tmp_path / "n.pth", zipped)
    monkeypatch.delitem(sys.modules, HistoryBuffer.__module__)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    read = open_torch(path).content
    assert read["meta"] == {"best": None, "steps": None, "seed": None, "done": True, "name": "é", "lr": 0.1}
    assert read["message_hub"] == {"log_scalars": {"loss": None}, 3: {}}
    assert isinstance(read["state_dict"]["weight"], Stored)
    assert torch.equal(read_checkpoint(path)[0]["weight"], torch.ones(2))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.mkdir(), "is a folder, not a checkpoint"),
        (lambda path: path.write_bytes(b""), "is empty; get the file again"),
        (lambda path: path.write_text("<html>quota"), r"is no checkpoint \(it begins with b'<html>quo'\)"),
        (lambda path: path.write_bytes(pickle.dumps([1])), "it is a pickle, but not of torch"),
        (lambda path: path.write_bytes(pickle.dumps({"a": 1}, protocol=0)), "is no checkpoint"),
        (lambda path: torch.jit.script(nn.ReLU()).save(str(path)), "holds more than tensors"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_no_checkpoint_is_one_line(tmp_path, make, words):
    make(tmp_path / "n.pth")
    with pytest.raises(BadInput, match=words) as error:
        read_checkpoint(tmp_path / "n.pth")
    assert "\n" not in str(error.value)


def test_an_absent_file_is_missing(tmp_path):
    with pytest.raises(Missing, match="no checkpoint at"):
        container(tmp_path / "n.pth")


def test_a_safetensors_file_is_known_by_its_content(tmp_path):
    write_network(tmp_path / "n.safetensors", nn.Linear(2, 2), {"seed": 1})
    (tmp_path / "n.safetensors").rename(tmp_path / "n.bin")
    assert container(tmp_path / "n.bin") == SAFETENSORS
    assert read_checkpoint(tmp_path / "n.bin")[1] == {"seed": 1}


def rezipped(path: Path, change, method: int = zipfile.ZIP_STORED) -> Path:
    """A torch archive with records changed by a function of their name and content."""
    with zipfile.ZipFile(path) as archive:
        records = {name: change(name, archive.read(name)) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return path


def liar(path: Path, zipped: bool, old: bytes, new: bytes) -> Path:
    """A file of one tensor of 77 floats, with something else written in its pickle."""
    save({"weight": torch.ones(77)}, path, zipped)

    def change(name: str, content: bytes) -> bytes:
        assert not name.endswith("data.pkl") or old in content
        return content.replace(old, new) if name.endswith("data.pkl") else content

    if zipped:
        return rezipped(path, change)
    path.write_bytes(change("data.pkl", path.read_bytes()))
    return path


HUGE = b"\x8a\x06" + (1 << 44).to_bytes(6, "little")  # LONG1
LIES = {
    "storage": (b"K\x4dt", HUGE + b"t"),  # the elements of the storage, last of its tuple
    "storage of old": (b"K\x4dN", HUGE + b"N"),
    "shape": (b"K\x4d\x85", HUGE + b"\x85"),
    "stride": (b"K\x01\x85", HUGE + b"\x85"),
    "expanded": (b"K\x4d\x85", b"M\x4d\x4d\x85"),
    "negative": (b"K\x4d\x85", b"J\xff\xff\xff\xff\x85"),
}
LIMITED = """
import resource, sys
from pathlib import Path
import torch
from segpatch.errors import BadInput
from segpatch.models.checkpoints import read_checkpoint
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 128 * 2**20,) * 2)
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        read_checkpoint(path)
        print(path.name, "read")
    except BadInput as error:
        print(path.name, "refused", str(error).count("\\n"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited through /proc")
def test_a_lie_about_sizes_costs_no_memory(tmp_path):
    """128 MiB are enough to refuse files that claim 64 TiB, zip bombs and headers without end."""
    liar(tmp_path / "zip-storage", True, *LIES["storage"])
    liar(tmp_path / "old-storage", False, *LIES["storage of old"])
    for name in ("shape", "stride", "expanded", "negative"):
        for zipped in (True, False):
            liar(tmp_path / f"{'zip' if zipped else 'old'}-{name}", zipped, *LIES[name])
    bomb = save({"weight": torch.zeros(77)}, tmp_path / "zip-bomb")
    rezipped(bomb, lambda name, content: bytes(2**28) if name.endswith("pkl") else content, zipfile.ZIP_DEFLATED)
    header = b'{"weight":{"dtype":"F32","shape":[17592186044416],"data_offsets":[0,70368744177664]}}'
    (tmp_path / "claims.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (tmp_path / "endless.safetensors").write_bytes((1 << 40).to_bytes(8, "little") + header)
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + pickle.dumps(1001, protocol=2) + b"\x80\x02}."
    (tmp_path / "bytes").write_bytes(magic + b"\x80\x04\x8e" + (1 << 44).to_bytes(8, "little"))
    (tmp_path / "memo").write_bytes(magic + b"\x80\x02}r\xff\xff\xff\x7f.")
    (tmp_path / "many").write_bytes(magic + b"\x80\x02" + b"}" * (MOST_INSTRUCTIONS + 10))
    done = subprocess.run([sys.executable, "-c", LIMITED, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == [f"{path.name} refused 0" for path in sorted(tmp_path.iterdir())]


def test_what_a_tensor_claims_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"storage 0 claims \d+ bytes and has 308"):
        read_checkpoint(liar(tmp_path / "a", True, *LIES["storage"]))
    with pytest.raises(BadInput, match=r"shape \(19789,\) claims more than its storage's 77"):
        read_checkpoint(liar(tmp_path / "b", True, *LIES["expanded"]))


def test_records_that_are_compressed_or_big_endian_are_refused(tmp_path):
    path = save({"weight": torch.zeros(1000)}, tmp_path / "n.pth")
    rezipped(path, lambda name, content: b"big" if name.endswith("byteorder") else content)
    with pytest.raises(BadInput, match="big-endian"):
        read_checkpoint(path)
    rezipped(path, lambda name, content: content, zipfile.ZIP_DEFLATED)
    with pytest.raises(BadInput, match="is not stored as torch stores it"):
        read_checkpoint(path)


@pytest.mark.parametrize("form", [ZIP, LEGACY, SAFETENSORS])
def test_damaged_files_are_refused_or_read_but_never_crash(tmp_path, form):
    path = tmp_path / ("n.safetensors" if form == SAFETENSORS else "n.pth")
    if form == SAFETENSORS:
        write_network(path, nn.Linear(2, 2), {"seed": 1})
    else:
        save({"meta": {"best": np.float64(1)}, "state_dict": nn.Linear(2, 2).state_dict()}, path, form == ZIP)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole)
        for at in rng.integers(len(whole), size=rng.integers(1, 4)):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_checkpoint(path)
        except BadInput as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 20


def test_a_pickle_with_a_damaged_text_is_refused_without_a_warning(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"\x80\x02S'\\S'\n.")  # a text with an escape that there is not
    with pytest.raises(BadInput, match=r"holds more than tensors \(instruction STRING\)"):
        open_torch(tmp_path / "a.pth")
