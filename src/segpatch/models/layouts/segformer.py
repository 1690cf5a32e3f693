"""SegFormer's layouts: NVlabs, Hugging Face (two generations), segmentation-models-pytorch and mmsegmentation.

The first four are one function, but for the epsilon of some layer norms and the size of what it returns;
mmsegmentation has another decoder.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from segpatch.models.layouts.layout import Layout, Rules, State
from segpatch.models.segformer import (
    segformer_b0,
    segformer_b1,
    segformer_b2,
    segformer_b3,
    segformer_b4,
    segformer_b5,
)

_PARTS = {
    "patch_embeddings": "patch_embed",
    "block": "block",
    "blocks": "block",
    "layer_norm": "norm",
    "0": "patch_embed",
    "1": "block",
    "2": "norm",
}


def _part(match: re.Match[str]) -> str:
    """A part of the encoder by what it is and its stage, which others count from 0."""
    return f"backbone.{_PARTS[match['part']]}{int(match['stage']) + 1}."


def _projection(match: re.Match[str]) -> str:
    return f"decode_head.linear_c{int(match[1]) + 1}."


_HF_DECODER: Rules = (
    (r"^decode_head\.linear_(?:c|projections)\.(\d)\.", _projection),
    (r"^decode_head\.linear_fuse\.", "decode_head.linear_fuse.conv."),
    (r"^decode_head\.batch_norm\.", "decode_head.linear_fuse.bn."),
    (r"^decode_head\.classifier\.", "decode_head.linear_pred."),
)
HUGGING_FACE: Rules = (
    (r"^segformer\.encoder\.(?P<part>patch_embeddings|block|layer_norm)\.(?P<stage>\d)\.", _part),
    (r"\.layer_norm_([12])\.", r".norm\1."),
    (r"\.layer_norm\.", ".norm."),
    (r"\.attention\.self\.query\.", ".attn.q."),
    (r"\.attention\.self\.", ".attn."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.mlp\.dense([12])\.", r".mlp.fc\1."),
    *_HF_DECODER,
)
TRANSFORMERS_5: Rules = (
    (r"^segformer\.stages\.(?P<stage>\d)\.(?P<part>patch_embeddings|blocks|layer_norm)\.", _part),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.q_proj\.", ".attn.q."),
    (r"\.attention\.k_proj\.", ".attn.key."),
    (r"\.attention\.v_proj\.", ".attn.value."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.attention\.sequence_reduction\.sequence_reduction\.", ".attn.sr."),
    (r"\.attention\.sequence_reduction\.", ".attn."),
    (r"\.layer_norm\.", ".norm."),
    *_HF_DECODER,
)
SMP: Rules = (
    (r"^encoder\.", "backbone."),
    (r"^decoder\.mlp_stage\.(\d)\.linear\.", lambda match: f"decode_head.linear_c{4 - int(match[1])}.proj."),
    (r"^decoder\.fuse_stage\.0\.", "decode_head.linear_fuse.conv."),
    (r"^decoder\.fuse_stage\.1\.", "decode_head.linear_fuse.bn."),
    (r"^segmentation_head\.0\.", "decode_head.linear_pred."),
)
MMSEGMENTATION: Rules = (
    (r"^backbone\.layers\.(?P<stage>\d)\.(?P<part>[012])\.", _part),
    (r"^(backbone\.patch_embed\d)\.projection\.", r"\1.proj."),
    (r"\.attn\.attn\.out_proj\.", ".attn.proj."),
    (r"\.attn\.attn\.in_proj_", ".attn.qkv."),
    (r"\.ffn\.layers\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.dwconv.dwconv."),
    (r"\.ffn\.layers\.4\.", ".mlp.fc2."),
)


def _join_key_and_value(state: State) -> State:
    """Keys and values as one layer, keys first."""
    out = dict(state)
    for key in [name for name in state if ".attn.key." in name]:
        value = key.replace(".attn.key.", ".attn.value.")
        if value in out:
            out[key.replace(".attn.key.", ".attn.kv.")] = torch.cat((out.pop(key), out.pop(value)))
    return out


def _split_attention(state: State) -> State:
    """Queries apart from keys and values, and linear layers where the source has 1x1 convolutions."""
    out = {
        name: value.flatten(1) if re.search(r"\.fc\d\.weight$", name) else value for name, value in state.items()
    }
    for name in [name for name in state if ".attn.qkv." in name]:
        stacked = out.pop(name)
        out[name.replace(".attn.qkv.", ".attn.q.")] = stacked[: len(stacked) // 3]
        out[name.replace(".attn.qkv.", ".attn.kv.")] = stacked[len(stacked) // 3 :]
    return out


def _layouts(build: Callable[..., nn.Module]) -> tuple[Layout, ...]:
    classifier = "decode_head.linear_pred.weight"
    return (
        Layout(
            source="nvlabs",
            build=build,
            classifier=classifier,
            marks=("backbone.patch_embed1.proj.weight",),
            unused=("decode_head.conv_seg.",),
        ),
        Layout(
            source="hugging-face",
            build=partial(build, eps_block=1e-5),
            classifier=classifier,
            marks=("segformer.encoder.patch_embeddings.0.proj.weight",),
            rename=HUGGING_FACE,
            convert=_join_key_and_value,
        ),
        Layout(
            source="transformers-5",
            build=partial(build, eps_block=1e-5),
            classifier=classifier,
            marks=("segformer.stages.0.patch_embeddings.proj.weight",),
            rename=TRANSFORMERS_5,
            convert=_join_key_and_value,
        ),
        Layout(
            source="segmentation-models-pytorch",
            build=partial(build, full_size=True),
            classifier=classifier,
            marks=("encoder.patch_embed1.proj.weight", "decoder.mlp_stage.0.linear.weight"),
            rename=SMP,
        ),
        Layout(
            source="mmsegmentation",
            build=partial(build, convolutional=True, eps_embed=1e-6, eps_block=1e-6),
            classifier="decode_head.conv_seg.weight",
            marks=("backbone.layers.0.0.projection.weight",),
            rename=MMSEGMENTATION,
            convert=_split_attention,
        ),
    )


SEGFORMER_B0 = _layouts(segformer_b0)
SEGFORMER_B1 = _layouts(segformer_b1)
SEGFORMER_B2 = _layouts(segformer_b2)
SEGFORMER_B3 = _layouts(segformer_b3)
SEGFORMER_B4 = _layouts(segformer_b4)
SEGFORMER_B5 = _layouts(segformer_b5)
