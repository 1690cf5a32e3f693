from functools import partial

import pytest
import torch
from torch.testing import assert_close

import network_laws
from golden_recipe import keys_of, published_keys
from network_laws import CLASSES, assert_laws, pixel_loss
from segpatch.errors import BadInput
from segpatch.models.layouts.layout import Layout
from segpatch.models.load import load_victim
from segpatch.models.networks import MODELS, NetworkSpec
from segpatch.models.pspnet import PSPNet
from segpatch.models.victim import Victim

AUXILIARY = "auxiliary_head."
small = partial(PSPNet, depth=18)
small_aligned = partial(PSPNet, depth=18, aligned=True)


@pytest.mark.parametrize("depth", [18, 50])
def test_keys_are_those_of_mmsegmentation(depth):
    with torch.device("meta"):
        training, inference = PSPNet(depth=depth), PSPNet(depth=depth, auxiliary=False)
    published = published_keys(f"pspnet-r{depth}.mmseg")
    assert keys_of(training) == published
    assert keys_of(inference) == {k: s for k, s in published.items() if not k.startswith(AUXILIARY)}


@pytest.mark.parametrize("name", ["pspnet-r18", "pspnet-r50"])
def test_the_stem_is_recognised_from_its_keys(name):
    for layout in MODELS[name].layouts[:2]:  # the third has keys of its own
        with torch.device("meta"):
            state = layout.build().state_dict()
        assert MODELS[name].layout_of(state) is layout


def test_laws():
    assert_laws(small)


def test_laws_of_the_aligned_form(monkeypatch):
    monkeypatch.setattr(network_laws, "SIZE", (65, 129))
    assert_laws(small_aligned)


@torch.no_grad()
def test_any_size_will_do():
    images = torch.rand(1, 3, 69, 101, generator=torch.Generator().manual_seed(0))
    network = small(CLASSES).eval()
    for logits in network.all_outputs(images).values():
        assert logits.shape == (1, CLASSES, 9, 13)
    assert Victim(network, size_multiple=network.size_multiple)(images).shape == (1, CLASSES, 69, 101)


def test_sides_of_the_aligned_form_are_multiples_of_eight_plus_one():
    network = small_aligned(CLASSES).eval()
    for run in (network, network.raw_logits, network.all_outputs):
        with pytest.raises(BadInput, match=r"multiples of 8 plus 1, got 64x129; pad to 65x129"):
            run(torch.zeros(1, 3, 64, 129))


@torch.no_grad()
def test_the_aligned_form_keeps_its_logits_at_every_eighth_pixel():
    torch.manual_seed(0)
    network = small_aligned(CLASSES).eval()
    images = torch.randn(1, 3, 65, 97)
    outputs = network.all_outputs(images)
    assert {logits.shape[-2:] for logits in outputs.values()} == {(65, 97)}
    assert_close(outputs["main"][..., ::8, ::8], network.raw_logits(images))


def test_only_the_aligned_form_dilates_the_first_block_of_a_stage_in_full():
    with torch.device("meta"):
        first = [network.backbone.layer4[0].conv1.dilation for network in (small(), small_aligned())]
    assert first == [(2, 2), (4, 4)]


@torch.no_grad()
def test_a_victim_pads_for_the_aligned_form(tmp_path, monkeypatch):
    form = Layout(source="aligned", build=small_aligned, classifier="decode_head.conv_seg.weight")
    monkeypatch.setitem(MODELS, "pspnet-r18", NetworkSpec("cnn", (form,)))
    torch.save(small_aligned(auxiliary=False).state_dict(), tmp_path / "n.pth")
    victim = load_victim(f"pspnet-r18={tmp_path / 'n.pth'}")
    for height, width in ((65, 97), (64, 90), (66, 98)):
        assert victim(torch.rand(1, 3, height, width)).shape == (1, 19, height, width)


def test_training_loss_adds_the_auxiliary_one():
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (2, 8, 8), generator=rng)
    main, aux = torch.randn(2, 2, CLASSES, 8, 8, generator=rng)
    with torch.device("meta"):
        network = small(CLASSES)
    loss = network.training_loss({"main": main, "aux": aux}, labels, pixel_loss)
    assert float(loss) == pytest.approx(float(pixel_loss(main, labels) + 0.4 * pixel_loss(aux, labels)))


def test_without_the_auxiliary_head_the_main_loss_is_left():
    network = small(CLASSES, auxiliary=False).eval()
    labels = torch.zeros(1, 64, 64, dtype=torch.long)
    outputs = network.all_outputs(torch.zeros(1, 3, 64, 64))
    assert list(outputs) == ["main"]
    assert network.training_loss(outputs, labels, pixel_loss).isfinite()
