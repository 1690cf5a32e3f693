from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from golden_recipe import keys_of, published_keys
from network_laws import CLASSES, assert_laws, pixel_loss
from segpatch.errors import BadInput
from segpatch.models.bisenetv1 import AttentionRefinement, BiSeNetV1, FeatureFusion
from segpatch.models.checkpoints import recognise
from segpatch.models.load import load_network
from segpatch.models.victim import Victim


def test_keys_are_the_published_ones():
    with torch.device("meta"):
        assert keys_of(BiSeNetV1()) == published_keys("bisenetv1.coincheung-train")
        assert keys_of(BiSeNetV1(auxiliary=False)) == published_keys("bisenetv1.coincheung-eval")


@pytest.mark.parametrize("ffm_relu", [False, True])
def test_laws(ffm_relu):
    assert_laws(lambda classes: BiSeNetV1(classes, width=32, ffm_relu=ffm_relu))


def test_outputs_are_as_large_as_an_image_of_any_size():
    torch.manual_seed(0)
    network = BiSeNetV1(CLASSES, width=16).double().eval()
    x = torch.rand(1, 3, 45, 75, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert network.raw_logits(x).shape == (1, CLASSES, 6, 10)
        assert [tuple(output.shape[2:]) for output in network.all_outputs(x).values()] == [(45, 75)] * 3
        victim = Victim(network, size_multiple=network.size_multiple)
        assert_close(victim(x), network(victim.normalise(x)))


@torch.no_grad()
def test_the_relu_lets_the_fusion_only_strengthen():
    """Its attention is a sigmoid of what is not negative: between 1/2 and 1 of the mixture is added to it."""
    spatial, context = torch.randn(2, 4, 8, 3, 5, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    fusion = FeatureFusion(16, relu=True).eval()
    mixed = fusion.convblk(torch.cat([spatial, context], dim=1))
    assert ((1.5 * mixed <= fusion(spatial, context)) & (fusion(spatial, context) <= 2 * mixed)).all()
    fusion.relu = False
    assert (fusion(spatial, context) < 1.5 * mixed).any()


@torch.no_grad()
def test_refinement_weighs_whole_channels():
    torch.manual_seed(0)
    refinement = AttentionRefinement(4, 6).eval()
    x = torch.randn(2, 4, 5, 7, generator=torch.Generator().manual_seed(0))
    plain, refined = refinement.conv(x), refinement(x)
    weights = refined.sum(dim=(2, 3), keepdim=True) / plain.sum(dim=(2, 3), keepdim=True)
    assert ((weights > 0) & (weights < 1)).all()
    assert_close(refined, weights * plain)


def test_training_loss_adds_all_outputs():
    labels = torch.randint(CLASSES, (1, 4, 4), generator=torch.Generator().manual_seed(0))
    outputs = {name: torch.full((1, CLASSES, 4, 4), 2.0) for name in ("main", "16", "32")}
    with torch.device("meta"):
        network = BiSeNetV1(CLASSES, width=16)
    loss = network.training_loss(outputs, labels, pixel_loss)
    assert float(loss) == pytest.approx(3 * torch.tensor(CLASSES).log().item())


def test_without_auxiliary_heads_the_main_output_is_left():
    with torch.device("meta"):
        network = BiSeNetV1(CLASSES, width=16, auxiliary=False).eval()
        assert list(network.all_outputs(torch.zeros(1, 3, 32, 32))) == ["main"]


def _old(heads, *, fusion=True, classes=19):
    """The keys of CoinCheung's files before July 2021, whose fusion was a perceptron of two layers."""
    shapes = dict(published_keys("bisenetv1.coincheung-train"))
    if fusion:
        shapes = {key: shape for key, shape in shapes.items() if not key.startswith(("ffm.conv.", "ffm.bn."))}
        shapes |= {"ffm.conv1.weight": (64, 256, 1, 1), "ffm.conv2.weight": (256, 64, 1, 1)}
    for head, stride in (("conv_out", 8), ("conv_out16", 8), ("conv_out32", 16)):
        if heads == "shuffled":
            rows = classes * stride**2
            shapes[f"{head}.conv_out.weight"] = (rows, *shapes[f"{head}.conv_out.weight"][1:])
            shapes[f"{head}.conv_out.bias"] = (rows,)
        if heads == "without bias":
            del shapes[f"{head}.conv_out.bias"]
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


@pytest.mark.parametrize(
    ("heads", "fusion"), [("shuffled", True), ("as today", True), ("without bias", True), ("shuffled", False)]
)
def test_files_of_the_old_code_are_refused_with_what_to_use_instead(heads, fusion):
    with pytest.raises(BadInput, match=r"f\.pth cannot be used as bisenetv1-r18: .*use model_final_v1_city_new"):
        recognise("bisenetv1-r18", _old(heads, fusion=fusion), Path("f.pth"))


def test_the_refusal_is_what_a_user_sees(tmp_path):
    old = {f"module.{key}": torch.zeros(1) for key in _old("shuffled")}
    torch.save({"state_dict": old}, tmp_path / "old.pth")
    with pytest.raises(BadInput, match="before July 2021"):
        load_network("bisenetv1", tmp_path / "old.pth")
