import re

import pytest
import torch
import torch.nn.functional as F

from golden_recipe import TOLERANCE, assert_golden, fill, golden_input, keys_of, published_keys, published_state
from network_laws import CLASSES, SIZE, assert_laws
from segpatch.errors import BadInput
from segpatch.models import segformer
from segpatch.models.checkpoints import read_checkpoint
from segpatch.models.load import load_network
from segpatch.models.segformer import SegFormer, segformer_b0
from segpatch.models.victim import Victim

UNUSED = "decode_head.conv_seg."  # in the published file, used by no forward pass


@pytest.mark.parametrize("size", range(6))
def test_keys_are_the_published_ones(size):
    with torch.device("meta"):
        network = getattr(segformer, f"segformer_b{size}")()
    published = published_keys(f"segformer-b{size}.nvlabs")
    assert keys_of(network) == {k: v for k, v in published.items() if not k.startswith(UNUSED)}


@pytest.mark.parametrize("size", [0, 1])
@torch.no_grad()
def test_logits_are_those_of_the_reference(size):
    name = f"segformer-b{size}.nvlabs"
    network = fill(getattr(segformer, f"segformer_b{size}")())
    assert_golden(name, network.all_outputs(golden_input(name)).values())


@torch.no_grad()
def test_logits_are_those_of_transformers(tmp_path):
    """As transformers saves a network, under the hub's names, and as it names one in memory."""
    transformers = pytest.importorskip("transformers")
    name = "segformer-b0.hf-transformers5"
    theirs = fill(transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(num_labels=19)))
    theirs.save_pretrained(tmp_path)
    assert (
        published_keys("segformer-b0.hf-hub").keys() == read_checkpoint(tmp_path / "model.safetensors")[0].keys()
    )
    torch.save(theirs.state_dict(), tmp_path / "in-memory.pt")
    x = golden_input(name)
    expected = theirs(x).logits
    for file in ("model.safetensors", "in-memory.pt"):
        logits = load_network("segformer-b0", tmp_path / file)(x)
        assert_golden(name, [logits])
        assert (logits - expected).abs().max() <= TOLERANCE * expected.abs().max()


@pytest.mark.parametrize("size", [0, 2])
@pytest.mark.parametrize("source", ["hf-hub", "smp"])
@torch.no_grad()
def test_renamed_weights_give_the_same_function(size, source, tmp_path):
    """No outputs of these two sources are at hand; their names are written down here a second time."""
    drawn = published_state(f"segformer-b{size}.{source}")
    own = getattr(segformer, f"segformer_b{size}")(eps_block=EPS_BLOCK[source]).double().eval()
    own.load_state_dict({key: _gather(drawn, key, NAMES[source]) for key in own.state_dict()})
    torch.save(drawn, tmp_path / "n.pth")
    network = load_network(f"segformer-b{size}", tmp_path / "n.pth")
    x = golden_input("segformer-b0.nvlabs")[..., :64, :96]
    expected = own(x)
    assert torch.equal(network.raw_logits(x), expected)
    if source == "smp":
        expected = F.interpolate(expected, scale_factor=4, mode="bilinear", align_corners=True)
    assert torch.equal(network(x), expected)


@pytest.mark.parametrize(("source", "lost"), [("hf-hub", "key"), ("hf-hub", "value"), ("mmseg", "in_proj_weight")])
def test_a_file_without_a_part_of_the_attention_is_refused(source, lost, tmp_path):
    whole = published_state(f"segformer-b0.{source}")
    torch.save({key: value for key, value in whole.items() if lost not in key}, tmp_path / "n.pth")
    with pytest.raises(BadInput, match=r"no segformer-b0 checkpoint: .*\.attn\.kv\."):
        load_network("segformer-b0", tmp_path / "n.pth")


@pytest.mark.parametrize("options", [{}, {"convolutional": True}, {"full_size": True}])
def test_laws(options):
    assert_laws(lambda classes: segformer_b0(classes, **options))


def test_any_size_will_do():
    network = segformer_b0(CLASSES).eval()
    assert network.size_multiple == 1
    assert network(torch.zeros(1, 3, 70, 101)).shape == (1, CLASSES, 18, 26)


def test_full_size_needs_multiples_of_32():
    network = segformer_b0(CLASSES, full_size=True).eval()
    assert network(torch.zeros(1, 3, 64, 96)).shape == (1, CLASSES, 64, 96)
    with pytest.raises(BadInput, match="multiples of 32, got 70x101; pad to 96x128"):
        network(torch.zeros(1, 3, 70, 101))
    victim = Victim(network, size_multiple=network.size_multiple, align_corners=network.output_align_corners)
    assert victim(torch.zeros(1, 3, 70, 101)).shape == (1, CLASSES, 70, 101)


def test_paths_drop_in_training_only_and_from_the_default_generator():
    images = torch.randn(4, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    encoder = SegFormer(CLASSES, drop_path=0.9).backbone
    drawn = []
    for training, seed in ((True, 1), (True, 1), (True, 2), (False, 1), (False, 2)):
        torch.manual_seed(seed)
        drawn.append(encoder.train(training)(images)[-1])
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(drawn[3], drawn[4])
    before = torch.get_rng_state()
    encoder.eval()(images)
    assert torch.equal(torch.get_rng_state(), before)


def _gather(drawn, key, rules):
    """One of our tensors, out of those of a source."""
    if ".attn.kv." in key and rules is NAMES["hf-hub"]:
        parts = [key.replace(".attn.kv.", f".attn.{part}.") for part in ("key", "value")]
        return torch.cat([_gather(drawn, part, rules) for part in parts])
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return drawn[key]


def _one_less(template):
    return lambda match: template.format(int(match[1]) - 1)


EPS_BLOCK = {"hf-hub": 1e-5, "smp": 1e-6}
NAMES = {
    "hf-hub": [
        (r"^backbone\.patch_embed(\d)", _one_less("segformer.encoder.patch_embeddings.{}")),
        (r"^backbone\.block(\d)", _one_less("segformer.encoder.block.{}")),
        (r"^backbone\.norm(\d)", _one_less("segformer.encoder.layer_norm.{}")),
        (r"\.norm([12])\.", r".layer_norm_\1."),
        (r"\.norm\.", ".layer_norm."),
        (r"\.attn\.q\.", ".attention.self.query."),
        (r"\.attn\.proj\.", ".attention.output.dense."),
        (r"\.attn\.", ".attention.self."),
        (r"\.mlp\.fc", ".mlp.dense"),
        (r"\.linear_c(\d)\.", _one_less(".linear_c.{}.")),
        (r"\.linear_fuse\.conv\.", ".linear_fuse."),
        (r"\.linear_fuse\.bn\.", ".batch_norm."),
        (r"\.linear_pred\.", ".classifier."),
    ],
    "smp": [
        (r"^backbone\.", "encoder."),
        (r"^decode_head\.linear_c(\d)\.proj\.", lambda match: f"decoder.mlp_stage.{4 - int(match[1])}.linear."),
        (r"^decode_head\.linear_fuse\.conv\.", "decoder.fuse_stage.0."),
        (r"^decode_head\.linear_fuse\.bn\.", "decoder.fuse_stage.1."),
        (r"^decode_head\.linear_pred\.", "segmentation_head.0."),
    ],
}
