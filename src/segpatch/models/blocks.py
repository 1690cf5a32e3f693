"""What more than one network is built from, with the parameter names of their published checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from segpatch.errors import BadInput


class ConvBNReLU(nn.Module):
    """Bias-free convolution, batch norm, ReLU. Keys: conv, bn."""

    def __init__(
        self, width_in: int, width: int, kernel: int = 3, stride: int = 1, *, groups: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        self.conv = conv(width_in, width, kernel, stride, groups=groups, dilation=dilation)
        self.bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.bn(self.conv(x)))
        return out


class BasicBlock(nn.Module):
    """Residual block of two 3x3 convolutions, the first `dilation` wide; the last ReLU can be left to the caller.

    Keys: conv1, bn1, conv2, bn2, downsample.0, downsample.1. Source: arXiv:1512.03385, figure 5 left.
    """

    expansion = 1

    def __init__(self, width_in: int, width: int, stride: int = 1, *, final_relu: bool, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = conv(width_in, width, 3, stride, dilation=dilation)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(width_in, width, stride)
        self.final_relu = final_relu

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out)) + (x if self.downsample is None else self.downsample(x))
        return F.relu(out) if self.final_relu else out


class Bottleneck(nn.Module):
    """Residual block 1x1, 3x3 (`dilation` wide), 1x1 that returns expansion x width channels.

    Keys: conv1 to conv3, bn1 to bn3, downsample.0, downsample.1. Source: arXiv:1512.03385, figure 5 right.
    """

    def __init__(
        self,
        width_in: int,
        width: int,
        stride: int = 1,
        *,
        expansion: int = 2,
        final_relu: bool = False,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        width_out = width * expansion
        self.conv1 = conv(width_in, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, stride, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, width_out, 1)
        self.bn3 = nn.BatchNorm2d(width_out)
        self.downsample = _shortcut(width_in, width_out, stride)
        self.final_relu = final_relu

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out)) + (x if self.downsample is None else self.downsample(x))
        return F.relu(out) if self.final_relu else out


class FCNHead(nn.Module):
    """Logits at the size of a map: convolution, norm, ReLU, dropout, 1x1. Keys: convs.0, conv_seg."""

    def __init__(self, width_in: int, inner: int, classes: int, *, kernel: int = 3, dropout: float = 0.1) -> None:
        super().__init__()
        self.convs = nn.Sequential(ConvBNReLU(width_in, inner, kernel))
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = nn.Conv2d(inner, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.conv_seg(self.dropout(self.convs(x)))
        return logits


def conv(
    width_in: int, width: int, kernel: int, stride: int = 1, *, groups: int = 1, dilation: int = 1
) -> nn.Conv2d:
    """A convolution without bias, padded so that stride 1 keeps the size (odd kernels)."""
    padding = kernel // 2 * dilation
    return nn.Conv2d(width_in, width, kernel, stride, padding, dilation, groups=groups, bias=False)


def conv_bn(width_in: int, width: int, kernel: int, stride: int = 1, *, groups: int = 1) -> nn.Sequential:
    """Convolution and batch norm. Keys: 0, 1."""
    return nn.Sequential(conv(width_in, width, kernel, stride, groups=groups), nn.BatchNorm2d(width))


def basic_stage(width_in: int, width: int, depth: int, stride: int = 1) -> nn.Sequential:
    """`depth` basic blocks; all but the last end in a ReLU."""
    blocks = [
        BasicBlock(width if k else width_in, width, 1 if k else stride, final_relu=k < depth - 1)
        for k in range(depth)
    ]
    return nn.Sequential(*blocks)


def resize(x: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """x (B, C, H, W) bilinearly resampled to size (H', W')."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=align_corners)


def supervised_loss(
    outputs: Mapping[str, Tensor],
    labels: Tensor,
    criterion: Callable[[Tensor, Tensor], Tensor],
    *,
    auxiliary_weight: float,
    align_corners: bool = False,
) -> Tensor:
    """criterion(logits, labels) of "main" plus auxiliary_weight x that of every other output, a scalar.

    All logits are resized to the labels (B, H, W) first. Source: arXiv:1612.01105.
    """
    losses = {
        name: criterion(resize(logits.float(), size_of(labels), align_corners=align_corners), labels)
        for name, logits in outputs.items()
    }
    total = losses.pop("main")
    for loss in losses.values():
        total = total + auxiliary_weight * loss
    return total


def size_of(x: Tensor) -> tuple[int, int]:
    """Height and width of an image or a map."""
    return x.shape[-2], x.shape[-1]


def check_size(x: Tensor, multiple: int, offset: int = 0) -> None:
    """BadInput unless height and width of x are `offset` above multiples of `multiple`."""
    height, width = size_of(x)
    fits_height, fits_width = (side + (offset - side) % multiple for side in (height, width))
    if (height, width) != (fits_height, fits_width):
        plus = f" plus {offset}" if offset else ""
        raise BadInput(
            f"this network needs height and width in multiples of {multiple}{plus}, got {height}x{width}; "
            f"pad to {fits_height}x{fits_width} and crop the logits"
        )


def initialise(network: nn.Module) -> None:
    """Random weights to train from: He normal for convolutions, truncated normal (0.02) for linear layers.

    Norms start as the identity, biases at 0. Draws from torch's default generator.
    Source: arXiv:1502.01852 (keeps the variance of activations through ReLUs).
    """
    if next(network.parameters()).is_meta:
        return  # only names and shapes are wanted, and torch takes its time over drawing nothing
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.zeros_(module.bias)


def _shortcut(width_in: int, width: int, stride: int) -> nn.Sequential | None:
    return None if stride == 1 and width_in == width else conv_bn(width_in, width, 1, stride)
