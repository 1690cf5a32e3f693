import pytest
import torch

from golden_recipe import keys_of, published_keys
from network_laws import CLASSES, assert_laws, pixel_loss
from segpatch.models.deeplabv3plus import (
    DeepLabV3Plus,
    plain_deeplabv3plus_mobilenet,
    plain_deeplabv3plus_resnet,
)
from segpatch.models.networks import MODELS
from segpatch.models.resnet import DEEP_STEM
from segpatch.models.victim import Victim

AUXILIARY = "auxiliary_head."


def small(classes=CLASSES, auxiliary=True):
    return DeepLabV3Plus(classes, depth=18, auxiliary=auxiliary)


def small_plain(classes=CLASSES):
    return plain_deeplabv3plus_resnet(classes, depth=18)


@pytest.mark.parametrize(("name", "depth"), [("r18", 18), ("r18b", 18), ("r50", 50), ("r101", 101)])
def test_keys_are_those_of_mmsegmentation(name, depth):
    stem = None if name.endswith("b") else DEEP_STEM
    with torch.device("meta"):
        training = DeepLabV3Plus(depth=depth, stem=stem)
        inference = DeepLabV3Plus(depth=depth, stem=stem, auxiliary=False)
    published = published_keys(f"deeplabv3plus-{name}.mmseg")
    assert keys_of(training) == published
    assert keys_of(inference) == {k: s for k, s in published.items() if not k.startswith(AUXILIARY)}


def test_keys_of_the_plain_form_are_those_of_vainf():
    with torch.device("meta"):
        networks = {
            "mobilenet": plain_deeplabv3plus_mobilenet(),
            "resnet50": plain_deeplabv3plus_resnet(depth=50),
            "resnet101": plain_deeplabv3plus_resnet(depth=101),
        }
    for name, network in networks.items():
        assert keys_of(network) == published_keys(f"deeplabv3plus-{name}.vainf")


@pytest.mark.parametrize("build", [small, small_plain, plain_deeplabv3plus_mobilenet])
def test_laws(build):
    assert_laws(build)


@pytest.mark.parametrize("name", ["deeplabv3plus-r18", "deeplabv3plus-r50", "deeplabv3plus-r101"])
def test_each_form_is_recognised_from_its_keys(name):
    for layout in MODELS[name].layouts:
        with torch.device("meta"):
            state = layout.build().state_dict()
        assert MODELS[name].layout_of(state) is layout


def test_rates_are_halved_with_the_size_of_the_map():
    with torch.device("meta"):
        fine, coarse = small(), small_plain()
    dilated = [module.depthwise_conv.conv for module in fine.decode_head.aspp_modules[1:]]
    assert [module.dilation for module in dilated] == [(12, 12), (24, 24), (36, 36)]
    dilated = [module[0] for module in coarse.classifier.aspp.convs[1:4]]
    assert [module.dilation for module in dilated] == [(6, 6), (12, 12), (18, 18)]


@torch.no_grad()
def test_any_size_will_do():
    images = torch.rand(1, 3, 69, 101, generator=torch.Generator().manual_seed(0))
    separable, plain = small().eval(), plain_deeplabv3plus_mobilenet(CLASSES).eval()
    assert separable(images).shape == (1, CLASSES, 18, 26)
    assert separable.all_outputs(images)["aux"].shape == (1, CLASSES, 9, 13)
    assert plain.raw_logits(images).shape[1:] == (CLASSES, 17, 25)
    assert plain(images).shape == (1, CLASSES, 69, 101)
    for network in (separable, plain):
        victim = Victim(network, size_multiple=network.size_multiple)
        assert victim(images).shape == (1, CLASSES, 69, 101)


def test_training_loss_adds_the_auxiliary_one():
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (2, 8, 8), generator=rng)
    main, aux = torch.randn(2, 2, CLASSES, 8, 8, generator=rng)
    with torch.device("meta"):
        network, plain = small(), small_plain()
    loss = network.training_loss({"main": main, "aux": aux}, labels, pixel_loss)
    parts = pixel_loss(main, labels) + 0.4 * pixel_loss(aux, labels)
    assert float(loss) == pytest.approx(float(parts))
    assert torch.equal(plain.training_loss({"main": main}, labels, pixel_loss), pixel_loss(main, labels))


def test_without_the_auxiliary_head_the_main_loss_is_left():
    network = small(auxiliary=False).eval()
    labels = torch.zeros(1, 32, 32, dtype=torch.long)
    outputs = network.all_outputs(torch.zeros(1, 3, 32, 32))
    assert list(outputs) == ["main"]
    assert network.training_loss(outputs, labels, pixel_loss).isfinite()
