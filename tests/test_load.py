import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from segpatch.data.classes import CAMVID, CITYSCAPES
from segpatch.errors import BadInput, Missing
from segpatch.models import load
from segpatch.models.checkpoints import file_sha256, write_network
from segpatch.models.layouts.layout import Layout
from segpatch.models.load import (
    NETWORK_FILE,
    load_network,
    load_victim,
    load_victims,
    model_facts,
    shipped,
)
from segpatch.models.networks import ALIASES, MODELS, NetworkSpec
from segpatch.models.settings import Settings, class_facts
from segpatch.models.victim import Victim
from tiny import Tiny

IMAGES = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(0))
FACTS = {"network": "tiny-net", "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "clean_miou": 0.75}


def build(classes=19, *, auxiliary=True):
    return Tiny(classes)


@pytest.fixture(autouse=True)
def two_tiny_networks_none_shipped(monkeypatch, tmp_path):
    own = Layout(source="own", build=build, classifier="last.weight")
    monkeypatch.setitem(MODELS, "tiny-net", NetworkSpec("cnn", (own,)))
    twin = replace(own, mean=(0.1, 0.2, 0.3))
    monkeypatch.setitem(MODELS, "tiny-twin", NetworkSpec("transformer", (twin,)))
    monkeypatch.setattr(load, "_shipped_file", lambda name: tmp_path / "shipped" / f"{name}.safetensors")


def tiny(classes=19, seed=0):
    torch.manual_seed(seed)
    return Tiny(classes).eval()


def write(path, facts=None, *, classes=19, dtype=torch.float32):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_network(path, tiny(classes).to(dtype), facts or {})
    return path


def test_load_network_gives_the_bare_module_with_the_weights(tmp_path):
    network = load_network("tiny-net", str(write(tmp_path / "n.safetensors")))
    assert not network.training
    assert torch.equal(network(IMAGES), tiny()(IMAGES))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_a_double_file_stays_double_and_a_half_one_becomes_single(tmp_path, dtype):
    file = write(tmp_path / "n.safetensors", dtype=dtype)
    network = load_network("tiny-net", file)
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    assert {parameter.dtype for parameter in network.parameters()} == {wanted}
    assert torch.equal(network.first.weight, tiny().first.weight.to(dtype).to(wanted))


def test_a_dtype_may_be_asked_for(tmp_path):
    file = write(tmp_path / "n.safetensors", dtype=torch.float64)
    assert load_network("tiny-net", file, dtype=torch.float32).first.weight.dtype == torch.float32
    single = write(tmp_path / "single.safetensors")
    assert load_network("tiny-net", single, dtype=torch.float64).first.weight.dtype == torch.float64


def test_a_victim_of_a_double_file_takes_single_images(tmp_path):
    victim = load_victim(f"tiny-net={write(tmp_path / 'n.safetensors', dtype=torch.float64)}")
    assert_close(victim(IMAGES), victim(IMAGES.double()), check_dtype=False)


def test_load_network_takes_the_number_of_classes_from_the_file(tmp_path):
    network = load_network("tiny-net", write(tmp_path / "n.safetensors", classes=11))
    assert network(IMAGES).shape == (1, 11, 6, 8)


def test_a_file_of_absurdly_many_classes_is_refused_before_they_are_made(tmp_path):
    state = tiny().state_dict() | {"last.weight": torch.zeros(10**7, 1, dtype=torch.uint8)}
    save_file(state, tmp_path / "n.safetensors", metadata={"segpatch": json.dumps(FACTS)})
    with pytest.raises(BadInput, match="predicts 10000000 classes; labels have at most 254"):
        load_network("tiny-net", tmp_path / "n.safetensors")


def test_name_and_file(tmp_path):
    torch.save({"state_dict": tiny().state_dict()}, tmp_path / "best.pth")
    victim = load_victim(f"tiny-twin={tmp_path / 'best.pth'}")
    assert victim.name == "tiny-twin"
    assert victim.mean == (0.1, 0.2, 0.3), "those of the published checkpoint"
    assert victim.classes == CITYSCAPES
    about = victim.provenance
    assert (about.network, about.family, about.checkpoint) == ("tiny-twin", "transformer", "best.pth")
    assert about.sha256 == file_sha256(tmp_path / "best.pth")
    assert_close(victim(IMAGES), tiny()(victim.normalise(IMAGES)))


def test_a_short_name_is_shown_in_full(tmp_path, monkeypatch):
    monkeypatch.setitem(ALIASES, "short", "tiny-net")
    with pytest.raises(Missing, match="no weights for tiny-net are shipped"):
        load_victim("short")
    plain = write(tmp_path / "plain.safetensors")
    shipped = write(tmp_path / "shipped" / "tiny-net.safetensors", FACTS)
    for victim in (load_victim(f"short={plain}"), load_victim(f"short={shipped}"), load_victim("short")):
        assert (victim.name, victim.provenance.network) == ("tiny-net", "tiny-net")
    assert load_network("short", plain).first.weight.shape == tiny().first.weight.shape
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(BadInput, match="is no tiny-net checkpoint"):
        load_network("short", tmp_path / "other.pth")


def test_a_fit_run_directory_says_all_itself(tmp_path):
    facts = {**FACTS, "classes": class_facts(CAMVID), "trained_on": "camvid train", "clean_on": "camvid val"}
    write(tmp_path / "run" / NETWORK_FILE, facts, classes=11)
    victim = load_victim(str(tmp_path / "run"))
    assert victim.name == "tiny-net"
    assert (victim.mean, victim.std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert victim.classes == CAMVID
    about = victim.provenance
    assert (about.trained_on, about.clean_miou, about.clean_on) == ("camvid train", 0.75, "camvid val")


def test_a_file_of_another_network_is_named(tmp_path):
    file = write(tmp_path / "n.safetensors", FACTS)
    with pytest.raises(BadInput, match="holds tiny-net, not tiny-twin; give tiny-net="):
        load_victim(f"tiny-twin={file}")


def test_a_run_of_no_known_network_is_refused(tmp_path):
    write(tmp_path / "run" / NETWORK_FILE)
    with pytest.raises(BadInput, match="does not say which network it is; give it as NAME="):
        load_victim(str(tmp_path / "run"))


def test_unnamed_classes_are_refused_for_a_victim(tmp_path):
    with pytest.raises(BadInput, match="predicts 11 classes and does not name them"):
        load_victim(f"tiny-net={write(tmp_path / 'n.safetensors', classes=11)}")


@pytest.mark.parametrize("spec", ["tiny-nett", "tiny-nett=some.pth"])
def test_an_unknown_name_gets_the_nearest(spec):
    with pytest.raises(BadInput, match="did you mean 'tiny-net'"):
        load_victim(spec)


def test_what_is_not_there_is_missing(tmp_path):
    with pytest.raises(Missing, match=r"no weights for tiny-net are shipped \(none are\); give tiny-net=FILE"):
        load_victim("tiny-net")
    with pytest.raises(Missing, match="no checkpoint at"):
        load_victim(f"tiny-net={tmp_path / 'absent.pth'}")
    with pytest.raises(Missing, match=f"holds no {NETWORK_FILE}"):
        load_victim(str(tmp_path))
    with pytest.raises(Missing, match="no such run directory"):
        load_victim(str(tmp_path / "absent"))


def test_shipped_weights_need_only_a_name(tmp_path):
    write(tmp_path / "shipped" / "tiny-net.safetensors", FACTS)
    assert shipped() == ("tiny-net",)
    assert load_victim("tiny-net").mean == (0.5, 0.5, 0.5)
    with pytest.raises(Missing, match=r"no weights for tiny-twin are shipped \(tiny-net\)"):
        load_victim("tiny-twin")


def test_labels_carry_the_file_only_where_a_name_occurs_twice(tmp_path):
    one, two = (write(tmp_path / f"{stem}.safetensors") for stem in ("one", "two"))
    victims = load_victims([f"tiny-net={one}", f"tiny-twin={one}", f"tiny-net={two}"])
    assert [victim.name for victim in victims] == ["tiny-net:one", "tiny-twin", "tiny-net:two"]


def test_run_directories_are_told_apart_by_their_whole_names(tmp_path):
    for name in ("rate-0.1", "rate-0.2"):
        write(tmp_path / name / NETWORK_FILE, FACTS)
    victims = load_victims([str(tmp_path / "rate-0.1"), f"{tmp_path}/rate-0.2/"])
    assert [victim.name for victim in victims] == ["tiny-net:rate-0.1", "tiny-net:rate-0.2"]


def test_the_same_network_twice_is_refused(tmp_path):
    spec = f"tiny-net={write(tmp_path / 'one.safetensors')}"
    with pytest.raises(BadInput, match="given twice: tiny-net:one"):
        load_victims([spec, spec])


def test_hugging_face_and_settings(monkeypatch):
    given = Victim(tiny(), name="net")
    monkeypatch.setattr("segpatch.models.hf.hf_victim", lambda source: given)
    assert load_victim("hf:owner/net") is not given, "settings make a new one"
    changed = load_victim("hf:owner/net", Settings(window=4, trained_on="kitti train"))
    assert (changed.window, changed.provenance.trained_on, changed.mean) == (4, "kitti train", given.mean)
    assert load_victim("hf:owner/net", Settings(window=0)).window is None
    assert [v.name for v in load_victims(["hf:owner/net", "hf:a/net"])] == ["net:owner/net", "net:a/net"]


def test_facts_of_all_networks(tmp_path, monkeypatch):
    for name in set(MODELS) - {"tiny-net", "tiny-twin"}:
        monkeypatch.delitem(MODELS, name)
    write(tmp_path / "shipped" / "tiny-net.safetensors", FACTS)
    first, second = model_facts()
    parameters = sum(parameter.numel() for parameter in tiny().parameters())
    assert [first[key] for key in ("name", "shipped", "family")] == ["tiny-net", True, "cnn"]
    assert (first["parameters"], first["clean_miou"]) == (parameters, 0.75)
    assert [second[key] for key in ("name", "shipped", "checkpoints")] == ["tiny-twin", False, []]


def test_a_real_network_goes_the_whole_way(tmp_path):
    """Padding, resizing and all: what `NAME=FILE` gives is the bare network on normalised, padded images."""
    torch.manual_seed(0)
    network = MODELS["segformer-b0"].default.build(19).eval()
    write_network(tmp_path / "b0.safetensors", network, {})
    victim = load_victim(f"segformer-b0={Path(tmp_path, 'b0.safetensors')}")
    images = torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    small = network(victim.normalise(images))
    wanted = torch.nn.functional.interpolate(small, (32, 64), mode="bilinear", align_corners=False)
    assert_close(victim(images), wanted, rtol=1e-4, atol=1e-4)
    assert victim(images[..., :30, :50]).shape == (1, 19, 30, 50)
