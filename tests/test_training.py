from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch

from segpatch.errors import BadInput, SegpatchError
from segpatch.training import (
    FitConfig,
    FitState,
    FitStep,
    _rate,
    fit_batch,
    fit_network,
    measure_miou,
)
from side_by_side import side_by_side
from tiny import Tiny, as_uint8, learnable, plain

CONFIG = FitConfig(
    steps=12,
    batch_size=3,
    crop=(8, 8),
    scales=(0.8, 1.2),
    jitter=0.1,
    learning_rate=0.02,
    warmup=2,
    averaging=0.5,
    precision="fp32",
    validate_every=4,
)


def tiny_network() -> Tiny:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Tiny()


def fitted(config: FitConfig, *, module: Tiny | None = None, resume: FitState | None = None):
    """The final state, all steps, and copies of the state after each step."""
    steps: list[FitStep] = []
    states: list[FitState] = []
    state = fit_network(
        module or tiny_network(),
        plain,
        as_uint8(learnable()),
        as_uint8(learnable(2)),
        config,
        resume=resume,
        on_step=steps.append,
        on_state=lambda s: states.append(copy.deepcopy(s)),
    )
    return state, steps, states


@pytest.mark.parametrize("criterion", ["balanced", "ohem"])
def test_a_tiny_network_learns_a_trivial_data_set(criterion: str):
    config = replace(CONFIG, steps=40, validate_every=20, criterion=criterion)
    before = measure_miou(plain(tiny_network()), as_uint8(learnable(2)))
    state, steps, _ = fitted(config)
    assert sum(s.loss for s in steps[-5:]) < 0.85 * sum(s.loss for s in steps[:5])
    assert before < 0.5 and state.best_miou > 0.9
    module = tiny_network()
    module.load_state_dict(state.best)
    assert measure_miou(plain(module), as_uint8(learnable(2))) == state.best_miou


@pytest.mark.parametrize("stopped", [1, 4, 7, 11, 12])
def test_resumed_fit_gives_the_same_bits(stopped: int):
    whole, all_steps, states = fitted(CONFIG)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        other = Tiny()
    again, steps, _ = fitted(CONFIG, module=other, resume=states[stopped - 1])
    assert same_steps(steps, all_steps[stopped:])
    for part in ("weights", "average", "best"):
        for key, value in getattr(whole, part).items():
            assert torch.equal(getattr(again, part)[key], value), (part, key)
    assert again.best_miou == whole.best_miou


def same_steps(one: list[FitStep], other: list[FitStep]) -> bool:
    return repr(one) == repr(other)  # repr, because NaN differs from itself


def test_the_best_average_is_kept():
    config = replace(CONFIG, learning_rate=0.3, validate_every=1)  # too fast: scores go up and down
    state, steps, states = fitted(config)
    scores = [step.miou for step in steps]
    best = scores.index(max(scores))
    assert best < len(scores) - 1, "the last one is the best, so this test shows nothing"
    assert state.best_miou == scores[best]
    assert all(torch.equal(state.best[key], states[best].average[key]) for key in state.best)


def test_an_average_that_is_not_finite_is_never_kept():
    with torch.no_grad():
        broken = tiny_network()
        broken.register_buffer("extra", torch.tensor(float("nan")))
    with pytest.raises(
        SegpatchError, match=r"the averaged weights \(extra\) are not finite; lower the learning rate"
    ):
        fitted(CONFIG, module=broken)


def test_logits_that_are_not_finite_and_images_without_a_label_have_no_miou():
    wild = tiny_network()
    torch.nn.init.constant_(wild.last.bias, math.inf)
    with pytest.raises(SegpatchError, match="tiny returned logits that are not finite"):
        measure_miou(plain(wild), as_uint8(learnable(1)))
    bare = [(image, torch.full_like(labels, 255)) for image, labels in as_uint8(learnable(1))]
    with pytest.raises(BadInput, match="none of the images held out has a labelled pixel"):
        measure_miou(plain(tiny_network()), bare)


def test_validation_happens_when_it_is_due():
    _, steps, _ = fitted(replace(CONFIG, steps=10))
    assert [step.step for step in steps if step.miou == step.miou] == [4, 8, 10]


def test_validation_leaves_the_running_weights_alone():
    often, _, _ = fitted(replace(CONFIG, validate_every=1))
    seldom, _, _ = fitted(replace(CONFIG, validate_every=12))
    assert all(torch.equal(often.weights[key], seldom.weights[key]) for key in often.weights)


class Normed(Tiny):
    """With a batch norm, whose statistics are each process's own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.norm(x))


def in_processes(world: int, module: Tiny, images, config: FitConfig) -> list[FitState]:
    return side_by_side(
        world, lambda p: fit_network(copy.deepcopy(module), plain, images, images, config, processes=p)
    )


@pytest.mark.parametrize("world", [2, 3])
def test_processes_that_share_a_step_average_its_gradient(world: int):
    # One class alone: each pixel has the same weight, so shares of a batch are as good as the whole.
    images = [(image, labels * 0) for image, labels in as_uint8(learnable())]
    config = replace(CONFIG, scales=(1.0, 1.0), batch_size=4, steps=3, validate_every=2)
    whole = fit_network(tiny_network(), plain, images, images, config)
    for state in in_processes(world, tiny_network(), images, config):
        for key, value in whole.weights.items():
            torch.testing.assert_close(state.weights[key], value, rtol=0, atol=1e-5)
        assert state.best_miou == whole.best_miou


def test_processes_end_with_the_same_weights_and_statistics():
    one, other = in_processes(2, Normed(), as_uint8(learnable()), replace(CONFIG, steps=3))
    assert all(torch.equal(one.weights[key], other.weights[key]) for key in one.weights)
    assert one.best_miou == other.best_miou and one.weights["norm.running_mean"].abs().max() > 0


def test_more_processes_than_crops_are_refused():
    out = in_processes(4, tiny_network(), as_uint8(learnable()), CONFIG)
    assert all(isinstance(one, BadInput) and "batch of 3 is too small for 4 processes" in str(one) for one in out)


def test_bfloat16_trains():
    state, steps, _ = fitted(replace(CONFIG, steps=2, precision="bf16"))
    assert all(math.isfinite(step.loss) for step in steps)
    assert all(value.dtype == torch.float32 for value in state.weights.values())


def test_a_batch_is_a_function_of_seed_and_step():
    train = as_uint8(learnable())
    images, labels = fit_batch(train, CONFIG, 3)
    fit_batch(train, CONFIG, 0)
    again, labels_again = fit_batch(train, CONFIG, 3)
    assert torch.equal(images, again) and torch.equal(labels, labels_again)
    assert images.shape == (3, 3, 8, 8) and labels.shape == (3, 8, 8) and labels.dtype == torch.int64
    assert 0 <= images.min() <= images.max() <= 1
    for other in (fit_batch(train, CONFIG, 4), fit_batch(train, replace(CONFIG, seed=1), 3)):
        assert not torch.equal(images, other[0])


def test_an_epoch_visits_every_image_once():
    train = [(torch.full((3, 8, 8), i, dtype=torch.uint8), torch.full((8, 8), i)) for i in range(6)]
    config = replace(CONFIG, scales=(1.0, 1.0), jitter=0.0)
    seen = [int(v) for step in (2, 3) for v in fit_batch(train, config, step)[1].amax((1, 2))]
    assert sorted(seen) == list(range(6))


def test_the_loss_may_look_at_every_second_pixel():
    train = as_uint8(learnable())
    images, labels = fit_batch(train, CONFIG, 0)
    strided, few = fit_batch(train, replace(CONFIG, label_stride=2), 0)
    assert torch.equal(images, strided)
    assert torch.equal(few, labels[:, 1::2, 1::2])


def test_learning_rate_by_hand():
    config = FitConfig(steps=10, learning_rate=2.0, warmup=4)
    assert _rate(config, 0) == pytest.approx(2 * 0.25)
    assert _rate(config, 1) == pytest.approx(2 * 0.5 * 0.9**0.9)
    assert _rate(config, 5) == pytest.approx(2 * 0.5**0.9)
    assert _rate(config, 9) == pytest.approx(2 * 0.1**0.9)
    assert _rate(replace(config, warmup=0), 0) == 2.0


@pytest.mark.parametrize(
    "change",
    [{"steps": 0}, {"batch_size": 0}, {"criterion": "dice"}, {"precision": "fp16"}, {"validate_every": 0}],
)
def test_impossible_recipes_are_refused(change: dict):
    with pytest.raises(BadInput, match=next(iter(change))):
        FitConfig(**change)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_ends_the_fit(where: str):
    class Broken(Tiny):
        def training_loss(self, outputs, labels, criterion):
            loss = super().training_loss(outputs, labels, criterion)
            if where == "loss":
                return loss * float("nan")
            zero = (self.last.bias[0] * 0).abs()
            return loss + zero.sqrt()  # 0, with an infinite slope

    with pytest.raises(SegpatchError, match=r"not finite in step 1; lower the learning rate"):
        fitted(CONFIG, module=Broken())
