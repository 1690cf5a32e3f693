from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from segpatch.alignment import alignment, patch_gradients
from segpatch.attack_config import PRESETS
from segpatch.compositing import centre_region
from segpatch.errors import BadInput
from segpatch.losses import LOSSES
from segpatch.patch import FULL_RANGE, random_pixels
from test_attack_step import gradient_of, plain_batch
from tiny import TINY, conv_victim, pictures

CONFIG = replace(TINY, batch_size=3)
PIXELS = random_pixels((4, 4), FULL_RANGE, 0)


def test_cosines_by_hand():
    up, right = torch.tensor([0.0, 2.0]), torch.tensor([3.0, 0.0])
    gradients = torch.stack([torch.stack([right, up + right, -right])] * 4).double()
    found = alignment(gradients)
    half = 3 / math.hypot(2, 3)
    wanted = torch.tensor([[1, half, -1], [half, 1, -half], [-1, -half, 1]], dtype=torch.float64)
    for ours in (found.cosine, found.low, found.high, found.together, found.draws):
        torch.testing.assert_close(ours, wanted)
    torch.testing.assert_close(found.itself, torch.ones(3, dtype=torch.float64))


def test_noise_lowers_the_cosine_of_single_draws_and_sums_see_through_it():
    """Two networks with the same mean gradient under independent noise, and one of noise alone."""
    draws, size = 64, 300
    noise = torch.randn(draws, 3, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    signal = torch.ones(size, dtype=torch.float64) / 3
    gradients = noise + torch.stack([signal, signal, 0 * signal])
    found = alignment(gradients)
    share = (1 / 9) / (1 / 9 + 1)  # of a single gradient's square that is signal
    assert float(found.draws[0, 1]) == pytest.approx(share, abs=0.02)
    summed = (1 / 9) / (1 / 9 + 1 / draws)
    assert float(found.cosine[0, 1]) == pytest.approx(summed, abs=0.03)
    assert found.itself[:2].tolist() == pytest.approx([summed, summed], abs=0.05)
    assert abs(float(found.itself[2])) < 0.2 and abs(float(found.cosine[0, 2])) < 0.2
    torch.testing.assert_close(found.cosine, found.cosine.T)


def test_noise_of_shared_scenes_is_no_agreement():
    """Two networks that have nothing in common but what is particular to each draw of scenes."""
    draws, size = 64, 300
    own = torch.randn(2, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    shared = 8 * torch.randn(draws, 1, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = alignment(own + shared)
    assert float(found.draws[0, 1]) == pytest.approx(64 / 65, abs=0.02)
    assert float(found.together[0, 1]) == pytest.approx(0.5, abs=0.1)
    assert abs(float(found.cosine[0, 1])) < 0.15
    assert float(found.low[0, 1]) < 0 < float(found.high[0, 1])
    assert found.itself.tolist() == pytest.approx([0.5, 0.5], abs=0.1)


def test_the_cosine_is_that_of_a_slow_loop_over_pairs_of_draws():
    gradients = torch.randn(5, 2, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 0.5
    found = alignment(gradients)
    total = gradients.sum(0)
    for v in range(2):
        for w in range(2):
            pairs = [float(gradients[s, v] @ gradients[t, w]) for s in range(5) for t in range(5) if s != t]
            wanted = sum(pairs) * 5 / 4 / float(total[v].norm() * total[w].norm())
            assert float(found.cosine[v, w]) == pytest.approx(wanted, rel=1e-12)


def test_the_interval_is_as_wide_as_repetitions_spread_or_wider():
    draws, size, signal = 16, 40, 0.4
    found, widths = [], []
    for seed in range(200):
        noise = torch.randn(draws, 2, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        one = alignment(noise + signal)
        found.append(float(one.cosine[0, 1]))
        widths.append(float(one.high[0, 1] - one.low[0, 1]))
    spread = torch.tensor(found).std()
    assert 1 <= sum(widths) / 200 / (2 * 1.96 * float(spread)) < 1.5


def test_gradients_are_those_of_training():
    victims = [conv_victim(seed, name=f"v{seed}") for seed in range(3)]
    found = patch_gradients(victims, pictures(), PIXELS, CONFIG, 4)
    assert found.shape == (4, 3, 48) and found.dtype == torch.float64
    for step in range(4):
        for number, victim in enumerate(victims):
            wanted, _ = gradient_of([victim], PIXELS, step, CONFIG)
            torch.testing.assert_close(found[step, number], wanted.flatten().double())


def test_the_gradient_on_clean_scenes_is_that_of_the_pixels_in_the_patchs_place():
    victim = conv_victim()
    found = patch_gradients([victim], pictures(), None, CONFIG, 2)
    for step in range(2):
        _, labels, crops = plain_batch(pictures(), PIXELS, step, CONFIG)
        crops = crops.requires_grad_()
        total, count = LOSSES[CONFIG.loss](victim(crops), labels)
        (gradient,) = torch.autograd.grad(total / count, crops)
        top, left, height, width = centre_region(*CONFIG.crop, 4, 4)
        wanted = gradient[:, :, top : top + height, left : left + width].sum(0)
        assert wanted.abs().max() > 1e-4
        torch.testing.assert_close(found[step, 0], wanted.flatten().double(), rtol=1e-5, atol=1e-8)


def test_a_network_without_a_gradient_agrees_with_none():
    gradients = torch.randn(5, 3, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gradients[:, 1] = 0
    found = alignment(gradients)
    for values in (found.cosine, found.low, found.high):
        assert values[1].isnan().all() and values[:, 1].isnan().all() and not values[0, [0, 2]].isnan().any()
    assert found.itself.isnan().tolist() == [False, True, False]


def test_what_cannot_be_answered_is_refused():
    with pytest.raises(BadInput, match="no patch EOT"):
        patch_gradients(
            [conv_victim()], pictures(), None, replace(CONFIG, patch_eot=PRESETS["strong"].patch_eot), 4
        )
    with pytest.raises(BadInput, match="at least 4 draws"):
        alignment(torch.ones(3, 2, 5))
