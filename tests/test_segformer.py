import re

import pytest
import torch

from golden_recipe import TOLERANCE, assert_golden, fill, golden_input, keys_of, published_keys
from network_laws import CLASSES, SIZE, assert_laws
from segpatch.models import segformer
from segpatch.models.segformer import SegFormer, segformer_b0

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
def test_logits_are_those_of_transformers():
    transformers = pytest.importorskip("transformers")
    name = "segformer-b0.hf-transformers5"
    theirs = transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(num_labels=19))
    fill(theirs)
    ours = segformer_b0(eps_block=1e-5).double().eval()
    ours.load_state_dict(_from_transformers(theirs.state_dict()))
    x = golden_input(name)
    logits = ours(x)
    assert_golden(name, [logits])
    expected = theirs(x).logits
    assert (logits - expected).abs().max() <= TOLERANCE * expected.abs().max()


def test_laws():
    assert_laws(segformer_b0)


def test_any_size_will_do():
    network = segformer_b0(CLASSES).eval()
    assert network.size_multiple == 1
    assert network(torch.zeros(1, 3, 70, 101)).shape == (1, CLASSES, 18, 26)


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


def _from_transformers(state):
    """Our state dict from that of transformers' model, whose keys and values are separate layers."""
    rules = [
        (r"^segformer\.(encoder\.)?stages\.(\d)\.", lambda m: f"stage{int(m[2]) + 1}."),
        (r"^stage(\d)\.patch_embeddings\.", r"backbone.patch_embed\1."),
        (r"^stage(\d)\.blocks\.", r"backbone.block\1."),
        (r"^stage(\d)\.layer_norm\.", r"backbone.norm\1."),
        (r"\.layer_norm\.", ".norm."),
        (r"\.layernorm_before\.", ".norm1."),
        (r"\.layernorm_after\.", ".norm2."),
        (r"\.attention\.sequence_reduction\.sequence_reduction\.", ".attn.sr."),
        (r"\.attention\.sequence_reduction\.", ".attn."),
        (r"\.attention\.q_proj\.", ".attn.q."),
        (r"\.attention\.o_proj\.", ".attn.proj."),
        (r"\.attention\.", ".attn."),
        (r"^decode_head\.linear_projections\.(\d)\.", lambda m: f"decode_head.linear_c{int(m[1]) + 1}."),
        (r"^decode_head\.linear_fuse\.", "decode_head.linear_fuse.conv."),
        (r"^decode_head\.batch_norm\.", "decode_head.linear_fuse.bn."),
        (r"^decode_head\.classifier\.", "decode_head.linear_pred."),
    ]
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    for key in [k for k in renamed if ".k_proj." in k]:
        pair = [renamed.pop(key), renamed.pop(key.replace(".k_proj.", ".v_proj."))]
        renamed[key.replace(".k_proj.", ".kv.")] = torch.cat(pair)
    return renamed
