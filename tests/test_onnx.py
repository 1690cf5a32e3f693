from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch.testing import assert_close

from segpatch.attack_config import AttackConfig, resolve
from segpatch.data.classes import CITYSCAPES, ClassSet
from segpatch.errors import BadInput, Missing
from segpatch.evaluation import evaluate
from segpatch.models.load import load_victim, load_victims
from segpatch.models.onnx import METADATA, onnx_victim
from segpatch.models.settings import Settings, class_facts
from segpatch.models.victim import IMAGENET_MEAN
from segpatch.studies.planned import MatrixPlan, planned_patches
from tiny import CLASSES, TINY, conv_victim, in_batches, pictures

IMAGES = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))
KERNEL = torch.randn(19, 3, 3, 3, generator=torch.Generator().manual_seed(1))
FLOAT, INT64, UINT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8


def write(
    path: Path,
    *,
    classes: int = 19,
    stride: int = 1,
    ids: str = "",
    size: tuple = ("batch", 3, "height", "width"),
    kind: int = FLOAT,
    twice: bool = False,
    facts: str | None = None,
) -> Path:
    """One convolution; `ids`: "map" or "flat" for class ids with or without an axis of one channel."""
    weight = numpy_helper.from_array(KERNEL[:classes].numpy(), "weight")
    nodes = [
        helper.make_node("Conv", ["images", "weight"], ["logits"], pads=[1] * 4, strides=[stride] * 2),
        helper.make_node("ArgMax", ["logits"], ["ids"], axis=1, keepdims=int(ids == "map")),
    ]
    if kind == UINT8:
        nodes = [helper.make_node("Cast", ["images"], ["logits"], to=FLOAT)]
    name, type_ = ("ids", INT64) if ids else ("logits", FLOAT)
    shape = [size[0], classes, "h", "w"]
    if ids:
        shape = [size[0], 1, "h", "w"] if ids == "map" else [size[0], "h", "w"]
    outputs = [helper.make_tensor_value_info(name, type_, shape)]
    if twice:
        outputs.append(helper.make_tensor_value_info("ids", INT64, None))
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("images", kind, list(size))], outputs, [weight]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if facts:
        helper.set_model_props(model, {METADATA: facts})
    onnx.save(model, str(path))
    return path


def convolved(images, classes=19, stride=1):
    return F.conv2d(images, KERNEL[:classes], padding=1, stride=stride)


def test_logits_are_those_of_the_network(tmp_path):
    victim = load_victim(f"onnx:{write(tmp_path / 'net.onnx')}")
    assert (victim.name, victim.classes, victim.mean) == ("net", CITYSCAPES, IMAGENET_MEAN)
    assert "ImageNet" in victim.provenance.preprocessing and victim.provenance.sha256
    assert_close(victim(IMAGES), convolved(victim.normalise(IMAGES)))
    raw = load_victim(f"onnx:{tmp_path / 'net.onnx'}", Settings(mean=(0, 0, 0), std=(1, 1, 1)))
    assert_close(raw(IMAGES), convolved(IMAGES))


def test_small_logits_are_resized_as_every_victims_are(tmp_path):
    victim = onnx_victim(write(tmp_path / "net.onnx", stride=2))
    small = convolved(victim.normalise(IMAGES), stride=2)
    assert_close(victim(IMAGES), F.interpolate(small, (6, 8), mode="bilinear"))


@pytest.mark.parametrize("ids", ["map", "flat"])
def test_class_ids_become_logits_of_one_and_zero(tmp_path, ids):
    file = write(tmp_path / "net.onnx", ids=ids)
    with pytest.raises(BadInput, match="returns class ids without naming the classes"):
        load_victim(f"onnx:{file}")
    victim = load_victim(f"onnx:{file}", Settings(classes=CITYSCAPES))
    wanted = convolved(victim.normalise(IMAGES)).argmax(1)
    logits = victim(IMAGES)
    assert logits.dtype == torch.float32 and torch.equal(logits.argmax(1), wanted)
    assert torch.equal(logits.sum(1), torch.ones(2, 6, 8))
    few = load_victim(f"onnx:{file}", Settings(classes=CLASSES))
    with pytest.raises(BadInput, match=r"returned class id \d+; tiny has 3 classes, counted from 0"):
        few(IMAGES)


def test_a_fixed_size_and_a_batch_of_one(tmp_path):
    victim = onnx_victim(write(tmp_path / "net.onnx", size=(1, 3, 6, 8)))
    assert_close(victim(IMAGES), convolved(victim.normalise(IMAGES)))
    with pytest.raises(BadInput, match=r"takes images of 6x8 only, these are 6x7; export it for them"):
        victim(IMAGES[..., :7])
    half = onnx_victim(write(tmp_path / "half.onnx", size=("n", 3, 6, "width")))
    assert half(IMAGES[..., :7]).shape == (2, 19, 6, 7)
    with pytest.raises(BadInput, match="takes images of 6xany width only, these are 5x8"):
        half(IMAGES[..., :5, :])
    square = load_victim(
        f"onnx:{write(tmp_path / 'square.onnx', size=(1, 3, 6, 6))}", Settings(window=6, stride=4)
    )
    assert square(IMAGES).shape == (2, 19, 6, 8)


def test_what_segpatch_wrote_into_the_file(tmp_path):
    said = {"classes": class_facts(CLASSES), "mean": [0, 0, 0], "std": [1, 1, 1], "network": "pidnet-s"}
    said |= {"trained_on": "cityscapes train", "licence": "MIT", "family": "transformer"}
    victim = onnx_victim(write(tmp_path / "net.onnx", classes=3, facts=json.dumps(said)))
    about = victim.provenance
    assert (victim.classes, about.network, about.family, about.licence) == (
        CLASSES,
        "pidnet-s",
        "transformer",
        "MIT",
    )
    assert (about.trained_on, about.preprocessing) == ("cityscapes train", None)
    assert_close(victim(IMAGES), convolved(IMAGES, 3))
    with pytest.raises(BadInput, match="holds a damaged record of its network"):
        onnx_victim(write(tmp_path / "net.onnx", facts="{half"))
    with pytest.raises(BadInput, match="names its classes in a damaged record"):
        onnx_victim(write(tmp_path / "net.onnx", facts='{"classes": {}}'))
    file = write(tmp_path / "net.onnx", facts='"not text"')
    file.write_bytes(file.read_bytes().replace(b"not text", b"\xff" * 8))
    with pytest.raises(BadInput, match=r"holds a damaged record of its network \('utf-8' codec"):
        onnx_victim(file)


WRONG = [
    ({"size": ("n", 4, "h", "w")}, r"expected 3 channels, in batches of 1 or of any size"),
    ({"size": (4, 3, "h", "w")}, r"takes images \(4, 3, h, w\) of tensor\(float\); expected 3 channels"),
    ({"kind": UINT8}, r"of tensor\(uint8\); expected one input \(B, 3, H, W\) of floats"),
    ({"twice": True}, "with the logits as its only output"),
    ({"classes": 11}, "predicts 11 classes; name them in a file for --victims"),
]


@pytest.mark.parametrize(("changes", "words"), WRONG)
def test_other_forms_are_refused(tmp_path, changes, words):
    with pytest.raises(BadInput, match=words) as error:
        onnx_victim(write(tmp_path / "net.onnx", **changes))
    assert "\n" not in str(error.value)


def test_an_output_that_is_neither_logits_nor_class_ids_is_refused(tmp_path):
    ends = [
        helper.make_tensor_value_info(name, kind, ["b", 3, "h", "w"])
        for name, kind in (("images", FLOAT), ("ids", INT64))
    ]
    cast = helper.make_node("Cast", ["images"], ["ids"], to=INT64)
    graph = helper.make_graph([cast], "net", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "net.onnx"))
    with pytest.raises(BadInput, match=r"returns ids \(b, 3, h, w\) of tensor\(int64\); expected logits"):
        onnx_victim(tmp_path / "net.onnx")


def test_named_classes_must_be_as_many_as_the_files(tmp_path):
    file = write(tmp_path / "net.onnx", classes=11)
    with pytest.raises(BadInput, match="predicts 11 classes; the 19 of cityscapes do not name them"):
        onnx_victim(file, CITYSCAPES)
    named = ClassSet("eleven", tuple(map(str, range(11))), ((0, 0, 0),) * 11)
    assert onnx_victim(file, named)(IMAGES).shape == (2, 11, 6, 8)


def test_what_is_no_onnx_file(tmp_path):
    with pytest.raises(Missing, match="no ONNX file at"):
        load_victim(f"onnx:{tmp_path / 'absent.onnx'}")
    for content in (b"", b"<html>", bytes(100)):
        (tmp_path / "n.onnx").write_bytes(content)
        with pytest.raises(BadInput, match="is no ONNX file that onnxruntime can run") as error:
            onnx_victim(tmp_path / "n.onnx")
        assert "\n" not in str(error.value)


def test_what_fails_in_the_middle_is_one_line(tmp_path):
    reshape = helper.make_node("Reshape", ["images", "shape"], ["logits"])
    shape = numpy_helper.from_array(np.array([1, 19, 2, 2]), "shape")
    ends = [
        helper.make_tensor_value_info(name, FLOAT, ["b", c, "h", "w"])
        for name, c in (("images", 3), ("logits", 19))
    ]
    graph = helper.make_graph([reshape], "net", ends[:1], ends[1:], [shape])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "n.onnx"
    )
    with pytest.raises(BadInput, match=r"cannot be run on images of 2x3x6x8 \(") as error:
        onnx_victim(tmp_path / "n.onnx")(IMAGES)
    assert "\n" not in str(error.value)


def test_without_onnxruntime(tmp_path, monkeypatch):
    file = write(tmp_path / "net.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(Missing, match=r"need onnxruntime; install it with: pip install 'segpatch\[onnx\]'"):
        onnx_victim(file)


def test_it_is_measured_but_not_attacked(tmp_path):
    victim = onnx_victim(write(tmp_path / "net.onnx", classes=3), CLASSES)
    scores = evaluate(victim, in_batches(pictures(3), 2), None)
    assert scores.clean.sum() == 3 * 12 * 16
    for victims in ([victim], [conv_victim(), victim]):
        with pytest.raises(BadInput, match="net is for evaluation only: no gradient leads through an ONNX file"):
            resolve(TINY, pictures(3), victims)
    assert resolve(TINY, pictures(3), [conv_victim()]) == TINY


def test_a_matrix_trains_on_the_others(tmp_path):
    graph = onnx_victim(write(tmp_path / "net.onnx", classes=3), CLASSES)
    plan = MatrixPlan(presets=("paper",))
    assert [item.name for item in planned_patches([conv_victim(), graph], plan)] == ["conv/paper/s0"]
    assert [item.name for item in planned_patches([graph], plan)] == ["net/paper/s0"], (
        "refused when it is resolved"
    )
    assert isinstance(TINY, AttackConfig)


def test_two_files_are_told_apart(tmp_path):
    (tmp_path / "b").mkdir()
    one, two = write(tmp_path / "one.onnx"), write(tmp_path / "two.onnx")
    assert [victim.name for victim in load_victims([f"onnx:{one}", f"onnx:{two}"])] == ["one", "two"]
