from __future__ import annotations

import io

import pytest

from segpatch.cli.progress import ProgressPrinter, clock, describe
from segpatch.studies.progress import Progress


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(printer: ProgressPrinter, time: Clock, stage: str, units: range, seconds_each: float, total: int) -> None:
    for done in units:
        printer(Progress(stage, done, total, "loss 0.5"))
        time.now += seconds_each


def test_rate_and_remaining_time_by_hand(time: Clock):
    out = io.StringIO()
    run(ProgressPrinter(stream=out), time, "attack", range(1, 101), 2.0, 100)
    lines = out.getvalue().splitlines()
    assert lines[0] == "attack: 1/100, loss 0.5"  # no rate yet
    assert lines[1] == "attack: 4/100, 2.00 s each, 3:12 left, loss 0.5"  # 96 units at 2 seconds
    assert lines[-1] == "attack: 100/100, 2.00 s each, took 3:18, loss 0.5"


def test_a_resumed_stage_counts_from_where_it_went_on(time: Clock):
    out = io.StringIO()
    run(ProgressPrinter(stream=out), time, "attack", range(91, 101), 6.0, 100)
    assert out.getvalue().splitlines()[1] == "attack: 92/100, 6.00 s each, 0:48 left, loss 0.5"


def test_a_line_every_five_seconds_off_a_terminal(time: Clock):
    out = io.StringIO()
    run(ProgressPrinter(stream=out), time, "attack", range(1, 1001), 2**-7, 1000)  # eight seconds
    assert [line.split(",")[0] for line in out.getvalue().splitlines()] == [
        "attack: 1/1000", "attack: 641/1000", "attack: 1000/1000"
    ]  # fmt: skip
    assert "128.00/s" in out.getvalue()


def test_each_stage_is_measured_alone(time: Clock):
    out = io.StringIO()
    printer = ProgressPrinter(stream=out)
    run(printer, time, "attack", range(1, 3), 10.0, 2)
    run(printer, time, "measure", range(1, 3), 0.5, 2)
    assert out.getvalue().splitlines()[-1] == "measure: 2/2, 2.00/s, took 0:00, loss 0.5"


def test_a_terminal_line_is_rewritten(time: Clock):
    out = Terminal()
    printer = ProgressPrinter(stream=out)
    printer(Progress("attack", 1, 3, "a long note"))
    time.now += 0.05
    printer(Progress("attack", 2, 3))  # too soon to be seen
    time.now += 1
    printer(Progress("attack", 3, 3))
    first, last = out.getvalue().split("\r")[1:]
    assert first == "attack: 1/3, a long note"
    assert last.startswith("attack: 3/3, 1.90/s, took 0:01") and last.endswith("\n")
    assert len(last) > len(first)  # it covers what stood there


def test_quiet_prints_nothing(time: Clock):
    out = io.StringIO()
    run(ProgressPrinter(quiet=True, stream=out), time, "attack", range(1, 4), 10.0, 3)
    assert out.getvalue() == ""


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (65.4, "1:05"), (3599.6, "1h00"), (7500, "2h05")])
def test_clock(seconds: float, text: str):
    assert clock(seconds) == text


def test_no_time_has_passed():
    assert describe(Progress("measure", 4, 9), 0, 0.0) == "measure: 4/9"
