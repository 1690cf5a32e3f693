import re

import pytest
import torch

from segpatch.checks import has_seen
from segpatch.data.classes import CITYSCAPES
from segpatch.errors import BadInput, Missing
from segpatch.models.catalogue import catalogue, entries_of, entry_of_file, find_entry
from segpatch.models.load import load_victim
from segpatch.models.networks import MODELS
from segpatch.models.victim import IMAGENET_MEAN

EACH = pytest.mark.parametrize("entry", catalogue(), ids=lambda entry: entry.name)


@EACH
def test_every_row_says_what_is_needed(entry):
    assert (entry.address is None) != (entry.steps is None)
    assert entry.address is None or re.fullmatch(r"https://[\w.-]+/[\w./?=&-]+", entry.address)
    assert re.fullmatch(r"[\w.-]+\.(pth|pt|bin|safetensors)", entry.file)
    assert entry.miou is None or 0.5 < entry.miou < 0.9
    assert entry.measured_on in ("cityscapes val", "cityscapes test")
    assert entry.trained_on in ("cityscapes train", "cityscapes train+val")
    assert entry.licence and entry.publisher
    assert entry.settings.stride is None or entry.settings.stride <= entry.settings.window


def test_every_row_is_of_something_that_can_be_built():
    for network, layout, variant in {(e.network, e.layout, tuple(e.variant.items())) for e in catalogue()}:
        with torch.device("meta"):
            assert MODELS[network].layout(layout).build(19, auxiliary=False, **dict(variant))


def test_names_and_files_are_unique():
    for of in ("name", "file", "address"):
        values = [getattr(entry, of) for entry in catalogue() if getattr(entry, of)]
        assert len(set(values)) == len(values)
    assert not {entry.name for entry in catalogue()} & MODELS.keys()


def test_generic_file_names_are_taken_for_nothing():
    generic = {
        "model.safetensors",
        "pytorch_model.bin",
        "best_val.pth",
        "train_epoch_200.pth",
        "checkpoint.pth.tar",
    }
    assert not generic & {entry.file for entry in catalogue()}


def test_every_network_has_a_published_checkpoint():
    assert not [name for name in MODELS if not entries_of(name)]


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("pidnet-s", "pidnet-s_2xb6-120k_1024x1024-cityscapes"),
        ("pidnet-s-test", "pidnet-s-test"),
        ("bisenetv1", "bisenetv1-coincheung"),
        ("hrnet-w48-ocr", "hrnet-w48-ocr-official"),
    ],
)
def test_a_network_stands_for_its_best_direct_checkpoint(typed, found):
    assert find_entry(typed).name == found


def test_unknown_and_unreachable_names(monkeypatch):
    with pytest.raises(BadInput, match="did you mean 'pidnet-s-val'"):
        find_entry("pidnet-s-vall")
    only_by_hand = tuple(entry for entry in catalogue() if entry.steps)
    monkeypatch.setattr("segpatch.models.catalogue.catalogue", lambda: only_by_hand)
    with pytest.raises(
        Missing, match=r"of pidnet-s can be fetched directly; .* how to get pidnet-s-val, pidnet-s-t"
    ):
        find_entry("pidnet-s")


def test_a_file_is_known_by_network_layout_and_name():
    file = "PIDNet_S_Cityscapes_test.pt"
    assert entry_of_file("pidnet-s", "official", file).trained_on == "cityscapes train+val"
    assert entry_of_file("pidnet-s", "mmsegmentation", file) is None
    assert entry_of_file("pidnet-m", "official", file) is None
    assert entry_of_file("pidnet-s", "official", "best.pt") is None


def published(name: str, folder):
    """A random file under the name of a published one, in its layout (those whose names are the network's own)."""
    entry = find_entry(name)
    torch.manual_seed(0)
    state = MODELS[entry.network].layout(entry.layout).build(19, auxiliary=False).state_dict()
    torch.save(state, folder / entry.file)
    return entry, load_victim(f"{entry.network}={folder / entry.file}")


def test_what_is_published_travels_with_the_file(tmp_path):
    entry, victim = published("pidnet-s-test", tmp_path)
    about = victim.provenance
    assert (about.taken_for, about.licence, about.trained_on) == ("pidnet-s-test", "MIT", "cityscapes train+val")
    assert (about.clean_miou, about.clean_on) == (0.786, "cityscapes test")
    assert has_seen(about.trained_on, "cityscapes val") and has_seen(about.trained_on, "cityscapes train")
    assert (victim.mean, victim.window, victim.align_corners) == (IMAGENET_MEAN, None, True)
    (tmp_path / entry.file).rename(tmp_path / "own.pt")
    own = load_victim(f"pidnet-s={tmp_path / 'own.pt'}").provenance
    assert (own.taken_for, own.licence, own.trained_on, own.clean_miou) == (None, None, None, None)


def test_windows_come_from_the_list(tmp_path):
    _, victim = published("segformer-b0-nvlabs", tmp_path)
    assert (victim.window, victim.stride, victim.classes) == (1024, 768, CITYSCAPES)
    _, victim = published("segformer-b0-nvlabs-512x1024", tmp_path)
    assert (victim.window, victim.provenance.clean_miou, victim.provenance.clean_on) == (None, None, None)


def test_what_keys_do_not_show_comes_from_the_list(tmp_path):
    _, victim = published("pspnet_r18-d8_4xb2-80k_cityscapes-769x769", tmp_path)
    assert (victim.align_corners, victim.module.decode_head.align_corners, victim.window) == (True, True, 769)
    _, victim = published("deeplabv3plus_r18-d8_4xb2-80k_cityscapes-769x769", tmp_path)
    assert (victim.align_corners, victim.module.decode_head.align_corners, victim.stride) == (True, True, 513)
    _, victim = published("pspnet_r18-d8_4xb2-80k_cityscapes-512x1024", tmp_path)
    assert (victim.align_corners, victim.module.decode_head.align_corners, victim.window) == (False, False, None)


def test_a_file_that_is_another_function_is_refused_by_its_name(tmp_path):
    with pytest.raises(BadInput, match=r"cannot be used: as pspnet_r50-d32.*, its backbone goes down to 1/32"):
        published("pspnet_r50-d32_4xb2-80k_cityscapes-512x1024", tmp_path)
