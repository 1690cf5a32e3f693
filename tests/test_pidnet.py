import pytest
import torch

from golden_recipe import assert_golden, fill, golden_input, keys_of, published_keys
from network_laws import CLASSES, assert_laws, pixel_loss
from segpatch.errors import BadInput
from segpatch.models.boundaries import boundary_loss
from segpatch.models.pidnet import PIDNet, pidnet_l, pidnet_m, pidnet_s

BUILDERS = {"s": pidnet_s, "m": pidnet_m, "l": pidnet_l}


@pytest.mark.parametrize("size", BUILDERS)
def test_keys_are_the_published_ones(size):
    with torch.device("meta"):
        training, inference = BUILDERS[size](), BUILDERS[size](auxiliary=False)
    assert keys_of(training) == published_keys(f"pidnet-{size}.official-augment")
    assert keys_of(inference) == published_keys(f"pidnet-{size}.official")


@pytest.mark.parametrize("size", ["s", "l"])  # no logits of the reference PIDNet-M are at hand
@torch.no_grad()
def test_logits_are_those_of_the_reference(size):
    name = f"pidnet-{size}.official-augment"
    assert_golden(name, fill(BUILDERS[size]()).all_outputs(golden_input(name)).values())


def test_laws():
    assert_laws(_small)
    assert_laws(lambda classes: PIDNet(classes, m=3, n=2, planes=8, ppm_planes=12, head_planes=16))


def test_sides_are_multiples_of_eight():
    network = _small().eval()
    assert network(torch.zeros(1, 3, 72, 136)).shape == (1, CLASSES, 9, 17)
    with pytest.raises(BadInput, match="pad to 72x136"):
        network(torch.zeros(1, 3, 72, 130))


def test_training_loss_is_the_weighted_sum_of_its_parts():
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (2, 8, 8), generator=rng)
    p, main = torch.randn(2, 2, CLASSES, 8, 8, generator=rng)
    network = _small()
    for level, on_boundaries in ((-5.0, 0.0), (5.0, float(pixel_loss(main, labels)))):
        boundary = torch.full((2, 1, 8, 8), level)
        loss = network.training_loss({"p": p, "main": main, "boundary": boundary}, labels, pixel_loss)
        parts = 0.4 * pixel_loss(p, labels) + pixel_loss(main, labels) + 20 * boundary_loss(boundary, labels)
        assert float(loss) == pytest.approx(float(parts) + on_boundaries, rel=1e-5)


def test_without_auxiliary_heads_the_main_loss_is_left():
    network = _small(auxiliary=False).eval()
    labels = torch.zeros(1, 64, 64, dtype=torch.long)
    outputs = network.all_outputs(torch.zeros(1, 3, 64, 64))
    assert list(outputs) == ["main"]
    assert network.training_loss(outputs, labels, pixel_loss).isfinite()


def _small(classes=CLASSES, auxiliary=True):
    return PIDNet(classes, planes=8, ppm_planes=12, head_planes=16, auxiliary=auxiliary)
