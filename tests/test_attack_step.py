from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from segpatch.attack import train_patch
from segpatch.attack_config import PRESETS, AttackConfig
from segpatch.attack_step import Step, draw_samples, patch_gradient
from segpatch.data import open_data
from segpatch.data.dataset import order
from segpatch.data.images import split_images
from segpatch.eot import EOT, apply_placement, draw
from segpatch.losses import LOSSES
from segpatch.models.load import load_victim
from segpatch.models.victim import Victim
from segpatch.patch import FULL_RANGE, random_pixels
from segpatch.processes import ALONE
from segpatch.transforms import SceneEOT, apply_scene, apply_scene_to_labels
from segpatch.types import IGNORE
from segpatch.updates import adam_start, adam_step
from side_by_side import side_by_side
from tiny import TINY, conv_victim, pictures, plain


def gradient_of(
    victims: list[Victim], pixels: Tensor, step: int, config: AttackConfig, processes=ALONE
) -> tuple[Tensor, Step]:
    """The gradient of a step on all five pictures, and what it saw."""
    images = pictures()
    gradient, seen = patch_gradient(
        victims, pixels, config, lambda: draw_samples(images, range(5), step, config, processes), processes, step
    )
    return gradient, seen.read(step)


def double(victim, batch: int):
    """The victim in float64, a config with `batch` images a step, and pixels in float64."""
    victim.module.double()
    config = replace(TINY, batch_size=batch, loss="correct-pixel")
    return victim, config, random_pixels((4, 4), FULL_RANGE, 3).double()


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 4, 9])
def test_micro_batches_add_up_to_the_whole_step(micro_batch: int):
    victim, config, pixels = double(conv_victim(), 5)
    whole, seen = gradient_of([victim], pixels, 7, config)
    split = replace(config, micro_batch=micro_batch)
    parts, seen_in_parts = gradient_of([victim], pixels, 7, split)
    assert whole.dtype == torch.float64 and whole.abs().max() > 1e-3
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-14)
    assert (seen.micro_batch, seen_in_parts.micro_batch) == (5, micro_batch)
    torch.testing.assert_close(torch.tensor(seen_in_parts[:-1]), torch.tensor(seen[:-1]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("world", [2, 3, 7])
def test_several_processes_add_up_to_the_whole_step(world: int):
    victim, config, pixels = double(conv_victim(), 5)
    whole, seen = gradient_of([victim], pixels, 7, config)
    shares = side_by_side(world, lambda p: gradient_of([victim], pixels, 7, config, p))
    for gradient, step in shares:
        torch.testing.assert_close(gradient, whole, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(torch.tensor(step), torch.tensor(seen), rtol=1e-12, atol=1e-12)
    assert all(torch.equal(gradient, shares[0][0]) for gradient, _ in shares)


def test_several_victims_have_the_same_say():
    victims = [conv_victim(seed, name=f"v{seed}") for seed in range(3)]
    victims[1].module.weight.data *= 20  # its gradient is much larger
    config = replace(TINY, batch_size=4, micro_batch=3, loss="cross-entropy")
    pixels = random_pixels((4, 4), FULL_RANGE, 0)
    together, step = gradient_of(victims, pixels, 2, config)
    alone = [gradient_of([victim], pixels, 2, config) for victim in victims]
    assert alone[1][1].gradient_norm > 5 * alone[0][1].gradient_norm
    units = [gradient / gradient.norm() for gradient, _ in alone]
    torch.testing.assert_close(together, torch.stack(units).mean(0))
    assert step.loss == pytest.approx(sum(one.loss for _, one in alone) / 3)
    assert step.correct == pytest.approx(sum(one.correct for _, one in alone) / 3)


class Smooth(nn.Module):
    """A convolution, far enough from any tie that a small change of the patch moves no pixel to another class."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = conv_victim().module

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x).tanh() + torch.tensor([9.0, 0, 0]).view(3, 1, 1)


@pytest.mark.parametrize("loss", ["correct-pixel", "cross-entropy"])
def test_the_gradient_is_the_finite_difference(loss: str):
    victim, config, pixels = double(plain(Smooth()), 3)
    config = replace(config, loss=loss)
    gradient, _ = gradient_of([victim], pixels, 0, config)
    step = 1e-5
    for where in [(0, 0, 0), (1, 0, 3), (2, 3, 1), (0, 3, 3)]:
        there = torch.zeros_like(pixels)
        there[where] = step
        high, low = (gradient_of([victim], pixels + way * there, 0, config)[1].loss for way in (1, -1))
        assert float(gradient[where]) == pytest.approx((high - low) / (2 * step), rel=1e-5)
        assert gradient[where] != 0


def plain_batch(images, pixels: Tensor, step: int, config: AttackConfig) -> tuple[Tensor, Tensor, Tensor]:
    """The patched crops of a step and their labels, sample by sample, differentiable in the patch, and the crops
    without it."""
    parts, crops = [], []
    scenes = EOT(SceneEOT(config.scales, config.crop, config.flip), config.patch_eot, config.place)
    for number in range(config.batch_size):
        epoch, place = divmod(step * config.batch_size + number, len(images))
        image, truth = images[order(config.seed, epoch, len(images))[place]]
        scene, placement = draw(scenes, (config.seed, step, number), tuple(truth.shape), config.patch_size)
        crop, truth = apply_scene(image, scene).to(pixels), apply_scene_to_labels(truth, scene)
        parts.append(apply_placement(crop, truth.long(), pixels, placement))
        crops.append(crop)
    patched, labels = zip(*parts, strict=True)
    return torch.stack(patched), torch.stack(labels), torch.stack(crops)


WARPED = {"patch_eot": PRESETS["strong"].patch_eot, "place": "drawn", "crop": (16, 16)}


@pytest.mark.parametrize("change", [{}, WARPED])
@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_the_step_is_the_plain_one_written_out(change: dict, channels: str):
    """Every sample pasted, the victim called, the loss of LOSSES, and autograd from the loss to the patch."""
    module = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.AvgPool2d(2)).double()
    victim = replace(
        plain(module), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), value_range=2.0, channel_order=channels
    )
    config = replace(TINY, batch_size=3, **change)
    pixels = random_pixels((4, 4), FULL_RANGE, 3).double().requires_grad_()
    images, labels, _ = plain_batch(pictures(), pixels, 0, config)
    total, count = LOSSES[config.loss](victim(images), labels)
    (wanted,) = torch.autograd.grad(total / count, pixels)
    gradient, step = gradient_of([victim], pixels, 0, config)
    assert wanted.abs().max() > 1e-4
    torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-8)
    assert step.loss == pytest.approx(float((total / count).detach()), rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("micro_batch", [None, 2])
def test_a_step_of_every_loss_is_the_plain_one(name: str, micro_batch: int | None):
    """The clean prediction, the share of steps that are done, and gradients that are mixed are all in it."""
    victim = plain(nn.Conv2d(3, 3, 3, padding=1).double())
    loss, step = LOSSES[name], 3
    config = replace(TINY, batch_size=4, micro_batch=micro_batch, loss=name)
    pixels = random_pixels((4, 4), FULL_RANGE, 3).double().requires_grad_()
    images, labels, crops = plain_batch(pictures(), pixels, step, config)
    predicted = victim(crops).argmax(1)
    logits = victim(images)
    total, count = loss(logits, labels, step / 6, predicted)
    (wanted,) = torch.autograd.grad(total / count, pixels, retain_graph=True)
    if loss.mix and loss.mix.normalised:
        right = logits.argmax(1) == labels
        gamma = float(loss.gamma(right.sum(), (labels != IGNORE).sum()))
        parts = []
        for some in (right, ~right):
            of_some = LOSSES["cross-entropy"](logits, torch.where(some, labels, IGNORE))[0]
            parts.append(torch.autograd.grad(of_some, pixels, retain_graph=True)[0])
        mixture = gamma * parts[0] / parts[0].norm() + (1 - gamma) * parts[1] / parts[1].norm()
        wanted = mixture / mixture.norm()
    gradient, seen = gradient_of([victim], pixels, step, config)
    assert wanted.abs().max() > 1e-4
    torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-8)
    assert seen.loss == pytest.approx(float((total / count).detach()), rel=1e-6)


def test_many_steps_go_where_the_plain_path_goes():
    """The losses of a real network on real sizes, step after step, within 1e-4."""
    data = open_data("streets")
    images = split_images(data, "train", 4)
    victim = load_victim("pidnet-s").for_classes(data.classes)
    config = AttackConfig(
        steps=4, batch_size=2, crop=(128, 128), patch_size=(40, 40), stepper="adam", step_size=0.05
    )
    ours: list[Step] = []
    train_patch([victim], images, config, on_step=ours.append)
    pixels, theirs = random_pixels((40, 40), FULL_RANGE, 0), []
    adam = adam_start(pixels)
    for step in range(4):
        leaf = pixels.clone().requires_grad_()
        patched, labels, _ = plain_batch(images, leaf, step, config)
        total, count = LOSSES[config.loss](victim(patched), labels)
        (gradient,) = torch.autograd.grad(total / count, leaf)
        pixels, adam = adam_step(pixels, gradient, adam, 0.05, torch.zeros(3), torch.ones(3))
        theirs.append(float((total / count).detach()))
    assert [step.loss for step in ours] == pytest.approx(theirs, rel=1e-4)


def test_the_images_of_a_step_are_decoded_side_by_side():
    class Slow(list):
        """Gives no image before another is asked for too."""

        both = threading.Barrier(2, timeout=20)

        def __getitem__(self, index):
            self.both.wait()
            return super().__getitem__(index)

    config = replace(TINY, batch_size=4)
    plainly = draw_samples(pictures(), range(5), 1, config)
    slowly = draw_samples(Slow(pictures()), range(5), 1, config)
    assert torch.equal(slowly.scenes, plainly.scenes) and torch.equal(slowly.labels, plainly.labels)
    assert slowly.looks == plainly.looks
