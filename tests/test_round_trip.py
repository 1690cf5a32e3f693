from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from segpatch.data import batches
from segpatch.evaluation import evaluate
from segpatch.patch import RELEASED_RANGE, Patch, rounded
from segpatch.studies.round_trip import pixel_change, pixel_statistics, round_trip
from tiny import conv_victim, learnable_dataset

PATCH = Patch(torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0)), trained_on=("conv",))


def test_changes_by_hand():
    values = torch.tensor([0.0, 10.25, 20.5, 255.0]) / 255  # 20.5 is rounded to the even 20
    largest, mean = pixel_change(Patch(values.expand(3, 1, 4)))
    assert (largest, mean) == (pytest.approx(0.5, abs=1e-4), pytest.approx(0.75 / 4, abs=1e-4))
    assert pixel_change(rounded(PATCH)) == (0, 0)


def test_statistics_by_hand():
    pixels = torch.tensor([[0.485, 0.6], [0.456, 0.68], [0.5, 0.5]]).view(3, 1, 2)
    found = pixel_statistics(Patch(pixels, range=RELEASED_RANGE))
    assert found["channels"]["red"] == pytest.approx(
        {"least": 0.485, "most": 0.6, "mean": 0.5425, "deviation": 0.0575}
    )
    assert found["at_bound"] == pytest.approx(3 / 6)


def test_both_are_measured_on_the_same_images(tmp_path: Path):
    dataset, victim = learnable_dataset(tmp_path), conv_victim(2)
    trip = round_trip(victim, dataset, PATCH, images=3)
    chosen = [0, 2, 3]  # three of four, evenly spaced
    exact, png = (
        evaluate(victim, batches(dataset, "val", batch_size=1, indices=chosen), patch)
        for patch in (PATCH, rounded(PATCH))
    )
    assert trip.images == 3
    assert (trip.exact[0], trip.png[0]) == (exact.miou_drop, png.miou_drop)
    assert trip.lost[0] == pytest.approx(exact.miou_drop - png.miou_drop, abs=1e-9)
    assert trip.exact[1][0] <= trip.exact[0] <= trip.exact[1][1]


def test_a_patch_that_lives_on_less_than_8_bits_is_found_out(tmp_path: Path):
    """A network that looks at differences below 1/255: the PNG of a patch made of them does nothing."""

    class Fine(torch.nn.Module):
        def forward(self, x):
            off = (x * 255 - (x * 255).round()).abs().amax((1, 2, 3)) > 0.2
            right = torch.nn.functional.one_hot(x.argmax(1), 3).permute(0, 3, 1, 2).float()
            return torch.where(off[:, None, None, None], -right, right)

    victim = replace(conv_victim(), module=Fine(), mean=(0, 0, 0), std=(1, 1, 1))
    dataset = learnable_dataset(tmp_path)
    trip = round_trip(victim, dataset, Patch(torch.full((3, 2, 2), 100.3 / 255)))
    assert trip.exact[0] == pytest.approx(1) and trip.png[0] == pytest.approx(0)
    assert trip.lost[0] == pytest.approx(1) and trip.lost[1][0] > 0.9


def test_a_picture_can_be_measured_too(tmp_path: Path):
    trip = round_trip(conv_victim(2), learnable_dataset(tmp_path), rounded(PATCH))
    assert trip.lost[0] == 0 and trip.exact == trip.png
