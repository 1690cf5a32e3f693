import pytest
import torch
from torch.testing import assert_close

from golden_recipe import keys_of, published_keys
from network_laws import CLASSES, assert_laws, pixel_loss
from segpatch.errors import BadInput
from segpatch.models.blocks import resize
from segpatch.models.icnet import CascadeFusion, ICNet, ImageCascade, TwoPassICNet, _with_pooled
from segpatch.models.victim import Victim

TWO_PASS = pytest.mark.parametrize("dilated", [True, False])


@pytest.mark.parametrize("depth", [18, 50, 101])
def test_keys_are_the_published_ones(depth):
    published = published_keys(f"icnet-r{depth}.mmseg")
    with torch.device("meta"):
        assert keys_of(ICNet(depth=depth)) == published
        bare = keys_of(ICNet(depth=depth, auxiliary=False))
    assert bare == {key: shape for key, shape in published.items() if not key.startswith("auxiliary_head.")}


def test_the_plain_two_pass_form_has_the_published_keys():
    published = published_keys("icnet-r50.paper-torchvision")
    with torch.device("meta"):
        keys = keys_of(TwoPassICNet(dilated=False))
    assert keys == {key: shape for key, shape in published.items() if not key.startswith("pretrained.fc.")}


def test_laws():
    assert_laws(lambda classes: ICNet(classes, depth=18))


@TWO_PASS
def test_laws_of_the_two_pass_form(dilated):
    assert_laws(lambda classes: TwoPassICNet(classes, depth=18, dilated=dilated))


def test_branches_are_at_an_eighth_a_sixteenth_and_a_thirty_second():
    with torch.device("meta"):
        maps = ImageCascade(18).eval()(torch.zeros(1, 3, 128, 256))
    # The windows of the max pooling hang over the edge, which makes one row and column more.
    assert [tuple(x.shape[1:]) for x in maps] == [(64, 16, 32), (256, 9, 17), (256, 4, 8)]


def test_any_size_will_do():
    network = _random(ICNet)
    x = torch.rand(1, 3, 69, 107, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = network.all_outputs(x)
        victim = Victim(network, size_multiple=network.size_multiple)
        assert_close(victim(x), resize(network(victim.normalise(x)), (69, 107)))
    assert {name: tuple(output.shape[2:]) for name, output in outputs.items()} == {
        "main": (9, 14),
        "sub4": (5, 7),
        "sub24": (9, 14),
    }


@TWO_PASS
def test_the_two_pass_form_returns_four_sizes(dilated):
    with torch.device("meta"):
        network = TwoPassICNet(CLASSES, depth=18, dilated=dilated).eval()
        outputs = network.all_outputs(torch.zeros(1, 3, 64, 96))
    assert {name: tuple(output.shape[1:]) for name, output in outputs.items()} == {
        "main": (CLASSES, 64, 96),
        "sub124": (CLASSES, 16, 24),
        "sub24": (CLASSES, 8, 12),
        "sub4": (CLASSES, 4, 6),
    }
    with pytest.raises(BadInput, match="pad to 72x96"):
        network(torch.zeros(1, 3, 65, 96))


def test_an_odd_image_is_padded_for_the_two_pass_form():
    network = _random(TwoPassICNet)
    victim = Victim(network, size_multiple=network.size_multiple, align_corners=network.output_align_corners)
    x = torch.rand(1, 3, 53, 91, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(victim.normalise(x), (0, 5, 0, 3))
    with torch.no_grad():
        assert_close(victim(x), network(padded)[..., :53, :91])


def test_without_auxiliary_heads_the_main_loss_is_left():
    labels = torch.zeros(1, 32, 64, dtype=torch.long)
    for network in (_random(ICNet, auxiliary=False), _random(TwoPassICNet, auxiliary=False)):
        outputs = network.all_outputs(torch.zeros(1, 3, 32, 64, dtype=torch.float64))
        assert set(outputs) <= {"main", "sub124"}
        logits = resize(outputs["main"].float(), (32, 64), align_corners=network.output_align_corners)
        assert_close(network.training_loss(outputs, labels, pixel_loss), pixel_loss(logits, labels))


@pytest.mark.parametrize("form", [ICNet, TwoPassICNet])
def test_training_loss_weighs_the_lower_branches(form):
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (2, 8, 8), generator=rng)
    main, sub24, sub4 = torch.randn(3, 2, CLASSES, 8, 8, generator=rng)
    outputs = {"main": main, "sub24": sub24, "sub4": sub4}
    if form is TwoPassICNet:
        outputs["sub124"] = torch.full((2, CLASSES, 8, 8), torch.nan)  # the same logits as "main", not yet resized
    with torch.device("meta"):
        network = form(CLASSES, depth=18)
    loss = network.training_loss(outputs, labels, pixel_loss)
    parts = pixel_loss(main, labels) + 0.4 * (pixel_loss(sub24, labels) + pixel_loss(sub4, labels))
    assert float(loss) == pytest.approx(float(parts), rel=1e-6)


def test_fusion_by_hand():
    fusion = CascadeFusion(torch.nn.Identity(), torch.nn.Identity(), align_corners=True)
    low, high = torch.tensor([[[[0.0, 3.0]]]]), torch.tensor([[[[-1.0, -1.0, -1.0, -4.0]]]])
    fused, brought = fusion(low, high)
    assert_close(brought, torch.tensor([[[[0.0, 1.0, 2.0, 3.0]]]]))
    assert_close(fused, torch.tensor([[[[0.0, 0.0, 1.0, 0.0]]]]))


def test_pooled_means_are_added():
    assert_close(_with_pooled(torch.full((1, 2, 5, 7), 0.25)), torch.full((1, 2, 5, 7), 1.25))
    one_way = torch.tensor([-1.0, -1, -1, 1, 1, 1]).expand(1, 1, 6, 6)  # a step: a mean of 0, halves of -1 and 1
    left = _with_pooled(one_way)[0, 0, :, 0]
    assert_close(left, torch.full((6,), -1.0 + 0 - 1 - 1 - 1))


def _random(form, **options):
    torch.manual_seed(0)
    return form(CLASSES, depth=18, **options).double().eval()
