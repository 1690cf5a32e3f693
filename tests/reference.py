"""The mathematics once more, as slow loops over single numbers, for the tests to compare with."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import torch
from hypothesis import settings
from torch import Tensor

from segpatch.transforms import Scene
from segpatch.types import IGNORE, Region

LAW = settings(max_examples=50, deadline=None, derandomize=True)
"""For hypothesis: the same examples in every run, and no clock, since the machine may be busy."""


def paste_loop(image: Tensor, patch: Tensor, region: Region) -> Tensor:
    """The image (3, H, W) with the patch (3, h, w) at the region, pixel by pixel."""
    out = image.clone()
    for channel in range(3):
        for row in range(region.height):
            for column in range(region.width):
                out[channel, region.top + row, region.left + column] = patch[channel, row, column]
    return out


def scene_loop(image: Tensor, scene: Scene) -> Tensor:
    """The bilinear scene (3, h, w) of an image (3, H, W); 0 outside."""
    out = torch.zeros(3, *scene.size, dtype=image.dtype)
    for row, column, y, x in _sources(image.shape[1:], scene):
        top, left = math.floor(y), math.floor(x)
        bottom, right = min(top + 1, image.shape[1] - 1), min(left + 1, image.shape[2] - 1)
        down, along = float(y - top), float(x - left)
        upper = image[:, top, left] * (1 - along) + image[:, top, right] * along
        lower = image[:, bottom, left] * (1 - along) + image[:, bottom, right] * along
        out[:, row, column] = upper * (1 - down) + lower * down
    return out


def labels_loop(labels: Tensor, scene: Scene) -> Tensor:
    """The nearest labels (h, w) of labels (H, W), the later one of two that are equally near; IGNORE outside."""
    out = torch.full(scene.size, IGNORE)
    for row, column, y, x in _sources(labels.shape, scene):
        out[row, column] = labels[math.floor(y + Fraction(1, 2)), math.floor(x + Fraction(1, 2))]
    return out


def confusion_loop(predictions: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Counts (B, K, K) [image, true, predicted]."""
    out = torch.zeros(len(labels), classes, classes, dtype=torch.int32)
    for image, (predicted, truth) in enumerate(zip(predictions.tolist(), labels.tolist(), strict=True)):
        for predicted_row, truth_row in zip(predicted, truth, strict=True):
            for guess, true in zip(predicted_row, truth_row, strict=True):
                if true != IGNORE:
                    out[image, true, guess] += 1
    return out


def iou_loop(confusion: Tensor) -> list[float]:
    """IoU per class of one confusion matrix (K, K); NaN where it has no true pixel."""
    matrix = confusion.tolist()
    classes = range(len(matrix))
    out = []
    for c in classes:
        union = sum(matrix[c]) + sum(matrix[other][c] for other in classes) - matrix[c][c]
        out.append(matrix[c][c] / union if sum(matrix[c]) else math.nan)
    return out


def miou_loop(confusion: Tensor) -> float:
    """Mean IoU of one confusion matrix (K, K) over the classes that occur."""
    present = [iou for iou in iou_loop(confusion) if not math.isnan(iou)]
    return sum(present) / len(present)


def loss_loop(
    logits: Tensor, labels: Tensor, of_pixel: Callable[[list[float], int, bool], float], *, only_right: bool
) -> tuple[float, int]:
    """Summed loss and number of pixels: the labelled ones, or of those the rightly predicted.

    of_pixel: from the class probabilities of a labelled pixel, its class, and whether it is right, to its loss.
    """
    total, count = 0.0, 0
    for image in range(labels.shape[0]):
        for row in range(labels.shape[1]):
            for column in range(labels.shape[2]):
                true = int(labels[image, row, column])
                if true == IGNORE:
                    continue
                scores = logits[image, :, row, column].tolist()
                right = scores.index(max(scores)) == true
                exponentials = [math.exp(score) for score in scores]
                total += of_pixel([one / sum(exponentials) for one in exponentials], true, right)
                count += right or not only_right
    return total, count


def _sources(size: torch.Size, scene: Scene) -> list[tuple[int, int, Fraction, Fraction]]:
    """row, column in the result and y, x in the image, for each pixel of the result that lies in it."""
    out = []
    for row in range(scene.size[0]):
        for column in range(scene.size[1]):
            y, x = scene.top + row, scene.left + column
            if y < scene.scaled[0] and x < scene.scaled[1]:
                target = column if not scene.flip else scene.size[1] - 1 - column
                y_in = (y + Fraction(1, 2)) * size[0] / scene.scaled[0] - Fraction(1, 2)
                x_in = (x + Fraction(1, 2)) * size[1] / scene.scaled[1] - Fraction(1, 2)
                out.append((row, target, _inside(y_in, size[0]), _inside(x_in, size[1])))
    return out


def _inside(position: Fraction, length: int) -> Fraction:
    return max(Fraction(0), min(position, Fraction(length - 1)))
