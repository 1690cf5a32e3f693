from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from segpatch.attack import AttackState, held_out_miou, train_patch
from segpatch.attack_config import PRESETS, AttackConfig, attack_preset, resolve
from segpatch.attack_step import Step, draw_samples
from segpatch.eot import EOT, PatchEOT, draw, largest_size
from segpatch.errors import BadInput, SegpatchError
from segpatch.patch import FULL_RANGE, RELEASED_RANGE, Patch, random_pixels
from segpatch.transforms import SceneEOT
from side_by_side import side_by_side
from tiny import TINY, MeanColour, conv_victim, in_batches, pictures, plain


def all_road(count: int = 3, side: int = 12) -> list[tuple[Tensor, Tensor]]:
    return [(image, labels * 0) for image, labels in pictures(count, side, side)]


def steps_of(config: AttackConfig, victims, images) -> tuple[Patch, list[Step]]:
    steps: list[Step] = []
    return train_patch(victims, images, config, on_step=steps.append), steps


@pytest.mark.parametrize("stepper", ["sign", "adam"])
@pytest.mark.parametrize("within", [FULL_RANGE, RELEASED_RANGE])
def test_the_known_best_patch_is_found(stepper: str, within):
    # Logits depend on the mean colour alone, so each channel has one best value: a bound of its range.
    config = replace(TINY, steps=15, stepper=stepper, range=within)
    patch, steps = steps_of(config, [plain(MeanColour(), classes=2)], all_road())
    best = torch.tensor([within[1][0], within[0][1], within[1][2]]).view(3, 1, 1).expand(3, 4, 4)
    assert torch.equal(patch.pixels, best)
    assert steps[-1].loss > steps[0].loss
    assert steps[-1].saturated == 1 and steps[0].saturated < 0.5


def test_one_by_one_convolution_has_no_gradient():
    _, steps = steps_of(TINY, [conv_victim(kernel=1)], pictures())
    assert [step.gradient_norm for step in steps] == [0.0] * 6
    _, steps = steps_of(TINY, [conv_victim(kernel=3)], pictures())
    assert all(step.gradient_norm > 0 for step in steps)


def test_the_seed_is_all_the_chance_there_is():
    victims = [conv_victim()]
    torch.manual_seed(1)
    one = train_patch(victims, pictures(), TINY)
    torch.manual_seed(2)
    assert torch.equal(one.pixels, train_patch(victims, pictures(), TINY).pixels)
    assert not torch.equal(one.pixels, train_patch(victims, pictures(), replace(TINY, seed=1)).pixels)


@pytest.mark.parametrize("stopped", range(7))
@pytest.mark.parametrize("stepper", ["sign", "adam"])
@pytest.mark.parametrize("choice", [{}, {"select": "best", "held_out": 2}])
def test_resumed_at_any_step_gives_the_same_bits(stopped: int, stepper: str, choice: dict):
    config = replace(TINY, stepper=stepper, place="drawn", **choice)
    states: list[AttackState] = []
    whole = train_patch([conv_victim()], pictures(), config, on_state=states.append)
    resume = states[stopped - 1] if stopped else None
    late: list[Step] = []
    again = train_patch([conv_victim()], pictures(), config, resume=resume, on_step=late.append)
    assert torch.equal(again.pixels, whole.pixels)
    assert [step.step for step in late] == list(range(stopped + 1, 7))


def test_the_best_of_the_late_checkpoints_is_kept():
    config = replace(TINY, steps=15, step_size=0.3, select="best", held_out=2)
    states: list[AttackState] = []
    images, victims = pictures(), [conv_victim(), conv_victim(1, name="other")]
    patch = train_patch(victims, images, config, on_state=states.append)
    late = [state for state in states if state.step in (11, 12, 13, 14, 15)]
    scores = {}
    for held_out in [(i, j) for i in range(5) for j in range(i)]:
        scores[held_out] = [held_out_miou(victims, images, held_out, state.pixels) for state in late]
    # The pair that was held out is the one whose lowest score the state reports.
    score = next(s for s in scores.values() if min(s) == states[-1].best_miou)
    assert torch.equal(patch.pixels, late[score.index(min(score))].pixels)
    last = train_patch(victims, images, replace(config, select="last"))
    assert torch.equal(last.pixels, late[-1].pixels)


def test_processes_train_the_patch_of_one():
    config = replace(TINY, batch_size=3, stepper="adam", select="best", held_out=3)
    victims, images = [conv_victim(), conv_victim(1, name="other")], pictures()
    one = train_patch(victims, images, config)
    for patch in side_by_side(2, lambda p: train_patch(victims, images, config, processes=p)):
        torch.testing.assert_close(patch.pixels, one.pixels, rtol=0, atol=1e-4)
        assert patch.origin == one.origin


class Crowded(nn.Module):
    """A convolution that has room for some images at a time, and says how many it was given."""

    def __init__(self, room: int, error: Exception) -> None:
        super().__init__()
        self.convolution, self.room, self.error = conv_victim().module, room, error
        self.given: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.given.append(len(x))
        if len(x) > self.room:
            raise self.error
        return self.convolution(x)


FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


@pytest.mark.parametrize("error", [FULL, RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")])
@pytest.mark.parametrize(("room", "fits"), [(4, 2), (3, 2), (1, 1)])
def test_out_of_memory_goes_on_with_less_at_a_time(error: Exception, room: int, fits: int):
    config = replace(TINY, batch_size=5, stepper="adam")
    whole = train_patch([conv_victim()], pictures(), config)
    crowded = Crowded(room, error)
    patch, steps = steps_of(config, [plain(crowded, "conv")], pictures())
    torch.testing.assert_close(patch.pixels, whole.pixels, rtol=0, atol=1e-4)
    assert {step.micro_batch for step in steps} == {fits}
    assert sum(given > room for given in crowded.given) < 3, "the smaller size was not kept"
    assert patch.origin["config"] == whole.origin["config"], "what was asked for is what is recorded"


def test_resuming_tries_the_whole_again():
    config, states = replace(TINY, batch_size=5), []
    whole = train_patch([plain(Crowded(2, FULL))], pictures(), config, on_state=states.append)
    again = train_patch([plain(Crowded(2, FULL))], pictures(), config, resume=states[2])
    assert torch.equal(again.pixels, whole.pixels)


def test_no_room_for_one_image_is_one_line():
    with pytest.raises(SegpatchError, match="out of memory with a single image") as caught:
        train_patch([plain(Crowded(0, FULL))], pictures(), TINY)
    assert "\n" not in str(caught.value)


def test_one_process_out_of_memory_is_told_to_all():
    config = replace(TINY, batch_size=5)
    images = pictures()

    def trained(processes):
        steps: list[Step] = []
        victim = plain(Crowded(9 if processes.first else 1, FULL))
        return train_patch([victim], images, config, on_step=steps.append, processes=processes), steps

    one, other = side_by_side(2, trained)
    assert torch.equal(one[0].pixels, other[0].pixels)
    assert {step.micro_batch for _, steps in (one, other) for step in steps} == {1}


def test_weights_get_no_gradient():
    victim = conv_victim()
    before = {key: value.clone() for key, value in victim.module.state_dict().items()}
    train_patch([victim], pictures(), TINY)
    assert all(p.grad is None and not p.requires_grad for p in victim.module.parameters())
    assert all(torch.equal(value, before[key]) for key, value in victim.module.state_dict().items())


def test_bfloat16_runs_and_differs():
    half = train_patch([conv_victim()], pictures(), replace(TINY, precision="bf16", stepper="adam"))
    full = train_patch([conv_victim()], pictures(), replace(TINY, stepper="adam"))
    assert half.pixels.dtype == torch.float32
    assert not torch.equal(half.pixels, full.pixels)
    torch.testing.assert_close(half.pixels, full.pixels, rtol=0, atol=0.3)


def test_the_released_range_is_kept():
    config = replace(PRESETS["released"], steps=20, batch_size=2, step_size=0.3, patch_size=(4, 4))
    patch = train_patch([conv_victim()], pictures(), config)
    low, high = (torch.tensor(bound) for bound in RELEASED_RANGE)
    assert (patch.pixels.amin((1, 2)) >= low).all() and (patch.pixels.amax((1, 2)) <= high).all()
    assert patch.pixels[2].max() == high[2]  # the range was reached, and cut


def test_strong_trains_with_its_own_transformations():
    config = replace(PRESETS["strong"], steps=2, batch_size=2, held_out=2, patch_size=(3, 3))
    patch, steps = steps_of(config, [conv_victim()], pictures())
    assert patch.place == "drawn" and patch.name == "conv/strong/s0"
    assert all(step.gradient_norm > 0 for step in steps)


def test_the_patch_says_where_it_comes_from():
    victims = [conv_victim(0, name="a"), conv_victim(1, name="b")]
    patch = train_patch(victims, pictures(), replace(TINY, seed=4))
    assert (patch.name, patch.trained_on, patch.steps, patch.seed) == ("a+b/paper/s4", ("a", "b"), 6, 4)
    assert patch.origin["config"]["crop"] == (10, 10)
    assert [victim["network"] for victim in patch.origin["victims"]] == ["conv", "conv"]


@pytest.mark.parametrize(("height", "width", "side"), [(1024, 2048, 200), (360, 480, 70), (256, 512, 50)])
def test_sizes_scale_with_the_data(height: int, width: int, side: int):
    images = [(torch.zeros(3, height, width), torch.zeros(height, width))]
    config = resolve(AttackConfig(), images, [conv_victim()])
    assert config.crop == (height, height)
    assert config.patch_size == (side, side)


@pytest.mark.parametrize(("families", "batch_size", "steps"), [(["cnn"], 6, 60), (["cnn", "transformer"], 1, 180)])
def test_batch_and_epochs_as_published(families: list[str], batch_size: int, steps: int):
    victims = [conv_victim(family=family) for family in families]
    config = resolve(replace(PRESETS["paper"], patch_size=(4, 4)), pictures(12), victims)
    assert (config.batch_size, config.steps) == (batch_size, steps)


def test_presets_are_those_of_the_design():
    released, paper, strong = (attack_preset(name) for name in ("released", "paper", "strong"))
    assert released.range == ((0.485, 0.456, 0.406), (0.714, 0.680, 0.631))
    assert released.scales == (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0, 2.1)
    assert paper == AttackConfig(range=((0, 0, 0), (1, 1, 1)), scales=(0.5, 2.0), step_size=0.005, stepper="sign")
    # released differs from paper in range and scales alone, strong in everything about the patch.
    assert replace(released, preset="paper", range=paper.range, scales=paper.scales) == paper
    assert (strong.stepper, strong.place, strong.select, strong.scales) == ("adam", "drawn", "best", paper.scales)
    assert strong.patch_eot.scale == (0.8, 1.2) and strong.patch_eot.rotation == 20
    assert strong.range == paper.range and strong.loss == paper.loss == "correct-pixel"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "corect-pixel"}, "did you mean 'correct-pixel'"),
        ({"stepper": "adm"}, "did you mean 'adam'"),
        ({"place": "center"}, "did you mean 'centre'"),
        ({"step_size": 0.0}, "step_size"),
        ({"steps": 0}, "steps must be a whole number from 1 to"),
        ({"select": "best"}, "held_out"),
        ({"precision": "fp16"}, "fp32 or bf16"),
    ],
)
def test_impossible_configs_are_refused(change: dict, message: str):
    with pytest.raises(BadInput, match=message):
        AttackConfig(**change)


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(BadInput, match="did you mean 'strong'"):
        attack_preset("strng")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": (4, 11)}, "4x11 patch does not fit crops of 10x10"),
        ({"held_out": 5}, "5 of 5 training images"),
        # 10 pixels fit, but not turned by up to 20 degrees and scaled by up to 1.2.
        ({"patch_size": (10, 10), "patch_eot": PRESETS["strong"].patch_eot}, "largest drawn appearance"),
    ],
)
def test_what_does_not_fit_the_images_is_refused(change: dict, message: str):
    with pytest.raises(BadInput, match=message):
        resolve(replace(TINY, **change), pictures(), [conv_victim()])


def test_no_drawn_appearance_is_larger_than_promised():
    eot = EOT(SceneEOT(), PatchEOT(rotation=70.0))
    regions = [draw(eot, (0, i), (80, 80), (6, 17))[1].region for i in range(300)]
    h, w = largest_size(eot.patch, (6, 17))
    assert h - 4 <= max(region.height for region in regions) <= h
    assert w - 4 <= max(region.width for region in regions) <= w
    assert largest_size(None, (6, 17)) == (6, 17)


def test_no_victim_is_refused():
    with pytest.raises(BadInput, match="at least one network"):
        train_patch([], pictures(), TINY)


def test_a_sample_that_found_no_room_ahead_is_drawn_again(monkeypatch):
    whole = train_patch([conv_victim()], pictures(), TINY)
    calls: list[int] = []

    def crowded(images, training, step, *rest):
        calls.append(step)
        if len(calls) == 3:
            raise FULL
        return draw_samples(images, training, step, *rest)

    monkeypatch.setattr("segpatch.attack.draw_samples", crowded)
    steps: list[Step] = []
    again = train_patch([conv_victim()], pictures(), TINY, on_step=steps.append)
    assert torch.equal(again.pixels, whole.pixels)
    assert {step.micro_batch for step in steps} == {2}, "the network had room"
    assert sorted(calls) == [0, 1, 2, 2, 3, 4, 5]


def test_a_label_that_a_byte_cannot_hold_is_refused():
    for wrong in (257, -1):
        images = [(image, labels.long()) for image, labels in pictures()]
        images[3][1][0, 0] = wrong
        with pytest.raises(BadInput, match=f"labels must be class ids, or 255 .* got {wrong}"):
            train_patch([conv_victim()], images, TINY)


class Overflowing(nn.Module):
    """A convolution whose logits leave single precision behind once the patch is bright enough."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = conv_victim().module

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x) * x.mean().mul(200).exp()


def test_numbers_that_are_not_finite_end_the_run_before_they_are_saved():
    states: list[AttackState] = []
    with pytest.raises(SegpatchError, match="not finite after 1 steps"):
        train_patch([plain(Overflowing())], pictures(), TINY, on_state=states.append)
    assert not states


class Detached(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach() * 2


def test_a_module_that_cuts_the_gradient_is_refused():
    with pytest.raises(BadInput, match="cut does not depend on the patch"):
        train_patch([plain(Detached(), "cut")], pictures(), TINY)


def test_held_out_score_is_that_of_evaluate():
    from segpatch.evaluation import evaluate

    images, pixels = pictures(), random_pixels((4, 4), FULL_RANGE, 0)
    scores = evaluate(conv_victim(), in_batches(images, 5), Patch(pixels))
    assert held_out_miou([conv_victim()], images, range(5), pixels) == scores.miou
