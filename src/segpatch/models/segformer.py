"""SegFormer: a hierarchical transformer without position codes (MiT) and a light decoder.

Source: Xie, Wang, Yu et al., "SegFormer", arXiv:2105.15203. Keys are those of the authors' release; those of the
convolutional decoder, which only mmsegmentation has, are mmsegmentation's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segpatch.models.blocks import ConvBNReLU, check_size, initialise, resize, size_of

HEADS = (1, 2, 5, 8)  # of each stage, as what follows
REDUCTIONS = (8, 4, 2, 1)  # of the sides of the map that keys and values come from
PATCHES = (7, 3, 3, 3)
STRIDES = (4, 2, 2, 2)
MLP_RATIO = 4
CONV_WIDTH = 256  # of the convolutional decoder, for every size of network

B0_DIMS = (32, 64, 160, 256)
DIMS = (64, 128, 320, 512)  # of B1 to B5

Norm = Callable[[int], nn.LayerNorm]


class SegFormer(nn.Module):
    """The whole network. Input (B, 3, H, W) of any size; logits at 1/4.

    dims, depths: width and number of blocks of the four stages; decoder_width: width of the linear decoder;
    drop_path: chance that a training sample skips a branch of the last block (grows linearly from 0 at the
    first). Published checkpoints differ in the rest. eps_embed: of the layer norms behind a convolution;
    eps_block: of the others. NVlabs and segmentation-models-pytorch have (1e-5, 1e-6), Hugging Face (1e-5, 1e-5),
    mmsegmentation (1e-6, 1e-6). convolutional: with mmsegmentation's decoder. full_size: `forward` enlarges the
    logits to the size of the input, whose sides must be multiples of 32, as segmentation-models-pytorch does.
    auxiliary changes nothing: there are no auxiliary heads.
    """

    def __init__(
        self,
        classes: int = 19,
        *,
        dims: Sequence[int] = B0_DIMS,
        depths: Sequence[int] = (2, 2, 2, 2),
        decoder_width: int = 256,
        eps_embed: float = 1e-5,
        eps_block: float = 1e-6,
        drop_path: float = 0.1,
        convolutional: bool = False,
        full_size: bool = False,
        auxiliary: bool = True,
    ) -> None:
        super().__init__()
        self.size_multiple = 32 if full_size else 1
        self.output_align_corners = full_size
        self.full_size = full_size
        self.backbone = MixTransformer(dims, depths, drop_path, eps_embed=eps_embed, eps_block=eps_block)
        self.decode_head = ConvDecoder(dims, classes) if convolutional else Decoder(dims, decoder_width, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Class logits (B, K, H/4, W/4), sizes rounded up; (B, K, H, W) where they are enlarged."""
        logits = self.raw_logits(x)
        return resize(logits, size_of(x), align_corners=True) if self.full_size else logits

    def raw_logits(self, x: Tensor) -> Tensor:
        """Class logits (B, K, H/4, W/4), sizes rounded up."""
        check_size(x, self.size_multiple)
        logits: Tensor = self.decode_head(self.backbone(x))
        return logits

    def all_outputs(self, x: Tensor) -> dict[str, Tensor]:
        """`forward`'s logits, as "main"; there are no auxiliary outputs."""
        return {"main": self(x)}

    def training_loss(
        self, outputs: dict[str, Tensor], labels: Tensor, criterion: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """criterion(logits, labels) at the size of the labels (B, H, W), a scalar."""
        return criterion(resize(outputs["main"].float(), size_of(labels)), labels)


class MixTransformer(nn.Module):
    """The encoder: four stages, each an overlapping patch embedding, transformer blocks and a norm.

    Keys: patch_embedN, blockN, normN, for N = 1 to 4.
    """

    def __init__(
        self,
        dims: Sequence[int],
        depths: Sequence[int],
        drop_path: float,
        *,
        eps_embed: float,
        eps_block: float,
    ) -> None:
        super().__init__()
        embed_norm = partial(nn.LayerNorm, eps=eps_embed)
        block_norm = partial(nn.LayerNorm, eps=eps_block)
        total = sum(depths)
        rates = iter([drop_path * k / max(total - 1, 1) for k in range(total)])
        for k, (width_in, width) in enumerate(pairwise((3, *dims))):
            embedding = PatchEmbedding(width_in, width, PATCHES[k], STRIDES[k], embed_norm)
            blocks = [
                Block(width, HEADS[k], REDUCTIONS[k], next(rates), embed_norm, block_norm)
                for _ in range(depths[k])
            ]
            self.add_module(f"patch_embed{k + 1}", embedding)
            self.add_module(f"block{k + 1}", nn.ModuleList(blocks))
            self.add_module(f"norm{k + 1}", block_norm(width))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps (B, C, H, W) at 1/4, 1/8, 1/16 and 1/32."""
        maps = []
        for n in range(1, 5):
            tokens, size = self.get_submodule(f"patch_embed{n}")(x)
            for block in self.get_submodule(f"block{n}").children():
                tokens = block(tokens, size)
            x = _to_map(self.get_submodule(f"norm{n}")(tokens), size)
            maps.append(x)
        return maps


class PatchEmbedding(nn.Module):
    """A strided convolution whose windows overlap, and a norm."""

    def __init__(self, width_in: int, width: int, patch: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.proj = nn.Conv2d(width_in, width, patch, stride, patch // 2)
        self.norm = norm(width)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens (B, H*W, C), and (H, W)."""
        x = self.proj(x)
        return self.norm(_to_tokens(x)), size_of(x)


class Block(nn.Module):
    """Transformer block: attention, then Mix-FFN, each behind a norm and beside a shortcut."""

    def __init__(
        self, width: int, heads: int, reduction: int, drop_path: float, reduced_norm: Norm, norm: Norm
    ) -> None:
        super().__init__()
        self.norm1 = norm(width)
        self.attn = Attention(width, heads, reduction, reduced_norm)
        self.norm2 = norm(width)
        self.mlp = MixFFN(width, width * MLP_RATIO)
        self.drop_path = drop_path

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        tokens = tokens + self._drop(self.attn(self.norm1(tokens), size))
        return tokens + self._drop(self.mlp(self.norm2(tokens), size))

    def _drop(self, branch: Tensor) -> Tensor:
        """In training, the branch without a random part of the samples, scaled to keep its mean."""
        if not self.training or self.drop_path == 0:
            return branch
        keep = torch.rand(len(branch), 1, 1, device=branch.device) >= self.drop_path
        return branch * keep / (1 - self.drop_path)


class Attention(nn.Module):
    """Self-attention whose keys and values are taken from a map reduced `reduction` times."""

    def __init__(self, width: int, heads: int, reduction: int, norm: Norm) -> None:
        super().__init__()
        self.heads = heads
        self.reduction = reduction
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        if reduction > 1:
            self.sr = nn.Conv2d(width, width, reduction, reduction)
            self.norm = norm(width)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        source = tokens
        if self.reduction > 1:
            source = self.norm(_to_tokens(self.sr(_to_map(tokens, size))))
        key, value = self.kv(source).chunk(2, dim=-1)
        mixed = F.scaled_dot_product_attention(self._split(self.q(tokens)), self._split(key), self._split(value))
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        """(B, N, C) to (B, heads, N, C / heads)."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


class MixFFN(nn.Module):
    """Feed-forward layer with a depthwise convolution inside, which tells tokens where they are."""

    def __init__(self, width: int, wide: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, wide)
        self.dwconv = DepthwiseConv(wide)
        self.fc2 = nn.Linear(wide, width)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.dwconv(self.fc1(tokens), size)))
        return out


class DepthwiseConv(nn.Module):
    """3x3 convolution of tokens, channel by channel. Key: dwconv."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        return _to_tokens(self.dwconv(_to_map(tokens, size)))


class Decoder(nn.Module):
    """All-MLP decoder: every stage to one width and to 1/4, fused by a linear layer."""

    def __init__(self, dims: Sequence[int], width: int, classes: int) -> None:
        super().__init__()
        self.linear_c1 = Projection(dims[0], width)
        self.linear_c2 = Projection(dims[1], width)
        self.linear_c3 = Projection(dims[2], width)
        self.linear_c4 = Projection(dims[3], width)
        self.linear_fuse = ConvBNReLU(4 * width, width, kernel=1)
        self.dropout = nn.Dropout2d(0.1)
        self.linear_pred = nn.Conv2d(width, classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        c1, c2, c3, c4 = maps
        projected = (self.linear_c4(c4), self.linear_c3(c3), self.linear_c2(c2), self.linear_c1(c1))
        logits: Tensor = self.linear_pred(self.dropout(_fuse(self.linear_fuse, projected, size_of(c1))))
        return logits


class ConvDecoder(nn.Module):
    """mmsegmentation's decoder: every stage to one width by a 1x1 ConvBNReLU, fused by another."""

    def __init__(self, dims: Sequence[int], classes: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([ConvBNReLU(dim, CONV_WIDTH, kernel=1) for dim in dims])
        self.fusion_conv = ConvBNReLU(len(dims) * CONV_WIDTH, CONV_WIDTH, kernel=1)
        self.dropout = nn.Dropout2d(0.1)
        self.conv_seg = nn.Conv2d(CONV_WIDTH, classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        projected = [project(x) for project, x in zip(self.convs, maps, strict=True)]
        logits: Tensor = self.conv_seg(self.dropout(_fuse(self.fusion_conv, projected, size_of(maps[0]))))
        return logits


class Projection(nn.Module):
    """A linear layer on the channels of a map. Key: proj."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width_in, width)

    def forward(self, x: Tensor) -> Tensor:
        return _to_map(self.proj(_to_tokens(x)), size_of(x))


def _fuse(fusion: ConvBNReLU, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """The 1x1 `fusion` of the maps enlarged to `size` and concatenated.

    Each map meets its share of the weights before it is enlarged: a 1x1 convolution and a bilinear resize
    commute, and most of the work is then done on small maps.
    """
    weights = fusion.conv.weight.chunk(len(maps), dim=1)
    first, *others = [resize(F.conv2d(x, weight), size) for x, weight in zip(maps, weights, strict=True)]
    fused: Tensor = fusion.relu(fusion.bn(sum(others, start=first)))
    return fused


def _to_tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, H*W, C)."""
    return x.flatten(2).transpose(1, 2)


def _to_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H*W, C) to (B, C, H, W)."""
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *size)


segformer_b0 = partial(SegFormer, dims=B0_DIMS, depths=(2, 2, 2, 2), decoder_width=256)
segformer_b1 = partial(SegFormer, dims=DIMS, depths=(2, 2, 2, 2), decoder_width=256)
segformer_b2 = partial(SegFormer, dims=DIMS, depths=(3, 4, 6, 3), decoder_width=768)
segformer_b3 = partial(SegFormer, dims=DIMS, depths=(3, 4, 18, 3), decoder_width=768)
segformer_b4 = partial(SegFormer, dims=DIMS, depths=(3, 8, 27, 3), decoder_width=768)
segformer_b5 = partial(SegFormer, dims=DIMS, depths=(3, 6, 40, 3), decoder_width=768)
