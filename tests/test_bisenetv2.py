import pytest
import torch

from golden_recipe import assert_golden, fill, golden_input, keys_of, published_keys
from network_laws import CLASSES, assert_laws, pixel_loss
from segpatch.errors import BadInput
from segpatch.models.bisenetv2 import BiSeNetV2
from segpatch.models.load import load_network


def test_keys_are_the_published_ones():
    with torch.device("meta"):
        assert keys_of(BiSeNetV2()) == published_keys("bisenetv2.coincheung-train")
        assert keys_of(BiSeNetV2(auxiliary=False)) == published_keys("bisenetv2.coincheung-eval")


@torch.no_grad()
def test_logits_are_those_of_the_reference():
    name = "bisenetv2.coincheung-train"
    assert_golden(name, fill(BiSeNetV2()).all_outputs(golden_input(name)).values())


def test_laws():
    assert_laws(BiSeNetV2)


def test_sides_are_multiples_of_32_and_logits_as_large():
    network = BiSeNetV2(CLASSES).eval()
    assert network(torch.zeros(1, 3, 96, 64)).shape == (1, CLASSES, 96, 64)
    for run in (network, network.all_outputs):
        with pytest.raises(BadInput, match="pad to 96x64"):
            run(torch.zeros(1, 3, 72, 64))


def test_training_loss_adds_all_outputs():
    labels = torch.randint(CLASSES, (1, 4, 4), generator=torch.Generator().manual_seed(0))
    outputs = {name: torch.full((1, CLASSES, 4, 4), 2.0) for name in ("main", "aux2", "aux3")}
    with torch.device("meta"):
        network = BiSeNetV2(CLASSES)
    loss = network.training_loss(outputs, labels, pixel_loss)
    assert float(loss) == pytest.approx(3 * torch.tensor(CLASSES).log().item())


@pytest.mark.parametrize("key", ["head.conv_out.0.weight", "head.conv_out.weight"])
def test_files_of_the_old_code_are_refused_with_what_to_use_instead(key, tmp_path):
    """Until July 2021 a head ended in a pixel shuffle, or was one layer."""
    keys = published_keys("bisenetv2.coincheung-eval").keys() - {"head.conv_out.1.weight"} | {key}
    torch.save({name: torch.zeros(1) for name in keys}, tmp_path / "old.pth")
    with pytest.raises(BadInput, match=r"old\.pth cannot be used as bisenetv2: .*use model_final_v2_city\.pth"):
        load_network("bisenetv2", tmp_path / "old.pth")
