from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from reference import LAW
from segpatch.data.classes import CAMVID, CITYSCAPES, CITYSCAPES_TO_CAMVID, ClassMap, ClassSet, class_map
from segpatch.errors import BadInput
from segpatch.models.victim import Victim, merge_classes, pick_output, slide

IMAGES = torch.rand(2, 3, 7, 9, generator=torch.Generator().manual_seed(0))
PLAIN = {"mean": (0, 0, 0), "std": (1, 1, 1)}
PALE = (100, 100, 100)
FOUR = ClassSet("four", ("road", "lane", "car", "bus"), (PALE,) * 4)
TWO = ClassSet("two", ("vehicle", "ground"), (PALE,) * 2)
MERGE = ClassMap("four -> two", FOUR, TWO, (1, 1, 0, 0))


class Spy(nn.Module):
    """Returns its input as logits, and remembers it."""

    def forward(self, x):
        self.seen = x
        return x


class Returns(nn.Module):
    """Returns what it is told to make of the input."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, x):
        return self.make(x)


def convolution(classes=4, kernel=3, stride=1, seed=0):
    torch.manual_seed(seed)
    return nn.Conv2d(3, classes, kernel, padding=kernel // 2, stride=stride)


def test_normalisation_by_hand():
    image = torch.tensor([0.1, 0.5, 0.9]).view(1, 3, 1, 1)
    victim = Victim(Spy(), mean=(0.1, 0.3, 0.5), std=(1.0, 0.5, 0.25))
    assert victim(image).flatten().tolist() == pytest.approx([0.0, 0.4, 1.6], abs=1e-6)
    swapped = replace(victim, channel_order="bgr")  # mean and std are in the network's own order
    assert swapped(image).flatten().tolist() == pytest.approx([0.8, 0.4, -1.6], abs=1e-6)
    bytes_ = Victim(Spy(), mean=(100, 50, 0), std=(1, 1, 2), channel_order="bgr", value_range=255)
    assert bytes_(image).flatten().tolist() == pytest.approx([129.5, 77.5, 12.75], abs=1e-4)


def test_images_stay_as_they_are():
    before = IMAGES.clone()
    Victim(Returns(lambda x: x.mul_(0)), channel_order="bgr", size_multiple=4)(IMAGES)
    Victim(Returns(lambda x: x.mul_(0)), **PLAIN)(IMAGES)
    assert torch.equal(IMAGES, before)


def test_images_are_padded_with_the_mean_colour_and_logits_cut_back():
    spy = Spy()
    logits = Victim(spy, size_multiple=8)(IMAGES)
    assert spy.seen.shape == (2, 3, 8, 16)
    assert bool((spy.seen[:, :, 7:] == 0).all())
    assert bool((spy.seen[:, :, :, 9:] == 0).all())
    assert torch.equal(logits, spy.seen[:, :, :7, :9])


@pytest.mark.parametrize(("height", "width"), [(5, 9), (6, 8), (7, 6), (2, 1)])
def test_an_offset_pads_to_a_multiple_plus_it(height, width):
    spy = Spy()
    logits = Victim(spy, size_multiple=4, size_offset=1)(IMAGES[:, :, :height, :width])
    wanted = {1: 1, 2: 5, 5: 5, 6: 9, 7: 9, 8: 9, 9: 9}
    assert spy.seen.shape == (2, 3, wanted[height], wanted[width])
    assert logits.shape == (2, 3, height, width)


@pytest.mark.parametrize("multiple", [1, 7, 9])
def test_nothing_is_padded_where_the_size_fits(multiple):
    spy = Spy()
    Victim(spy, size_multiple=multiple)(IMAGES[:, :, : 7 if multiple == 7 else 9, : 7 if multiple == 7 else 9])
    assert max(spy.seen.shape[2:]) <= 9


@pytest.mark.parametrize("align", [False, True])
def test_small_logits_are_resized_to_the_padded_image_and_cut(align):
    network = convolution(stride=4)
    victim = Victim(network, **PLAIN, size_multiple=8, align_corners=align)
    padded = F.pad(IMAGES, (0, 7, 0, 1))
    resized = F.interpolate(network(padded), (8, 16), mode="bilinear", align_corners=align)
    assert_close(victim(IMAGES), resized[..., :7, :9])


def test_the_module_is_in_eval_mode_and_its_weights_get_no_gradient():
    module = nn.Sequential(convolution(), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    victim = Victim(module)
    assert not any(part.training for part in module.modules())
    assert not any(parameter.requires_grad for parameter in module.parameters())
    images = IMAGES.clone().requires_grad_()
    victim(images).sum().backward()
    assert bool((images.grad != 0).any())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_gradient_through_everything():
    module = convolution(stride=2).double()
    victim = Victim(module, channel_order="bgr", size_multiple=4, classes=FOUR, class_map=MERGE)
    images = IMAGES[:1, :, :3, :5].double().requires_grad_()
    assert torch.autograd.gradcheck(victim, images)
    sliding = replace(victim, window=4, stride=1)
    assert torch.autograd.gradcheck(sliding, images)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_images_take_the_type_of_the_network(dtype):
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    logits = Victim(convolution().to(dtype))(IMAGES)
    assert logits.dtype == wanted
    assert_close(logits, Victim(convolution())(IMAGES).to(wanted), rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("make", "output"),
    [
        (lambda x: x, None),
        (lambda x: (x * 2, x), 1),
        (lambda x: [x * 2, x], -1),
        (lambda x: {"aux": x * 2, "main": x}, "main"),
        (lambda x: {"aux": x * 2, "logits": x}, None),
        (lambda x: {"aux": x * 2, "out": x}, None),
    ],
)
def test_the_right_output_is_picked(make, output):
    assert torch.equal(Victim(Returns(make), **PLAIN, output=output)(IMAGES), IMAGES)


def test_outputs_of_transformers_are_understood():
    from transformers.modeling_outputs import SemanticSegmenterOutput

    made = SemanticSegmenterOutput(logits=IMAGES)
    assert torch.equal(pick_output(made, None), IMAGES)
    assert torch.equal(pick_output(made, 0), IMAGES)


@pytest.mark.parametrize(
    ("made", "which"),
    [
        ((IMAGES, IMAGES), None),
        ((IMAGES,), 1),
        ((IMAGES,), "main"),
        ({"main": IMAGES}, None),
        ({"main": IMAGES}, "aux"),
        ({"main": IMAGES}, 0),
        (IMAGES, "main"),
        (IMAGES[0], None),
        (None, 0),
    ],
)
def test_anything_but_logits_is_refused(made, which):
    with pytest.raises(BadInput, match=r"must return logits|has no output"):
        pick_output(made, which)


@LAW
@given(st.lists(st.floats(-50, 50, width=32), min_size=4, max_size=4))
def test_merging_adds_probabilities(scores):
    logits = torch.tensor(scores, dtype=torch.float64).view(1, 4, 1, 1)
    before, after = logits.softmax(1).flatten(), merge_classes(logits, MERGE).softmax(1).flatten()
    assert_close(after, torch.stack([before[2] + before[3], before[0] + before[1]]))


def test_a_renaming_only_moves_the_logits():
    renamed = ClassMap("swap", FOUR, FOUR, (2, 0, 3, 1))
    logits = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    assert_close(merge_classes(logits, renamed), logits[:, [1, 3, 0, 2]])


def test_a_cityscapes_network_speaks_camvid():
    mapping = class_map(CITYSCAPES, CAMVID)
    logits = torch.randn(2, 19, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    probability, merged = logits.softmax(1), merge_classes(logits, mapping).softmax(1)
    assert merged.shape == (2, 11, 3, 4)
    for index, name in enumerate(CAMVID.names):
        sources = [i for i, source in enumerate(CITYSCAPES.names) if CITYSCAPES_TO_CAMVID[source] == name]
        assert_close(merged[:, index], probability[:, sources].sum(1))


def test_for_classes_sets_the_map_and_the_labels():
    victim = Victim(convolution(19))
    camvid = victim.for_classes(CAMVID)
    assert victim.label_classes == CITYSCAPES
    assert camvid.label_classes == CAMVID
    assert camvid(IMAGES).shape == (2, 11, 7, 9)
    assert victim.for_classes(CITYSCAPES).class_map is None
    with pytest.raises(BadInput, match="no class map"):
        victim.for_classes(TWO)


@LAW
@given(st.integers(1, 11), st.integers(1, 11), st.integers(1, 6), st.integers(1, 6))
def test_sliding_over_single_pixels_changes_nothing(height, width, window, stride):
    """So every pixel is visited, whatever the size."""
    x = torch.arange(height * width).view(1, 1, height, width) + 1.0
    assert_close(slide(lambda part: part * 2, x, window, min(stride, window)), x * 2)


def test_overlapping_windows_are_averaged():
    """Windows at 0 and 1 (shifted back from 2) of a row of three, each answering with its first value."""
    x = torch.tensor([[[[1.0, 2.0, 4.0]]]])
    seen = slide(lambda part: part[..., :1].expand_as(part), x, 2, 2)
    assert seen.flatten().tolist() == [1.0, 1.5, 2.0]


def test_a_window_as_large_as_the_image_is_the_whole_image():
    victim = Victim(convolution(), size_multiple=4)
    assert_close(replace(victim, window=9, stride=3)(IMAGES), victim(IMAGES))
    assert_close(replace(victim, window=100)(IMAGES), victim(IMAGES))


def test_windows_are_what_the_network_sees():
    sizes = []
    Victim(Returns(lambda x: sizes.append(tuple(x.shape[2:])) or x), window=4, stride=3)(IMAGES)
    assert sizes == [(4, 4)] * 2 * 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"channel_order": "gbr"},
        {"std": (1, 0, 1)},
        {"value_range": 0},
        {"size_multiple": 0},
        {"size_offset": 1},
        {"size_multiple": 4, "size_offset": 4},
        {"size_multiple": 4, "size_offset": -1},
        {"stride": 2},
        {"window": 2, "stride": 3},
        {"window": 2, "stride": 0},
        {"window": 0},
        {"window": -4},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(BadInput, match=list(wrong)[-1]):
        Victim(Spy(), **wrong)


def test_a_victim_of_a_module_of_your_own():
    module = convolution()
    names = ["road", "car", "sky", "tree"]
    victim = Victim.of(module, names, mean=0.5, std=[0.1, 0.2, 0.4], name="mine")
    same = Victim(module, mean=(0.5, 0.5, 0.5), std=(0.1, 0.2, 0.4), classes=victim.classes)
    images = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    assert_close(victim(images), same(images))
    assert (victim.name, victim.classes.names) == ("mine", tuple(names))
    assert Victim.of(module, CITYSCAPES).mean == Victim(module).mean
    assert_close(Victim.of(module, names, mean=0, std=1)(images), module(images))
    about = victim.provenance
    assert about.network == "Conv2d" and about.sha256 == Victim.of(convolution(), names).provenance.sha256
    assert about.sha256 != Victim.of(convolution(seed=1), names).provenance.sha256
    assert Victim.of(module.bfloat16(), names).provenance.sha256 not in (None, about.sha256)
    for wrong, words in (
        ({"mean": [0.5, 0.5]}, "mean is one number or three"),
        ({"std": 0}, "each std must be in"),
    ):
        with pytest.raises(BadInput, match=words):
            Victim.of(module, names, **wrong)
    with pytest.raises(BadInput, match=r"torch\.nn\.Module, got str"):
        Victim.of("pidnet-s", names)
