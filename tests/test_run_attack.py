from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from segpatch.attack import train_patch
from segpatch.data.images import SplitImages, split_images
from segpatch.errors import BadInput, Lost, SegpatchError
from segpatch.patch import Patch
from segpatch.processes import Processes
from segpatch.runs import read_json, read_steps
from segpatch.studies.attack import read_snapshots, run_attack, training_warnings
from segpatch.studies.progress import Progress, silent
from segpatch.writing import guarded
from side_by_side import side_by_side
from tiny import TINY, conv_victim, learnable_dataset

CONFIG = replace(TINY, steps=8, stepper="adam", select="best", held_out=2, snapshots=3)


@pytest.fixture
def images(tmp_path: Path) -> SplitImages:
    return split_images(learnable_dataset(tmp_path / "data"), "train")


def stop_at(step: int):
    def stop(progress: Progress) -> None:
        if progress.done == step:
            raise KeyboardInterrupt

    return stop


def attack(images: SplitImages, out: Path, config=CONFIG, **more) -> Patch:
    return run_attack([conv_victim()], images, config, out, **more)


def test_a_run_holds_the_patch_and_how_it_was_made(images: SplitImages, tmp_path: Path):
    seen: list[Progress] = []
    patch = attack(images, tmp_path / "run", on_progress=seen.append)
    assert torch.equal(patch.pixels, train_patch([conv_victim()], images, CONFIG).pixels)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    results = {"patch.safetensors", "patch.png", "steps.jsonl", "warnings.json", "snapshots"}
    assert names == {"config.json", "environment.json", "run.lock"} | results
    config = read_json(tmp_path / "run/config.json")
    assert config["config"]["steps"] == 8 and config["config"]["crop"] == [10, 10]
    assert config["data"]["split"] == "train" and config["victims"][0]["network"] == "conv"
    assert [row["step"] for row in read_steps(tmp_path / "run")] == list(range(1, 9))
    assert [(p.stage, p.done, p.total) for p in seen] == [("attack conv/paper/s0", i, 8) for i in range(1, 9)]
    assert training_warnings(tmp_path / "run") == json.loads((tmp_path / "run/warnings.json").read_text())


@pytest.mark.parametrize("step", [1, 4, 7])
def test_interrupted_and_resumed_gives_the_same_bits(images: SplitImages, tmp_path: Path, step: int):
    whole = attack(images, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        attack(images, tmp_path / "run", on_progress=stop_at(step))
    assert not (tmp_path / "run/patch.safetensors").exists()
    late: list[Progress] = []
    again = attack(images, tmp_path / "run", resume=True, on_progress=late.append)
    assert again.sha256() == whole.sha256()
    assert late[0].done == step + 1
    assert read_steps(tmp_path / "run") == read_steps(tmp_path / "whole")
    assert not (tmp_path / "run/state.safetensors").exists()
    before, after = (read_snapshots(tmp_path / name) for name in ("whole", "run"))
    assert list(before) == list(after) == [3, 5, 8]
    assert all(torch.equal(before[at], after[at]) for at in before)


def test_snapshots_are_the_patches_of_shorter_trainings(images: SplitImages, tmp_path: Path):
    config = replace(TINY, steps=6, snapshots=3)
    patch = attack(images, tmp_path / "run", config)
    kept = read_snapshots(tmp_path / "run")
    assert list(kept) == [2, 4, 6] and torch.equal(kept[6], patch.pixels)
    for steps in (2, 4):
        shorter = replace(config, steps=steps, snapshots=0)
        assert torch.equal(kept[steps], train_patch([conv_victim()], images, shorter).pixels)
    (tmp_path / "run/snapshots/000004.safetensors").write_bytes(b"no tensors")
    with pytest.raises(BadInput, match="train the patch again"):
        read_snapshots(tmp_path / "run")


def test_stopped_twice_and_resumed(images: SplitImages, tmp_path: Path):
    whole = attack(images, tmp_path / "whole")
    for step in (2, 5):
        with pytest.raises(KeyboardInterrupt):
            attack(images, tmp_path / "run", resume=True, on_progress=stop_at(step))
    assert attack(images, tmp_path / "run", resume=True).sha256() == whole.sha256()


def test_killed_without_a_word_starts_from_the_last_state(images: SplitImages, tmp_path: Path):
    class Killed(BaseException):
        pass

    def kill(progress: Progress) -> None:
        raise Killed

    whole = attack(images, tmp_path / "whole")
    with pytest.raises(Killed):
        attack(images, tmp_path / "run", on_progress=kill)
    assert attack(images, tmp_path / "run", resume=True).sha256() == whole.sha256()
    assert len(read_steps(tmp_path / "run")) == 8


def test_a_finished_run_is_read(images: SplitImages, tmp_path: Path):
    first = attack(images, tmp_path / "run")
    before = (tmp_path / "run/patch.safetensors").stat().st_mtime_ns
    seen: list[Progress] = []
    again = attack(images, tmp_path / "run", resume=True, on_progress=seen.append)
    assert (again.sha256(), again.name, seen) == (first.sha256(), first.name, [])
    assert (tmp_path / "run/patch.safetensors").stat().st_mtime_ns == before


def test_resume_with_another_network_or_seed_is_refused(images: SplitImages, tmp_path: Path):
    attack(images, tmp_path / "run")
    with pytest.raises(BadInput, match="a run with another config"):
        attack(images, tmp_path / "run", replace(CONFIG, seed=1), resume=True)
    with pytest.raises(BadInput, match="a run with another victims"):
        run_attack([conv_victim(name="other")], images, CONFIG, tmp_path / "run", resume=True)


def test_overwrite_starts_again(images: SplitImages, tmp_path: Path):
    first = attack(images, tmp_path / "run")
    again = attack(images, tmp_path / "run", replace(CONFIG, seed=1), overwrite=True)
    assert again.seed == 1 and again.sha256() != first.sha256()
    assert len(read_steps(tmp_path / "run")) == 8


def test_warnings_stand_beside_the_patch(images: SplitImages, tmp_path: Path):
    config = replace(CONFIG, select="last", held_out=0)
    run_attack([conv_victim(kernel=1)], images, config, tmp_path / "run")
    assert any("gradient was exactly 0 in 8 of 8" in line for line in training_warnings(tmp_path / "run"))


def test_bad_input_leaves_nothing(images: SplitImages, tmp_path: Path):
    with pytest.raises(BadInput, match="does not fit crops"):
        attack(images, tmp_path / "run", replace(CONFIG, patch_size=(11, 11)))
    next((tmp_path / "data/labels/train").iterdir()).unlink()
    with pytest.raises(SegpatchError):
        attack(split_images(learnable_again(tmp_path), "train"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def learnable_again(tmp_path: Path):
    from segpatch.data import open_data

    return open_data(f"folder:{tmp_path / 'data'}")


def no_space(path: Path, pixels) -> None:
    with guarded(path):
        raise OSError(28, "No space left on device")


def test_no_space_left_for_the_patch_leaves_a_run_to_resume(images: SplitImages, tmp_path: Path, monkeypatch):
    whole = attack(images, tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr("segpatch.patch.write_whole", no_space)
        with pytest.raises(SegpatchError, match="No space left on device"):
            attack(images, tmp_path / "run")
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert not any("patch" in name for name in left), left
    assert attack(images, tmp_path / "run", resume=True).sha256() == whole.sha256()


def test_processes_write_the_run_of_one(images: SplitImages, tmp_path: Path):
    config = replace(CONFIG, batch_size=4)
    one = attack(images, tmp_path / "one", config)
    patches = side_by_side(2, lambda p: attack(images, tmp_path / "two", config, processes=p))
    for patch in patches:
        torch.testing.assert_close(patch.pixels, one.pixels, rtol=0, atol=1e-4)
    for name in ("config.json", "warnings.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert [row["step"] for row in read_steps(tmp_path / "two")] == list(range(1, 9))
    again = side_by_side(2, lambda p: attack(images, tmp_path / "two", config, resume=True, processes=p))
    assert {patch.sha256() for patch in again} == {patches[0].sha256()}


@pytest.mark.parametrize("stopped", [0, 1])
def test_processes_resume_together(images: SplitImages, tmp_path: Path, stopped: int):
    def stop(processes: Processes):
        at = stop_at(3) if processes.rank == stopped else silent
        return attack(images, tmp_path / "run", on_progress=at, processes=processes)

    whole = side_by_side(2, lambda p: attack(images, tmp_path / "whole", processes=p))
    out = side_by_side(2, stop)
    assert isinstance(out[stopped], KeyboardInterrupt) and isinstance(out[1 - stopped], Lost)
    again = side_by_side(2, lambda p: attack(images, tmp_path / "run", resume=True, processes=p))
    assert {patch.sha256() for patch in again} == {whole[0].sha256()}
    assert read_steps(tmp_path / "run") == read_steps(tmp_path / "whole")


def test_processes_refuse_together_and_leave_nothing(images: SplitImages, tmp_path: Path):
    (tmp_path / "data/labels/train/train3.png").write_bytes(b"no picture")
    out = side_by_side(2, lambda p: attack(images, tmp_path / "run", processes=p))
    assert all(isinstance(error, BadInput) and "train3.png" in str(error) for error in out)
    assert not (tmp_path / "run").exists()


def test_too_little_memory_is_a_warning_and_not_a_setting(images: SplitImages, tmp_path: Path):
    victim = conv_victim()
    convolution = victim.module

    class Crowded(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = convolution

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return self.convolution(x)

    whole = attack(images, tmp_path / "whole")
    seen: list[Progress] = []
    crowded = replace(victim, module=Crowded())
    patch = run_attack([crowded], images, CONFIG, tmp_path / "run", on_progress=seen.append)
    torch.testing.assert_close(patch.pixels, whole.pixels, rtol=0, atol=1e-4)
    assert (tmp_path / "run/config.json").read_bytes() == (tmp_path / "whole/config.json").read_bytes()
    assert any("went on with 1" in line for line in training_warnings(tmp_path / "run"))
    assert seen[0].note.endswith("for want of memory 1 at a time")


def test_a_finished_run_whose_warnings_are_damaged_is_refused(tmp_path: Path):
    for held in ("7", "[1]"):
        (tmp_path / "warnings.json").write_text(held)
        with pytest.raises(BadInput, match=r"is damaged \(no list of texts\); train the patch again"):
            training_warnings(tmp_path)


def test_a_log_that_was_changed_ends_a_resumed_run(images: SplitImages, tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        attack(images, tmp_path / "run", on_progress=stop_at(3))
    path = tmp_path / "run/steps.jsonl"
    path.write_text(path.read_text().replace('"loss": ', '"lost": '))
    with pytest.raises(BadInput, match=r"steps.jsonl is damaged .*lost.*; start again with --overwrite"):
        attack(images, tmp_path / "run", resume=True)
