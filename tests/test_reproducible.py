"""The same seed gives the same bits in another process, and all but the same on another number of threads.

docs/trust.md states what is held here.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from jobs import begin, held
from segpatch.attack import train_patch
from segpatch.attack_config import attack_preset
from segpatch.data.drawn import drawn_streets
from segpatch.evaluation import ROWS, evaluate
from segpatch.models.load import load_victim
from segpatch.training import FitConfig, fit_network
from segpatch.types import Batch
from tiny import Tiny, as_uint8, learnable, plain, write_learnable


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_learnable(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("job", ["attack", "fit", "transfer"])
def test_two_processes_write_the_same_bytes(data: str, tmp_path: Path, job: str):
    processes = [begin(job, data, tmp_path / name) for name in "ab"]
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    one, other = held(tmp_path / "a"), held(tmp_path / "b")
    assert one and one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []


def test_two_threads_train_and_measure_as_one():
    """A gradient to 1e-5 of its size, a patch after three steps to 1e-4, predictions but for a pixel in 10,000."""
    victim = load_victim("segformer-b0")
    streets = drawn_streets(height=64, width=128)
    images = [tuple(torch.tensor(part) for part in streets.read("train", index)) for index in range(2)]
    images = [(image.permute(2, 0, 1), labels) for image, labels in images]
    batch = Batch(
        torch.stack([image for image, _ in images]).float() / 255,
        torch.stack([labels for _, labels in images]).long(),
        ("a", "b"),
    )
    config = replace(
        attack_preset("strong"),
        steps=3,
        batch_size=2,
        held_out=0,
        select="last",
        patch_size=(16, 16),
        crop=(64, 64),
    )
    patches, norms = [], []
    for count in (1, 2, 1):
        torch.set_num_threads(count)
        steps: list[Any] = []
        patches.append(train_patch([victim], images, config, on_step=steps.append))
        norms.append(torch.tensor([step.gradient_norm for step in steps]))
    assert torch.equal(patches[0].pixels, patches[2].pixels)
    assert_close(norms[1], norms[0], rtol=1e-5, atol=0)
    assert_close(patches[1].pixels, patches[0].pixels, rtol=0, atol=1e-4)
    one = evaluate(victim, [batch], patches[0])
    torch.set_num_threads(2)
    two = evaluate(victim, [batch], patches[0])
    for which in ROWS:
        rows, others = getattr(one, which), getattr(two, which)
        assert int((rows - others).abs().sum()) <= 2 * int(rows.sum()) / 10_000


def test_two_threads_fit_as_one():
    """Weights after six steps to 1e-4."""

    def fitted(count: int) -> dict[str, torch.Tensor]:
        torch.set_num_threads(count)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module = Tiny()
        config = FitConfig(steps=6, batch_size=4, crop=(48, 48), learning_rate=0.01, warmup=1, validate_every=6)
        images = as_uint8(learnable(6, 64, 64))
        return fit_network(module, plain, images, images[:2], config).best

    one, two, again = (fitted(count) for count in (1, 2, 1))
    for key, weights in one.items():
        assert torch.equal(weights, again[key])
        assert_close(two[key], weights, rtol=0, atol=1e-4)
