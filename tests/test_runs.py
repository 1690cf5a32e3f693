from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from disk import Disk
from segpatch import machine, runs, writing
from segpatch.errors import BadInput, Lost, Missing, SegpatchError
from segpatch.machine import environment
from segpatch.runs import LOCK, Run, open_run, read_json, read_steps, write_json

CONFIG = {"command": "attack", "argv": "segpatch attack", "config": {"steps": 3, "size": (4, 5)}}
RESULT = "patch.safetensors"


def both(*held: Any) -> Any:
    return held


def test_a_run_says_what_was_asked_and_where(tmp_path: Path):
    run = open_run(tmp_path / "new/run", CONFIG, RESULT)
    assert not run.finished
    assert read_json(run.directory / "config.json") == {**CONFIG, "config": {"steps": 3, "size": [4, 5]}}
    about = read_json(run.directory / "environment.json")
    assert {"segpatch", "torch", "numpy"} <= about["versions"].keys()
    assert about["versions"]["torch"] == torch.__version__
    assert about["threads"] >= 1 and about["device"] and about["python"].count(".") == 2


def test_the_git_revision_is_recorded():
    revision = environment()["git"]
    assert revision is None or len(revision.rstrip("+")) >= 12


def test_an_existing_run_is_refused_unless_asked(tmp_path: Path):
    open_run(tmp_path / "run", CONFIG, RESULT)
    with pytest.raises(BadInput, match="already holds a run; use --resume, --overwrite or another --out"):
        open_run(tmp_path / "run", CONFIG, RESULT)
    assert not open_run(tmp_path / "run", CONFIG, RESULT, resume=True).finished


def test_a_folder_that_is_no_run_is_never_touched(tmp_path: Path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/dear.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    for name in ("letters", "file"):
        for how in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(BadInput, match="is no segpatch run"):
                open_run(tmp_path / name, CONFIG, RESULT, **how)
    assert (tmp_path / "letters/dear.txt").exists() and (tmp_path / "file").read_text() == "x"


def test_an_empty_folder_is_as_good_as_none(tmp_path: Path):
    (tmp_path / "run").mkdir()
    assert open_run(tmp_path / "run", CONFIG, RESULT).directory == tmp_path / "run"


def test_resume_refuses_another_config(tmp_path: Path):
    open_run(tmp_path / "run", CONFIG, RESULT)
    other = {**CONFIG, "config": {"steps": 4, "size": (4, 5)}}
    with pytest.raises(BadInput, match="a run with another config; resume with the same settings"):
        open_run(tmp_path / "run", other, RESULT, resume=True)
    open_run(tmp_path / "run", {**CONFIG, "argv": "segpatch attack --resume"}, RESULT, resume=True)
    (tmp_path / "run/config.json").write_text(json.dumps({**CONFIG, "a\nb\u2028c": 1}))
    with pytest.raises(BadInput, match=r"holds a run with another a; b; c; resume"):
        open_run(tmp_path / "run", CONFIG, RESULT, resume=True)


def test_resume_starts_what_does_not_exist(tmp_path: Path):
    assert not open_run(tmp_path / "run", CONFIG, RESULT, resume=True).finished


def test_overwrite_removes_what_was_there(tmp_path: Path):
    with open_run(tmp_path / "run", CONFIG, RESULT) as run:
        run.append_step({"step": 1})
        (tmp_path / "run" / RESULT).write_text("old")
        (tmp_path / "run/cells/one").mkdir(parents=True)
    again = open_run(tmp_path / "run", {"command": "fit"}, RESULT, overwrite=True)
    assert sorted(path.name for path in again.directory.iterdir()) == ["config.json", "environment.json", LOCK]
    assert read_json(again.directory / "config.json") == {"command": "fit"}


@pytest.mark.parametrize("done", range(5))
def test_overwriting_that_is_killed_leaves_no_result_beside_another_config(tmp_path: Path, monkeypatch, done: int):
    class Killed(BaseException):
        pass

    removed: list[str] = []

    def remove(path: Path) -> None:
        if len(removed) == done:
            raise Killed
        removed.append(path.name)
        writing.remove(path)

    with open_run(tmp_path / "run", CONFIG, RESULT) as run:
        run.append_step({"step": 1})
        for name in (RESULT, "aaa"):
            (run.directory / name).write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(runs, "remove", remove)
        with pytest.raises(Killed):
            open_run(tmp_path / "run", {"command": "fit"}, RESULT, overwrite=True)
    assert removed[:1] == [RESULT][:done] and "config.json" not in removed[:4]
    assert (tmp_path / "run/config.json").is_file()  # until the very last
    with pytest.raises(BadInput, match="another"):
        open_run(tmp_path / "run", {"command": "fit"}, RESULT, resume=True)
    with open_run(tmp_path / "run", {"command": "fit"}, RESULT, overwrite=True) as run:
        assert sorted(p.name for p in run.directory.iterdir()) == ["config.json", "environment.json", LOCK]


def test_what_was_left_beside_a_result_is_removed(tmp_path: Path):
    with open_run(tmp_path / "run", CONFIG, RESULT) as run:
        (run.directory / RESULT).write_text("done")
        left = [run.directory / name for name in ("state.safetensors", ".1-0a.unfinished")]
        for path in left:
            path.touch()
        with open_run(tmp_path / "run", CONFIG, RESULT, resume=True):
            assert all(path.exists() for path in left)  # the process that made them is still at it
    assert open_run(tmp_path / "run", CONFIG, RESULT, resume=True).finished
    assert not any(path.exists() for path in left)


def test_the_result_makes_a_run_finished(tmp_path: Path):
    with open_run(tmp_path / "run", CONFIG, RESULT) as run:
        run.save_state(1, {}, {})
        (run.directory / RESULT).write_text("done")
        run.finish()
    assert run.finished and not (run.directory / "state.safetensors").exists()
    assert open_run(tmp_path / "run", CONFIG, RESULT, resume=True).finished


def test_state_comes_back_and_later_steps_are_forgotten(tmp_path: Path):
    run = Run(tmp_path)
    assert run.load_state(both) is None
    for step in range(1, 6):
        run.append_step({"step": step, "loss": step / 2})
        if step == 3:
            run.save_state(step, {"pixels": torch.arange(6.0).view(2, 3).T}, {"best": 0.25})
    tensors, facts = Run(tmp_path).load_state(both)
    assert torch.equal(tensors["pixels"], torch.arange(6.0).view(2, 3).T)
    assert facts == {"step": 3, "best": 0.25}
    assert [row["step"] for row in read_steps(tmp_path)] == [1, 2, 3]


def test_steps_without_a_state_are_forgotten(tmp_path: Path):
    Run(tmp_path).append_step({"step": 1})
    assert Run(tmp_path).load_state(both) is None
    assert read_steps(tmp_path) == []


def test_a_line_cut_short_is_left_out(tmp_path: Path):
    Run(tmp_path).append_step({"step": 1})
    with (tmp_path / "steps.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    assert read_steps(tmp_path) == [{"step": 1}]


def test_a_damaged_state_is_refused(tmp_path: Path):
    run = Run(tmp_path)
    run.save_state(3, {"pixels": torch.zeros(100)}, {})
    path = tmp_path / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(BadInput, match=r"is damaged .*\); start again with --overwrite"):
        run.load_state(both)


def test_the_state_is_due_after_steps_and_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    run = Run(tmp_path, _saved_at=now)
    assert not run.state_is_due(1000)  # no time has passed
    now = 130.0
    assert not run.state_is_due(49) and run.state_is_due(50)
    run.save_state(50, {}, {})
    assert not run.state_is_due(100)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch):
    """Fills the disk: from now on, half of what is written fits."""
    return lambda: monkeypatch.setattr(writing, "os", Disk("short write", 1, lasting=True))


def test_no_space_left_is_one_line_and_leaves_nothing(tmp_path: Path, full_disk):
    full_disk()
    with pytest.raises(SegpatchError, match="No space left on device") as caught:
        open_run(tmp_path / "run", CONFIG, RESULT)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_no_space_left_keeps_the_old_state(tmp_path: Path, full_disk):
    run = Run(tmp_path)
    run.save_state(1, {"pixels": torch.ones(3)}, {})
    before = (tmp_path / "state.safetensors").read_bytes()
    full_disk()
    with pytest.raises(SegpatchError, match="No space left"):
        run.save_state(2, {"pixels": torch.zeros(3)}, {})
    with pytest.raises(SegpatchError, match=r"cannot write to .*No space left"):
        run.append_step({"step": 2})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state.safetensors", "steps.jsonl"]
    assert (tmp_path / "steps.jsonl").read_bytes() == b""  # no half of a line
    assert (tmp_path / "state.safetensors").read_bytes() == before


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SegpatchError, match="cannot write to"):
        open_run(tmp_path / "file/run", CONFIG, RESULT)


def test_numbers_that_json_lacks_become_null(tmp_path: Path):
    write_json(tmp_path / "a.json", {"nan": math.nan, "inf": [math.inf, -math.inf], "one": 1.5, 2: Path("/x")})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == {"nan": None, "inf": [None, None], "one": 1.5, "2": "/x"}
    with pytest.raises(TypeError):
        write_json(tmp_path / "b.json", {"object": object()})


def test_what_is_no_json_is_refused(tmp_path: Path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(BadInput, match="is no readable JSON file"):
        read_json(tmp_path / "a.json")
    with pytest.raises(Missing, match=r"absent.json is not there"):
        read_json(tmp_path / "absent.json")


def test_bad_input_before_the_first_step_leaves_no_run(tmp_path: Path):
    run = open_run(tmp_path / "run", CONFIG, RESULT)
    with pytest.raises(BadInput), run.kept_if_begun():
        raise BadInput("a label is missing")
    assert list(tmp_path.iterdir()) == []


def test_bad_input_after_steps_that_nothing_can_go_on_from_leaves_no_run(tmp_path: Path):
    run = open_run(tmp_path / "run", CONFIG, RESULT)
    with pytest.raises(BadInput, match=r"^a label is missing$"), run.kept_if_begun():
        run.append_step({"step": 1})
        raise BadInput("a label is missing")
    assert list(tmp_path.iterdir()) == []


def test_a_lost_process_leaves_the_steps_of_the_others(tmp_path: Path):
    for steps in (0, 1):
        run = open_run(tmp_path / "run", CONFIG, RESULT, overwrite=True)
        with pytest.raises(Lost), run.kept_if_begun():
            for step in range(steps):
                run.append_step({"step": step + 1})
            raise Lost("gone")
        assert run.directory.exists() == bool(steps)


def test_a_finished_part_is_what_a_run_is_kept_for(tmp_path: Path):
    run = open_run(tmp_path / "run", CONFIG, "transfer.json")
    (tmp_path / "run/cells/a").mkdir(parents=True)
    for name in ("config.json", "patch.safetensors"):
        (tmp_path / "run/cells/a" / name).touch()
    with pytest.raises(BadInput, match=r"a label is missing; .*run is kept: --resume"), run.kept_if_begun():
        raise BadInput("a label is missing")
    assert run.directory.exists()


def test_a_state_that_was_changed_is_refused(tmp_path: Path):
    run = Run(tmp_path)
    for step in (1, 2):
        run.append_step({"step": step})
    run.save_state(2, {"pixels": torch.zeros(100)}, {})
    path = tmp_path / "state.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"\x01")
    with pytest.raises(BadInput, match=r"is damaged \(it is not what was saved\); start again with --overwrite"):
        run.load_state(both)
    path.write_bytes(whole)
    with pytest.raises(BadInput, match=r"no state of such a run \(KeyError\('mean'\)\); start again"):
        run.load_state(lambda tensors, facts: tensors["mean"])
    (tmp_path / "steps.jsonl").write_text('{"step": 2}\n')
    with pytest.raises(BadInput, match=r"steps.jsonl lacks steps of the run; start again with --overwrite"):
        run.load_state(both)


def test_a_run_that_begins_with_the_config_of_none_is_refused(tmp_path: Path):
    open_run(tmp_path / "run", CONFIG, RESULT)
    (tmp_path / "run/config.json").write_text("[1]")
    with pytest.raises(BadInput, match=r"config.json is damaged \(no table\); start again with --overwrite"):
        open_run(tmp_path / "run", CONFIG, RESULT, resume=True)


def test_a_run_that_has_begun_is_kept(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt), open_run(tmp_path / "run", CONFIG, RESULT) as run, run.kept_if_begun():
        raise KeyboardInterrupt
    again = open_run(tmp_path / "run", CONFIG, RESULT, resume=True)
    with pytest.raises(BadInput), again.kept_if_begun():
        raise BadInput("a label is missing")
    fresh = open_run(tmp_path / "other", CONFIG, RESULT)
    with pytest.raises(BadInput, match=r"missing; .*other is kept: --resume goes on"), fresh.kept_if_begun():
        fresh.append_step({"step": 1})
        fresh.save_state(1, {}, {})
        raise BadInput("a label is missing")
    assert {path.name for path in tmp_path.iterdir()} == {"run", "other"}
    assert runs.read_steps(fresh.directory) == [{"step": 1}]


HOLD = """
import sys, time
from pathlib import Path
from segpatch.runs import open_run
with open_run(Path(sys.argv[1]), {"command": "attack"}, "patch.safetensors", resume=True):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_and_a_killed_one_holds_nothing(tmp_path: Path):
    config = {"command": "attack"}
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline() == b"held\n"
        for how in ({"resume": True}, {"overwrite": True}, {}):
            with pytest.raises(BadInput, match=r"another process is writing to .*run; wait until it is done"):
                open_run(tmp_path / "run", config, RESULT, **how)
        other.kill()
    with open_run(tmp_path / "run", config, RESULT, resume=True, patience=20) as run:
        assert not run.finished
        with pytest.raises(BadInput, match="another process is writing"):
            open_run(tmp_path / "run", config, RESULT, resume=True)
    open_run(tmp_path / "run", config, RESULT, overwrite=True)


def test_no_other_process_begins_while_the_lock_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It would outlive a killed one by a moment, and hold the lock for it."""
    asked: list[bool] = []
    monkeypatch.setattr(subprocess, "run", lambda *given, **more: asked.append((tmp_path / "run").exists()))
    monkeypatch.setattr(subprocess, "Popen", lambda *given, **more: asked.append(True))
    machine.git_revision.cache_clear()
    with pytest.raises(AttributeError):  # what stands in for git answers nothing
        open_run(tmp_path / "run", CONFIG, RESULT)
    assert asked == [False]


def test_a_run_that_was_stopped_at_its_very_start_is_none(tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).touch()
    (tmp_path / "run/environment.json").write_text("{}")
    assert not open_run(tmp_path / "run", CONFIG, RESULT).finished
    assert read_json(tmp_path / "run/environment.json")["versions"]


def test_a_finished_run_is_read_beside_a_process_that_has_it(tmp_path: Path):
    with open_run(tmp_path / "run", CONFIG, RESULT) as run:
        (run.directory / RESULT).write_text("done")
        assert open_run(tmp_path / "run", CONFIG, RESULT, resume=True).finished
        with pytest.raises(BadInput, match="another command, config"):
            open_run(tmp_path / "run", {"command": "fit"}, RESULT, resume=True)
