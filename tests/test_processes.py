from __future__ import annotations

import pytest

from segpatch import cli
from segpatch.errors import BadInput, Lost, SegpatchError
from segpatch.processes import ALONE, Processes, join, leave
from side_by_side import side_by_side


def fails(error: BaseException):
    raise error


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_every_item_is_shared_once(world: int):
    shares = [Processes(rank, world).share(range(5)) for rank in range(world)]
    assert sorted(item for share in shares for item in share) == list(range(5))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_nothing_is_exchanged(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join() is ALONE and ALONE.first
    leave(ALONE)
    said: list[str] = []
    ALONE.say(lambda: said.append("done"))
    assert (ALONE.gathered(lambda: 3), ALONE.together(lambda: 3), ALONE.by_first(lambda: 3)) == ([3], 3, 3)
    assert said == ["done"]


@pytest.mark.parametrize(
    "environment", [{}, {"RANK": "0"}, {"RANK": "0", "MASTER_ADDR": "here", "MASTER_PORT": "x"}]
)
@pytest.mark.parametrize("world", ["2", "0", "many"])
def test_processes_that_cannot_be_reached_are_a_mistake_of_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], world: str, environment: dict[str, str]
):
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**environment, "WORLD_SIZE": world}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 1 and said.count("\n") == 1
    assert f"WORLD_SIZE is '{world}', but the others cannot be joined (" in said


def test_what_one_process_does_alone_is_refused_to_several(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.argv", ["segpatch", "report", "run"])
    code, tell = cli._outcome(Processes(0, 2))
    assert code == 1 and tell is not None
    tell()
    assert capsys.readouterr().err == (
        "segpatch: one process is enough for this; several can share fit, attack, evaluate, transfer\n"
    )


def test_values_come_in_the_order_of_the_processes():
    assert side_by_side(3, lambda p: p.gathered(lambda: p.rank * 10)) == [[0, 10, 20]] * 3
    assert side_by_side(3, lambda p: p.together(lambda: p.rank * 10)) == [0, 10, 20]
    assert side_by_side(3, lambda p: p.by_first(lambda: p.rank * 10)) == [0, 0, 0]


def test_the_first_alone_does_what_is_done_once():
    done: list[int] = []
    side_by_side(3, lambda p: p.by_first(lambda: done.append(p.rank)))
    assert done == [0]


@pytest.mark.parametrize("failing", [0, 1])
def test_what_the_user_can_mend_is_the_same_error_in_all(failing: int):
    error = BadInput("an image is broken")
    out = side_by_side(2, lambda p: p.together(lambda: fails(error) if p.rank == failing else 1))
    assert [type(one) for one in out] == [BadInput] * 2 and {str(one) for one in out} == {"an image is broken"}


def test_a_bug_keeps_its_traceback_and_ends_the_others():
    bug, other = side_by_side(2, lambda p: p.together(lambda: fails(KeyError("x")) if p.first else 1))
    assert isinstance(bug, KeyError)
    assert type(other) is SegpatchError and str(other) == "process 0 of 2 failed: KeyError: 'x'"


def test_ctrl_c_in_one_stops_all():
    out = side_by_side(
        2, lambda p: p.together(lambda: fails(KeyboardInterrupt()) if p.first else fails(BadInput()))
    )
    assert [type(one) for one in out] == [KeyboardInterrupt] * 2


def test_a_process_that_went_is_lost_to_the_others():
    gone, waiting = side_by_side(2, lambda p: fails(KeyError("x")) if p.first else p.together(lambda: 1))
    assert isinstance(gone, KeyError)
    assert isinstance(waiting, Lost) and "another process of this run has stopped" in str(waiting)


def test_an_error_of_its_own_is_not_hidden_by_a_lost_process():
    out = side_by_side(
        2, lambda p: fails(KeyError("x")) if p.first else p.together(lambda: fails(BadInput("own")))
    )
    assert isinstance(out[1], BadInput) and str(out[1]) == "own"


def test_items_are_fetched_in_step():
    out = side_by_side(2, lambda p: list(p.in_step(range(3 - p.rank), 3)))
    assert out == [[0, 1, 2], [0, 1]]
    assert list(ALONE.in_step(iter("ab"), 2)) == ["a", "b"]


@pytest.mark.parametrize("stage", ["fetch", "use"])
def test_a_failing_item_ends_all_at_once(stage: str):
    def items(processes: Processes, where: str):
        for at in range(100):
            if at == 2 and processes.rank == 1 and stage == where:
                raise BadInput("a bad item")
            yield at

    used: list[int] = []

    def use_all(processes: Processes):
        for at, _ in zip(processes.in_step(items(processes, "fetch"), 100), items(processes, "use"), strict=True):
            used.append(at)

    out = side_by_side(2, lambda p: p.gathered(lambda: use_all(p)))
    assert all(isinstance(one, BadInput) and str(one) == "a bad item" for one in out)
    assert max(used) <= 2
