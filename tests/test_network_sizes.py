"""Parameters and multiply-adds of every network against those of the code that its checkpoints come from.

The published figures were counted on the reference networks at 1x3x1024x2048 (convolutions and matrix products).
Where a network here does less for the same outputs, the difference is computed and added.
"""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from segpatch.models.networks import MODELS

# network, source: parameters with and without auxiliary heads, GMAC.
PUBLISHED = {
    ("pidnet-s", "official"): (7_720_935, 7_625_715, 47.19),
    ("pidnet-m", "official"): (28_763_111, 28_538_515, 177.33),
    ("pidnet-l", "official"): (37_314_311, 36_939_571, 274.93),
    ("icnet-r18", "mmsegmentation"): (25_174_393, 24_874_067, 74.24),
    ("icnet-r50", "mmsegmentation"): (47_827_833, 47_527_507, 121.97),
    ("icnet-r101", "mmsegmentation"): (66_819_961, 66_519_635, 160.76),
    ("bisenetv1-r18", "coincheung"): (13_425_721, 13_275_539, 118.34),
    ("bisenetv1-r18", "mmsegmentation"): (13_425_721, 13_275_539, 118.34),
    ("bisenetv1-r50", "mmsegmentation"): (59_243_385, 56_873_299, 790.34),
    ("bisenetv2", "coincheung"): (5_231_487, 3_358_627, 98.41),
    ("bisenetv2", "mmsegmentation"): (None, 3_358_883, 98.41),  # its auxiliary heads are other networks
    ("ddrnet-23-slim", "official"): (5_734_342, 5_695_987, 36.28),
    ("ddrnet-23", "official"): (20_299_366, 20_148_947, 143.06),
    ("hrnet-w18-small", "mmsegmentation"): (3_939_309, 3_939_309, 76.86),
    ("hrnet-w18", "mmsegmentation"): (9_640_849, 9_640_849, 147.40),
    ("hrnet-w48", "mmsegmentation"): (65_858_659, 65_858_659, 747.51),
    ("hrnet-w18-ocr", "mmsegmentation"): (12_080_036, 12_080_036, 426.0),
    ("hrnet-w48-ocr", "mmsegmentation"): (70_371_446, 70_371_446, 1297.9),
    ("deeplabv3plus-mobilenet", "vainf"): (5_225_203, 5_225_203, 133.6),
    ("deeplabv3plus-r50", "vainf"): (39_761_331, 39_761_331, 476.4),
    ("deeplabv3plus-r101", "vainf"): (58_753_459, 58_753_459, 631.6),
    ("deeplabv3plus-r18", "mmsegmentation"): (12_469_000, 12_320_000, 433.5),
    ("deeplabv3plus-r18", "mmsegmentation-plain-stem"): (12_450_000, 12_301_000, 423.5),
    ("deeplabv3plus-r50", "mmsegmentation"): (43_590_000, 41_225_000, 1409.3),
    ("deeplabv3plus-r101", "mmsegmentation"): (62_582_000, 60_217_000, 2029.9),
    ("pspnet-r18", "mmsegmentation"): (12_790_000, 12_641_000, 433.8),
    ("pspnet-r50", "mmsegmentation"): (48_975_000, 46_611_000, 1426.2),
}
SEGFORMER = {  # NVlabs and mmsegmentation: parameters, GMAC
    "b0": ((3_719_027, 120.96), (3_720_051, 120.96)),
    "b1": ((13_682_131, 239.13), (13_683_155, 239.13)),
    "b2": ((27_361_235, 703.49), (24_728_019, 419.01)),
    "b3": ((47_237_075, 949.23), (44_603_859, 664.76)),
    "b4": ((64_007_635, 1226.75), (61_374_419, 942.28)),
    "b5": ((84_607_955, 1446.37), (81_974_739, 1161.89)),
}


@pytest.mark.parametrize(("name", "source"), PUBLISHED)
def test_parameters_and_work(name, source):
    whole, bare, work = PUBLISHED[name, source]
    network = build(name, source)
    assert parameters(network) == pytest.approx(bare, rel=1e-4 if bare % 1000 == 0 else 0)
    if whole:
        with torch.device("meta"):
            trained = MODELS[name].layout(source).build(19)
        assert parameters(trained) == pytest.approx(whole, rel=1e-4 if whole % 1000 == 0 else 0)
    assert gmac(network) == pytest.approx(work, rel=2e-4)


@pytest.mark.parametrize("size", SEGFORMER)
@pytest.mark.parametrize(("column", "source"), list(enumerate(("nvlabs", "mmsegmentation"))))
def test_segformer(size, column, source):
    """The fusing 1x1 convolution meets each of the four maps before it is enlarged, which saves work."""
    wanted, work = SEGFORMER[size][column]
    network = build(f"segformer-{size}", source)
    assert parameters(network) == wanted
    width = 768 if source == "nvlabs" and size not in ("b0", "b1") else 256
    plain = 256 * 512 * 4 * width * width / 1e9  # at 1/4, all four maps enlarged
    saved = plain * (1 - (1 + 1 / 4 + 1 / 16 + 1 / 64) / 4)
    assert gmac(network) + saved == pytest.approx(work, rel=2e-4)


@pytest.mark.parametrize(
    ("source", "published", "work"), [("liminn", 28_298_376, 294.52), ("torchvision", 28_174_600, 81.03)]
)
def test_icnet_of_two_passes(source, published, work):
    """The reference has a layer it never uses, and runs two stages on the half image that nothing comes from."""
    with torch.device("meta"):
        network = MODELS["icnet-r50"].layout(source).build(19).eval()
        unused = torch.nn.Linear(2048, 1000)
    assert parameters(network) + parameters(unused) == published
    thrown_away = gmac(Last(network.pretrained), torch.empty(1, 512, 64, 128, device="meta"))
    assert gmac(network.all_outputs) + thrown_away == pytest.approx(work, rel=2e-4)


def test_pspnet_of_semseg():
    network = build("pspnet-r50", "semseg")
    assert gmac(network, torch.empty(1, 3, 713, 713, device="meta")) == pytest.approx(363.8, rel=2e-4)


class Last(torch.nn.Module):
    """The last two stages of a ResNet."""

    def __init__(self, resnet):
        super().__init__()
        self.layer3, self.layer4 = resnet.layer3, resnet.layer4

    def forward(self, x):
        return self.layer4(self.layer3(x))


def build(name, source):
    with torch.device("meta"):
        return MODELS[name].layout(source).build(19, auxiliary=False).eval()


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@torch.no_grad()
def gmac(network, x=None):
    counter = FlopCounterMode(display=False)
    with counter:
        network(torch.empty(1, 3, 1024, 2048, device="meta") if x is None else x)
    return counter.get_total_flops() / 2e9
