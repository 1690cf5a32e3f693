from __future__ import annotations

import pytest

from segpatch.attack_config import PRESETS, AttackConfig, step_size
from segpatch.errors import BadInput


def test_step_sizes_by_hand():
    constant = AttackConfig(steps=4, step_size=0.1)
    assert [step_size(constant, step) for step in range(4)] == [0.1] * 4
    cosine = AttackConfig(steps=4, step_size=0.1, schedule="cosine")
    half = 0.1 * 2**-0.5
    expected = [0.1, 0.05 + half / 2, 0.05, 0.05 - half / 2]
    assert [step_size(cosine, step) for step in range(4)] == pytest.approx(expected)


def test_an_unknown_schedule_names_the_nearest():
    with pytest.raises(BadInput, match="cosine"):
        AttackConfig(schedule="cosin")


def test_an_unknown_start_is_refused():
    with pytest.raises(BadInput, match="grey"):
        AttackConfig(start="gray")


def test_published_presets_keep_the_published_step():
    for name in ("released", "paper"):
        preset = PRESETS[name]
        assert (preset.stepper, preset.step_size, preset.schedule) == ("sign", 0.005, "constant")
