import pytest
import torch

from golden_recipe import keys_of, published_keys
from network_laws import CLASSES, assert_laws, pixel_loss
from segpatch.errors import BadInput
from segpatch.models.blocks import resize
from segpatch.models.ddrnet import DDRNet, ddrnet_23, ddrnet_23_slim, exchange
from segpatch.models.load import load_network
from segpatch.models.victim import Victim

BUILDERS = {"23-slim": ddrnet_23_slim, "23": ddrnet_23}


@pytest.mark.parametrize("size", BUILDERS)
def test_keys_are_the_published_ones(size):
    with torch.device("meta"):
        training, inference = BUILDERS[size](), BUILDERS[size](auxiliary=False)
    assert keys_of(training) == published_keys(f"ddrnet-{size}.official-augment")
    assert keys_of(inference) == published_keys(f"ddrnet-{size}.official")


def test_laws():
    assert_laws(_small)


def test_sides_are_multiples_of_eight():
    network = _small().eval()
    assert network(torch.zeros(1, 3, 72, 136)).shape == (1, CLASSES, 9, 17)
    with pytest.raises(BadInput, match="pad to 72x136"):
        network(torch.zeros(1, 3, 72, 130))


def test_a_victim_takes_any_size():
    victim = Victim(_small(), size_multiple=DDRNet.size_multiple)
    assert victim(torch.rand(1, 3, 77, 135)).shape == (1, CLASSES, 77, 135)


def test_each_branch_gets_what_the_other_was_before():
    context, detail = torch.tensor([[[[3.0, -1.0]]]]), torch.tensor([[[[1.0, -4.0, 5.0, 0.0]]]])
    enriched, fused = exchange(context, detail, torch.nn.MaxPool2d((1, 2)), torch.nn.Identity())
    assert enriched.flatten().tolist() == [3 + 1, -1 + 5]  # negative details do not count
    assert fused.flatten().tolist() == [1 + 3, -4 + 2.25, 5 + 0.75, 0]  # nor does negative context


def test_a_released_file_loads_with_its_prefix_and_loss_buffer(tmp_path):
    weights = ddrnet_23_slim().state_dict()
    state = {f"model.{key}": value for key, value in weights.items()}
    torch.save({**state, "loss.criterion.weight": torch.ones(19)}, tmp_path / "best_val_smaller.pth")
    network = load_network("ddrnet-23-slim", tmp_path / "best_val_smaller.pth")
    assert network.auxiliary
    assert torch.equal(network.seghead_extra.conv2.weight, weights["seghead_extra.conv2.weight"])


def test_training_loss_is_the_weighted_sum_of_its_parts():
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (2, 8, 8), generator=rng)
    main, aux = torch.randn(2, 2, CLASSES, 8, 8, generator=rng)
    loss = _small().training_loss({"main": main, "aux": aux}, labels, pixel_loss)
    assert float(loss) == pytest.approx(float(pixel_loss(main, labels) + 0.4 * pixel_loss(aux, labels)), rel=1e-5)


@torch.no_grad()
def test_without_the_auxiliary_head_the_main_loss_is_left():
    network = _small(auxiliary=False).eval()
    labels = torch.zeros(1, 64, 64, dtype=torch.long)
    outputs = network.all_outputs(torch.zeros(1, 3, 64, 64))
    assert list(outputs) == ["main"]
    expected = pixel_loss(resize(outputs["main"], (64, 64)), labels)
    assert torch.equal(network.training_loss(outputs, labels, pixel_loss), expected)


def _small(classes=CLASSES, auxiliary=True):
    return DDRNet(classes, planes=8, ppm_planes=12, head_planes=16, auxiliary=auxiliary)
