import re

import pytest
import torch

from golden_recipe import assert_golden, fill, golden_input, keys_of, published_keys
from network_laws import CLASSES, assert_laws, pixel_loss
from segpatch.errors import BadInput
from segpatch.models.bisenetv2 import BiSeNetV2


def test_keys_are_the_published_ones():
    with torch.device("meta"):
        assert keys_of(BiSeNetV2()) == published_keys("bisenetv2.coincheung-train")
        assert keys_of(BiSeNetV2(auxiliary=False)) == published_keys("bisenetv2.coincheung-eval")


@torch.no_grad()
def test_logits_are_those_of_the_reference():
    name = "bisenetv2.coincheung-train"
    assert_golden(name, fill(BiSeNetV2()).all_outputs(golden_input(name)).values())


@torch.no_grad()
def test_the_options_make_it_the_network_of_mmsegmentation():
    name = "bisenetv2.mmseg"
    network = BiSeNetV2(auxiliary=False, bga_upsample="bilinear", bga_bias=True)
    source_keys = {key: _mmseg_key(key) for key in keys_of(network)}
    published = {k for k in published_keys(name) if not k.startswith("auxiliary_head.")}
    assert set(source_keys.values()) == published
    fill(network, source_keys)
    network.head.scale = 1  # the reference logits are those before the last resize
    assert_golden(name, [network(golden_input(name))])


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


SEPARABLE = {
    "0": "depthwise_conv.conv",
    "1": "depthwise_conv.bn",
    "2": "pointwise_conv.conv",
    "3": "pointwise_conv.bn",
}
CONV_BN = {"0": "conv", "1": "bn"}
STAGES = {"S3": "stage2", "S4": "stage3", "S5_4": "stage4"}
AGGREGATION = {
    "left1": "detail_dwconv",
    "left2": "detail_down",
    "right1": "semantic_conv",
    "right2": "semantic_dwconv",
}


def _mmseg_key(key):
    """The key of mmsegmentation for one of ours."""
    rules = [
        (r"^detail\.S(\d)\.", lambda m: f"backbone.detail.detail_branch.{int(m[1]) - 1}."),
        (r"^segment\.S1S2\.", "backbone.semantic.stage1."),
        (r"stage1\.conv\.", "stage1.conv_first."),
        (r"stage1\.left\.", "stage1.convs."),
        (r"stage1\.fuse\.", "stage1.fuse_last."),
        (r"^segment\.S5_5\.bn\.", "backbone.semantic.stage4_CEBlock.gap.1."),
        (r"^segment\.S5_5\.", "backbone.semantic.stage4_CEBlock."),
        (r"^segment\.(S3|S4|S5_4)\.", lambda m: f"backbone.semantic.{STAGES[m[1]]}."),
        (r"\.dwconv([12])\.([01])\.", lambda m: f".dwconv.{int(m[1]) - 1}.{CONV_BN[m[2]]}."),
        (r"\.(dwconv|conv2)\.([01])\.(?!conv|bn)", lambda m: f".{m[1]}.0.{CONV_BN[m[2]]}."),
        (r"\.shortcut\.(\d)\.", lambda m: f".shortcut.0.{SEPARABLE[m[1]]}."),
        (r"^bga\.(left1|right2)\.(\d)\.", lambda m: f"backbone.bga.{AGGREGATION[m[1]]}.0.{SEPARABLE[m[2]]}."),
        (r"^bga\.(left2|right1)\.(\d)\.", lambda m: f"backbone.bga.{AGGREGATION[m[1]]}.0.{CONV_BN[m[2]]}."),
        (r"^bga\.conv\.(\d)\.", lambda m: f"backbone.bga.conv.{CONV_BN[m[1]]}."),
        (r"^head\.conv\.", "decode_head.convs.0."),
        (r"^head\.conv_out\.1\.", "decode_head.conv_seg."),
    ]
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key
