import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from golden_recipe import published_keys
from segpatch.errors import BadInput, Missing, SegpatchError
from segpatch.models.checkpoints import (
    WRAPPERS,
    file_sha256,
    fill,
    read_checkpoint,
    write_network,
)
from segpatch.models.layouts.layout import Layout
from segpatch.models.load import load_network
from segpatch.models.networks import MODELS, NetworkSpec

CLASSES = 3
LAYOUT = Layout(
    source="own",
    build=lambda **_: network(),
    classifier="2.weight",
    auxiliary=("aux.",),
    unused=("sem_loss.",),
)
SPEC = NetworkSpec("cnn", (LAYOUT,))


def network(seed=0):
    """A kernel, batch norm, and a matrix; an instance fits another's state."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, CLASSES))
    module[1].running_mean.uniform_()
    return module


def meta_state(name, classes=19, **more):
    """The names and shapes of one of the real networks; no memory and no time."""
    with torch.device("meta"):
        return MODELS[name].default.build(classes, **more).state_dict()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_network_file_comes_back_bit_for_bit(tmp_path):
    write_network(tmp_path / "n.safetensors", network(), {"network": "tiny", "mean": [0.1, 0.2, 0.3]})
    state, facts = read_checkpoint(tmp_path / "n.safetensors")
    wanted = network().state_dict()
    del wanted["1.num_batches_tracked"]
    assert same(state, wanted)
    assert facts == {"network": "tiny", "mean": [0.1, 0.2, 0.3]}
    other = network(seed=1)
    fill(other, state, "tiny", LAYOUT, tmp_path)
    assert same(other.state_dict(), network().state_dict())


def test_half_precision_is_for_matrices_and_kernels_only(tmp_path):
    write_network(tmp_path / "n.safetensors", network(), {}, half=True)
    state, _ = read_checkpoint(tmp_path / "n.safetensors")
    assert {key for key, value in state.items() if value.dtype == torch.float16} == {"0.weight", "2.weight"}
    assert {value.dtype for value in state.values()} == {torch.float16, torch.float32}
    other = network(seed=1)
    fill(other, state, "tiny", LAYOUT, tmp_path)
    assert other[0].weight.dtype == torch.float32
    assert torch.equal(other[0].weight, network()[0].weight.half().float())
    assert torch.equal(other[1].running_mean, network()[1].running_mean)


@pytest.mark.parametrize(
    ("value", "half", "words"),
    [
        (float("nan"), False, "0.weight holds values that are not finite"),
        (float("inf"), True, "0.weight holds values that are not finite"),
        (1e6, True, "not finite; leave --half out"),
    ],
)
def test_a_network_that_is_not_finite_is_not_written(tmp_path, value, half, words):
    module = network()
    nn.init.constant_(module[0].weight, value)
    with pytest.raises(SegpatchError, match=words) as error:
        write_network(tmp_path / "n.safetensors", module, {}, half=half)
    assert ("--half" in str(error.value)) == (value == 1e6) and not list(tmp_path.iterdir())


def test_a_network_in_another_memory_layout_is_written_alike(tmp_path):
    write_network(tmp_path / "a.safetensors", network(), {})
    write_network(tmp_path / "b.safetensors", network().to(memory_format=torch.channels_last), {})
    assert file_sha256(tmp_path / "a.safetensors") == file_sha256(tmp_path / "b.safetensors")


@pytest.mark.parametrize("wrapper", [None, *WRAPPERS])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model."])
def test_wrappers_and_prefixes_are_taken_off(tmp_path, wrapper, prefix):
    state = {prefix + key: value for key, value in network().state_dict().items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "n.pth")
    assert same(read_checkpoint(tmp_path / "n.pth")[0], network().state_dict())


def test_buffers_of_a_loss_keep_their_names_and_are_dropped(tmp_path):
    """As in the published PIDNets: the network below `model.`, the loss beside it."""
    wrapped = {f"model.{key}": value for key, value in network().state_dict().items()}
    save_file({**wrapped, "sem_loss.criterion.weight": torch.ones(CLASSES)}, tmp_path / "n.safetensors")
    state, facts = read_checkpoint(tmp_path / "n.safetensors")
    assert "sem_loss.criterion.weight" in state
    assert facts == {}
    module = network(seed=1)
    fill(module, state, "tiny", LAYOUT, tmp_path)
    assert torch.equal(module[0].weight, network()[0].weight)


class Harmful:
    """Leaves a file behind where its pickle is opened without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path):
    trace = tmp_path / "it ran"
    torch.save({"state_dict": {"weight": torch.zeros(1)}, "hook": Harmful(trace)}, tmp_path / "bad.pth")
    with pytest.raises(BadInput, match=r"holds more than tensors \(pathlib.Path\) and is not opened"):
        read_checkpoint(tmp_path / "bad.pth")
    assert not trace.exists()
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Harmful(trace)))
    with pytest.raises(BadInput, match=r"raw\.pth"):
        read_checkpoint(tmp_path / "raw.pth")
    assert not trace.exists()
    pickle.loads(pickle.dumps(Harmful(trace)))
    assert trace.exists(), "the trap itself works"


def test_a_whole_module_is_refused(tmp_path):
    torch.save(network(), tmp_path / "module.pth")
    with pytest.raises(BadInput, match="save its state_dict"):
        read_checkpoint(tmp_path / "module.pth")


@pytest.mark.parametrize("content", [[1, 2], {"weight": "text"}, {"state_dict": {"weight": 1.5}}])
def test_what_is_no_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "n.pth")
    with pytest.raises(BadInput, match="holds no state dict"):
        read_checkpoint(tmp_path / "n.pth")


@pytest.mark.parametrize("name", ["n.pth", "n.safetensors"])
@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_a_cut_file_is_refused(tmp_path, name, share):
    if name == "n.pth":
        torch.save(network().state_dict(), tmp_path / name)
    else:
        write_network(tmp_path / name, network(), {})
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BadInput, match=name):
        read_checkpoint(tmp_path / name)


def test_an_absent_file_is_missing(tmp_path):
    with pytest.raises(Missing, match="no checkpoint at"):
        read_checkpoint(tmp_path / "n.pth")


@pytest.fixture
def tiny_networks(monkeypatch):
    """Only networks that are built in no time."""
    monkeypatch.setattr("segpatch.models.fitting.MODELS", {"tiny": SPEC, "other": SPEC})


@pytest.mark.usefixtures("tiny_networks")
def test_every_key_must_be_accounted_for():
    def refused(state):
        with pytest.raises(BadInput) as error:
            fill(network(), state, "tiny", LAYOUT, Path("file.pth"))
        return str(error.value)

    whole = network().state_dict()
    without = {key: value for key, value in whole.items() if key != "0.bias"}
    assert "1 keys missing (0.bias), 0 unknown (none)" in refused(without)
    assert "0 keys missing (none), 1 unknown (more)" in refused({**whole, "more": torch.zeros(1)})
    assert "0.bias is (7,), expected (4,)" in refused({**whole, "0.bias": torch.zeros(7)})


@pytest.mark.usefixtures("tiny_networks")
def test_a_refused_state_changes_nothing():
    module = network()
    with pytest.raises(BadInput):
        fill(module, {**network(seed=1).state_dict(), "more": torch.zeros(1)}, "tiny", LAYOUT, Path("file.pth"))
    assert same(module.state_dict(), network().state_dict())


@pytest.mark.parametrize(
    ("asked", "given"), [("pidnet-s", "bisenetv2"), ("bisenetv2", "segformer-b0"), ("pidnet-s", "pidnet-l")]
)
def test_another_networks_checkpoint_names_it(asked, given):
    with torch.device("meta"):
        module = MODELS[asked].default.build(19)
    with pytest.raises(BadInput, match=f"is no {asked} checkpoint: .*it looks like {given}$"):
        fill(module, meta_state(given), asked, MODELS[asked].default, Path("file.pth"))


def test_another_width_of_the_same_network_is_named():
    with torch.device("meta"):
        module = MODELS["pidnet-s"].default.build(19)
    with pytest.raises(BadInput, match=r"does not fit pidnet-s: .*it looks like pidnet-m$"):
        fill(module, meta_state("pidnet-m"), "pidnet-s", MODELS["pidnet-s"].default, Path("file.pth"))


@pytest.mark.parametrize("name", ["pidnet-m", "bisenetv2", "segformer-b0"])
def test_another_number_of_classes_is_said_and_no_other_network_is_blamed(name):
    with torch.device("meta"):
        module = MODELS[name].default.build(19, auxiliary=False)
    with pytest.raises(BadInput, match=r"is \(11,.*, expected \(19,.*number of classes\?$"):
        fill(module, meta_state(name, 11, auxiliary=False), name, MODELS[name].default, Path("file.pth"))


def test_a_network_is_built_with_auxiliary_heads_only_where_the_file_has_them():
    layout = MODELS["bisenetv2"].default
    assert layout.build_for(meta_state("bisenetv2"), 19).auxiliary
    bare = layout.build_for(meta_state("bisenetv2", auxiliary=False), 19)
    assert not bare.auxiliary
    assert {value.device.type for value in bare.state_dict().values()} == {"cpu"}


def test_file_hash(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert file_sha256(tmp_path / "f") == hashlib.sha256(b"abc").hexdigest()


def test_damaged_metadata_is_refused(tmp_path):
    save_file({"weight": torch.zeros(1)}, tmp_path / "n.safetensors", metadata={"segpatch": "{half"})
    with pytest.raises(BadInput, match="holds a damaged record of its network"):
        read_checkpoint(tmp_path / "n.safetensors")


def test_metadata_is_plain_json(tmp_path):
    write_network(tmp_path / "n.safetensors", network(), {"seed": 1})
    with safe_open(tmp_path / "n.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["segpatch"]) == {"seed": 1}


def test_a_file_of_the_right_names_and_the_wrong_shapes_is_one_line(tmp_path):
    """Its layout joins keys and values of an attention, which here have other numbers of axes."""
    shapes = {key: (1,) if ".key." in key else (1, 1) for key in published_keys("segformer-b0.hf-hub")}
    save_file({key: torch.zeros(shape) for key, shape in shapes.items()}, tmp_path / "net.safetensors")
    with pytest.raises(BadInput, match="its keys are of hugging-face, its tensors are not") as said:
        load_network("segformer-b0", tmp_path / "net.safetensors")
    assert "\n" not in str(said.value)
    with pytest.raises(BadInput, match=r"is no pidnet-s checkpoint: its keys .*are of none of the known layouts"):
        load_network("pidnet-s", tmp_path / "net.safetensors")
