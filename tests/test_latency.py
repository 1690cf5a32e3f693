import time

import pytest
import torch

from segpatch.latency import Timing, interleaved, ratio

CPU = torch.device("cpu")


def test_actions_run_in_turn_after_two_rounds_that_are_not_counted():
    order = []
    timings = interleaved({name: lambda name=name: order.append(name) for name in "ab"}, 3, CPU)
    assert order == list("ab") * 5
    assert [len(timings[name].seconds) for name in "ab"] == [3, 3]


def test_seconds_are_seconds():
    timings = interleaved({"sleep": lambda: time.sleep(0.02), "nothing": lambda: None}, 3, CPU)
    assert 0.02 <= timings["sleep"].median < 0.2
    assert timings["nothing"].median < 0.01


def test_the_peak_sees_memory_that_is_given_back():
    def needs_much():
        torch.ones(64, 1024, 1024).sum()  # 256 MiB
        time.sleep(0.01)

    peaks = {
        n: t.peak_bytes for n, t in interleaved({"much": needs_much, "nothing": lambda: None}, 1, CPU).items()
    }
    assert 200 * 2**20 < peaks["much"] < 400 * 2**20
    assert peaks["nothing"] < 50 * 2**20


def test_a_ratio_is_taken_round_by_round():
    slower = Timing((2.0, 6.0, 12.0), 0)  # the machine grows slower, for both alike
    found = ratio(slower, Timing((1.0, 3.0, 4.0), 0))
    assert (found.median, found.low, found.high) == (2.0, 2.0, 3.0)
    assert ratio(slower, Timing((1.0, 3.0, 4.0), 0), scale=2).median == pytest.approx(1.0)
