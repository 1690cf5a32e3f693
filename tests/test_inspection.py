import pytest
import torch

from segpatch.errors import BadInput, Missing
from segpatch.models.checkpoints import file_sha256
from segpatch.models.inspection import inspect
from segpatch.models.networks import MODELS

FILE = "PIDNet_S_Cityscapes_val.pt"


@pytest.fixture(scope="module")
def state():
    """A PIDNet-S as its authors save it: wrapped, with the loss."""
    torch.manual_seed(0)
    state = MODELS["pidnet-s"].layout("official").build(19).state_dict()
    return {**{f"model.{key}": value for key, value in state.items()}, "sem_loss.criterion.weight": torch.ones(19)}


def said(found):
    return dict(found.describe())


def test_a_published_file(state, tmp_path):
    torch.save(state, tmp_path / FILE)
    found = inspect("pidnet-s", tmp_path / FILE)
    assert (found.problem, found.layout, found.container, found.tensors) == (None, "official", "torch", 480)
    assert found.sha256 == file_sha256(tmp_path / FILE)
    lines = said(found)
    assert lines["keys"] == "479 used (26 of heads for training), 1 left out"
    assert lines["weights"] == (
        "trained on cityscapes train, mIoU 0.7880 on cityscapes val, taken for pidnet-s-val by its file name"
    )
    assert lines["licence"] == "MIT"
    assert {"missing", "unknown", "of another shape"}.isdisjoint(lines)


def test_what_does_not_fit_is_said_key_by_key(state, tmp_path):
    changed = {key: value for key, value in state.items() if "pag4.f_x" not in key}
    changed |= {"model.more": torch.zeros(1), "model.conv1.0.bias": torch.zeros(7)}
    torch.save(changed, tmp_path / "changed.pt")
    found = inspect("pidnet-s", tmp_path / "changed.pt")
    lines = said(found)
    assert lines["missing"] == "5: pag4.f_x.0.weight, pag4.f_x.1.weight, pag4.f_x.1.bias .."
    assert lines["unknown"] == "1: more"
    assert lines["of another shape"] == "1: conv1.0.bias"
    assert found.victim is None and "5 keys missing" in found.problem


@pytest.mark.parametrize(
    ("name", "network", "layout", "words"),
    [
        ("pidnet-m", "pidnet-m", "official", "does not fit pidnet-m: .* looks like pidnet-s$"),
        ("icnet", "icnet-r50", None, "is no icnet-r50 checkpoint.* looks like pidnet-s$"),
        ("pidnets", "pidnets", None, "unknown network 'pidnets'.*; the file looks like pidnet-s$"),
    ],
)
def test_the_network_that_fits_is_named(state, tmp_path, name, network, layout, words):
    torch.save(state, tmp_path / FILE)
    found = inspect(name, tmp_path / FILE)
    assert (found.network, found.layout, found.victim) == (network, layout, None)
    with pytest.raises(BadInput, match=words):
        raise BadInput(found.problem)


def test_unnamed_classes(tmp_path):
    torch.save(MODELS["bisenetv2"].default.build(11, auxiliary=False).state_dict(), tmp_path / "n.pth")
    found = inspect("bisenetv2", tmp_path / "n.pth")
    assert found.keys.fits and "predicts 11 classes" in found.problem


def test_what_is_no_checkpoint(tmp_path):
    (tmp_path / "n.pth").write_text("# notes")
    with pytest.raises(BadInput, match="is no checkpoint"):
        inspect("pidnet-s", tmp_path / "n.pth")
    with pytest.raises(Missing):
        inspect("pidnet-s", tmp_path / "absent.pth")
