from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from segpatch.models.victim import Victim
from segpatch.patch import Patch
from segpatch.probes import check_network, check_png, probe_images
from tiny import MeanColour, Tiny, conv_victim, in_batches, pictures, plain


class Noisy(Tiny):
    """Drops out whatever its mode, as a functional dropout does."""

    def forward(self, x: Tensor) -> Tensor:
        return self.last(nn.functional.dropout(self.first(x), 0.5, training=True))


class Normed(Tiny):
    """With a batch norm that, in eval mode too, trains (momentum) or uses the batch (track False)."""

    def __init__(self, track: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8, track_running_stats=track)

    def eval(self) -> Normed:
        return self.train(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x)))


class Rounding(Tiny):
    """Rounds what it sees: its gradient is 0 though it reacts to the image."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x * 16).round() / 16)


class Cutting(Tiny):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


def probed(victim: Victim) -> list[str]:
    return check_network(victim, probe_images(pictures()))


@pytest.mark.parametrize(
    "victim", [conv_victim(), plain(Tiny()), plain(Normed(True)), plain(MeanColour(), classes=2)]
)
def test_silence_on_sound_networks(victim: Victim):
    assert probed(victim) == []


def test_training_mode_and_batch_norms_that_train_are_named_and_undone():
    victim = plain(Normed(True))
    victim.module.train()
    before = {name: buffer.clone() for name, buffer in victim.module.named_buffers()}
    warnings = probed(victim)
    assert [text.split(";")[0] for text in warnings][:2] == [
        "tiny: 4 of its modules are in training mode",
        "tiny: predicting changes its norm.running_mean (buffers changed: 3), as batch norms do while they train",
    ]
    assert all(torch.equal(buffer, before[name]) for name, buffer in victim.module.named_buffers())


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Noisy(), "differently when asked twice"),
        (Normed(False), "depends on what else is in the batch"),
        (Rounding(), "no gradient leads from its logits"),
        (Cutting(), "no gradient leads from its logits"),
    ],
)
def test_each_planted_fault_is_named(module: nn.Module, words: str):
    (warning,) = probed(plain(module))
    assert warning.startswith("tiny: ") and words in warning


def test_one_image_is_enough():
    images = probe_images(pictures(1, 12, 16))
    assert images.shape == (2, 3, 12, 16) and torch.equal(images[0], images[1].flip(-1))
    assert check_network(conv_victim(), images) == []
    of_two_sizes = probe_images([*pictures(1, 12, 16), *pictures(1, 8, 9)], crop=(10, 20))
    assert torch.equal(of_two_sizes, images[:, :, :10])


def test_a_network_of_one_size_is_shown_images_of_that_size():
    """As an ONNX file takes them."""

    class Fixed(Tiny):
        differentiable = False

        def forward(self, x: Tensor) -> Tensor:
            assert x.shape[-2:] == (12, 16)
            return super().forward(x)

    assert probed(plain(Fixed())) == []


def test_little_memory_leaves_the_batch_out():
    class Crowded(Tiny):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(x)

    assert probed(plain(Crowded())) == []


class FineTrigger(nn.Module):
    """Predicts class 0; where the mean of the centre lies within 1e-4 of a value that no byte means, class 1."""

    value = 100.5 / 255

    def forward(self, x: Tensor) -> Tensor:
        near = (x[..., 4:8, 6:10].mean((1, 2, 3)) - self.value).abs() < 1e-4
        lead = torch.where(near, -1.0, 1.0)
        return torch.stack([lead, -lead], 1)[:, :, None, None].expand(-1, -1, *x.shape[-2:])


def test_a_patch_whose_picture_does_nothing_is_named():
    victim = plain(FineTrigger(), classes=2)
    images = [(image, torch.zeros_like(labels)) for image, labels in pictures(2)]
    images[0][1][0] = 1  # both classes occur
    batches = in_batches(images, 2)
    patch = Patch(torch.full((3, 4, 4), FineTrigger.value), name="own", trained_on=("tiny",))
    (warning,) = check_png([patch], [victim], batches)
    assert warning.startswith("own on tiny: as an 8-bit PNG its drop is 0.000, not 0.")
    assert check_png([replace(patch, trained_on=("other",))], [victim], batches) == []
    assert check_png([replace(patch, pixels=torch.full((3, 4, 4), 100 / 255))], [victim], batches) == []
