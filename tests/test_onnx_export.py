import sys
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from segpatch.data.classes import CAMVID, CITYSCAPES
from segpatch.errors import BadInput, Missing, SegpatchError
from segpatch.models import onnx_export as module
from segpatch.models.onnx import onnx_victim
from segpatch.models.onnx_export import export_onnx
from segpatch.models.victim import Provenance, Victim
from tiny import CLASSES

ABOUT = Provenance(network="conv", family="transformer", trained_on="camvid train", licence="MIT", sha256="abc")


class Fails(nn.Module):
    """Looks at the data to decide, which no graph can."""

    def forward(self, x):
        return x if x.sum() > 0 else -x


def victim(**more) -> Victim:
    """Strided, with windows and padding, colours swapped, statistics of its own."""
    torch.manual_seed(0)
    settings = {"mean": (10, 20, 30), "std": (40, 50, 60), "channel_order": "bgr", "value_range": 255, **more}
    module = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))
    return Victim(module, name="net", size_multiple=4, classes=CLASSES, provenance=ABOUT, **settings)


def test_what_is_written_is_the_whole_victim(tmp_path):
    own = victim(window=17, stride=11)
    assert export_onnx(own, tmp_path / "net.onnx", (18, 30)) < 1e-5
    read = onnx_victim(tmp_path / "net.onnx")
    images = torch.rand(2, 3, 18, 30, generator=torch.Generator().manual_seed(3))
    assert_close(read(images), own(images), rtol=1e-4, atol=1e-4)
    assert (read.mean, read.std, read.classes) == ((0, 0, 0), (1, 1, 1), CLASSES)
    about = read.provenance
    assert (about.network, about.family, about.trained_on, about.licence) == (
        "conv",
        "transformer",
        "camvid train",
        "MIT",
    )
    with pytest.raises(BadInput, match="takes images of 18x30 only"):
        read(images[..., :20])
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_the_classes_are_the_networks_own(tmp_path):
    torch.manual_seed(0)
    own = replace(victim(), module=nn.Conv2d(3, 19, 1), classes=CITYSCAPES)
    export_onnx(own.for_classes(CAMVID), tmp_path / "net.onnx", (16, 16))
    read = onnx_victim(tmp_path / "net.onnx")
    images = torch.rand(1, 3, 16, 16)
    assert_close(read(images), own(images), rtol=1e-4, atol=1e-4)
    assert_close(read.for_classes(CAMVID)(images), own.for_classes(CAMVID)(images), rtol=1e-4, atol=1e-4)


def test_a_file_that_predicts_otherwise_is_not_kept(tmp_path, monkeypatch):
    other = victim(mean=(200, 0, 0))
    monkeypatch.setattr(module, "onnx_victim", lambda path: other)
    with pytest.raises(BadInput, match=r"predicts another class for \d+ of 256 pixels .*; nothing was kept"):
        export_onnx(victim(), tmp_path / "net.onnx", (16, 16))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "there.onnx").touch()
    with pytest.raises(BadInput, match="is there already"):
        export_onnx(victim(), tmp_path / "there.onnx", (16, 16))
    with pytest.raises(BadInput, match=r"name it .*net\.pt\.onnx"):
        export_onnx(victim(), tmp_path / "net.pt", (16, 16))
    with pytest.raises(SegpatchError, match="cannot write"):
        export_onnx(victim(), tmp_path / "there.onnx" / "net.onnx", (16, 16))
    fails = replace(victim(), module=Fails())
    with pytest.raises(BadInput, match=r"net cannot be exported \(.*") as error:
        export_onnx(fails, tmp_path / "net.onnx", (16, 16))
    assert "\n" not in str(error.value)
    monkeypatch.setattr(nn.Conv2d, "differentiable", False, raising=False)
    with pytest.raises(BadInput, match="net is an ONNX file already"):
        export_onnx(replace(victim(), module=nn.Conv2d(3, 3, 1)), tmp_path / "net.onnx", (16, 16))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(Missing, match="need onnxscript"):
        export_onnx(victim(), tmp_path / "net.onnx", (16, 16))
