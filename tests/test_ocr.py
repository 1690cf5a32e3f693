import pytest
import torch
from torch.testing import assert_close

from golden_recipe import keys_of, published_keys
from network_laws import CLASSES, assert_laws, pixel_loss
from segpatch.models.hrnet import HRBackbone
from segpatch.models.load import load_network
from segpatch.models.ocr import ObjectContext, OCRNet, gather_regions, hrnet_w18_ocr, hrnet_w48_ocr
from segpatch.models.victim import Victim

PUBLISHED = {"ocrnet-hr18": hrnet_w18_ocr, "ocrnet-hr48": hrnet_w48_ocr}


@pytest.mark.parametrize("name", PUBLISHED)
def test_keys_are_the_published_ones(name):
    with torch.device("meta"):
        assert keys_of(PUBLISHED[name]()) == published_keys(f"{name}.mmseg")


def test_laws():
    assert_laws(_small)


@torch.no_grad()
def test_any_size_will_do():
    x = torch.rand(1, 3, 517, 1031)
    assert Victim(_small(), size_multiple=OCRNet.size_multiple)(x).shape == (1, CLASSES, 517, 1031)


def test_outputs_come_in_the_order_of_the_release():
    outputs = _small().eval().all_outputs(torch.zeros(1, 3, 64, 64))
    assert list(outputs) == ["aux", "main"]
    assert all(logits.shape == (1, CLASSES, 16, 16) for logits in outputs.values())


def test_a_region_is_the_mean_of_the_pixels_of_its_class():
    pixels = torch.tensor([[[[1.0, 3.0, 10.0, 20.0]], [[0.0, 2.0, 4.0, 8.0]]]])  # (1, 2, 1, 4)
    coarse = torch.tensor([[[[50.0, 50.0, -50.0, -50.0]], [[0.0, 0.0, 0.0, 0.0]]]])
    assert_close(gather_regions(pixels, coarse), torch.tensor([[[2.0, 8.5], [1.0, 3.5]]]).unsqueeze(3))


@torch.no_grad()
def test_each_pixel_attends_to_the_regions():
    torch.manual_seed(0)
    block = ObjectContext(6, 4).eval()
    pixels, regions = torch.randn(2, 6, 3, 5), torch.randn(2, 6, 7, 1)
    query, key, value = block.query_project(pixels), block.key_project(regions), block.value_project(regions)
    context = torch.zeros(2, 4, 3, 5)
    for b in range(2):
        for y in range(3):
            for x in range(5):
                scores = torch.stack([query[b, :, y, x] @ key[b, :, k, 0] / 2 for k in range(7)])
                context[b, :, y, x] = value[b, :, :, 0] @ scores.softmax(dim=0)
    expected = block.bottleneck(torch.cat([block.out_project(context), pixels], dim=1))
    assert_close(block(pixels, regions), expected)


def test_training_loss_is_the_weighted_sum_of_its_parts():
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (2, 8, 8), generator=rng)
    aux, main = torch.randn(2, 2, CLASSES, 8, 8, generator=rng)
    loss = _small().training_loss({"aux": aux, "main": main}, labels, pixel_loss)
    assert float(loss) == pytest.approx(float(pixel_loss(main, labels) + 0.4 * pixel_loss(aux, labels)), rel=1e-5)


def test_a_released_official_file_loads_with_its_prefix_and_loss_buffer(tmp_path):
    rng = torch.Generator().manual_seed(0)
    state = {
        f"model.{key}": torch.rand(shape, generator=rng)
        for key, shape in published_keys("hrnet-w48-ocr.official").items()
    }
    torch.save({**state, "loss.criterion.weight": torch.ones(19)}, tmp_path / "hrnet_ocr_cs_8162_torch11.pth")
    network = load_network("hrnet-w48-ocr", tmp_path / "hrnet_ocr_cs_8162_torch11.pth")
    assert network.output_align_corners
    assert torch.equal(network.decode_head[1].conv_seg.weight, state["model.cls_head.weight"])


def _small(classes=CLASSES):
    return OCRNet(HRBackbone(6, blocks=1, exchanges=(1, 1, 1)), classes, width=16, inner=8)
