"""Cells on a real Ray: one node here, and two of which one is killed in the middle."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from segpatch.attack import train_patch
from segpatch.attack_config import resolve
from segpatch.data.images import split_images
from segpatch.errors import BadInput, Missing
from segpatch.processes import Processes
from segpatch.runs import read_steps
from segpatch.studies.cells import run_cells
from segpatch.studies.planned import PlannedPatch, train_planned
from tiny import TINY, conv_victim, learnable_dataset

pytestmark = [
    # Ray leaves its log files and sockets open when it shuts down.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
]
CONFIG = replace(TINY, steps=12)


@pytest.fixture(autouse=True)
def workers_find_the_tests(monkeypatch) -> None:
    """Ray's workers read what they are sent with the modules that it comes from."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def planned(count: int, **change: object) -> list[PlannedPatch]:
    return [PlannedPatch((conv_victim(),), replace(CONFIG, seed=seed, **change)) for seed in range(count)]


@pytest.fixture
def failing() -> Callable[[int, int], int]:
    """Fails for one cell. Made in here, it is sent whole, and the workers need not import torch to read it."""

    def work(shared: int, cell: int) -> int:
        if cell == shared:
            raise BadInput(f"cell {cell} cannot be")
        return cell

    return work


def test_a_cell_that_fails_ends_all_with_its_own_error(failing):
    assert run_cells(failing, 7, [1, 2, 3], ray="local") == [1, 2, 3]
    with pytest.raises(BadInput, match="cell 2 cannot be"):
        run_cells(failing, 2, [1, 2, 3], ray="local")


def test_no_cluster_at_an_address_is_one_line(failing):
    with pytest.raises(BadInput, match=r"no Ray cluster at 127.0.0.1:1 \(.*refused\); give the address of one"):
        run_cells(failing, 7, [1], ray="127.0.0.1:1")
    with pytest.raises(BadInput, match=r"no Ray cluster at auto .*; give the address of one, or local"):
        run_cells(failing, 7, [1], ray="auto")


def test_cells_that_need_a_gpu_do_not_wait_for_one_that_will_not_come(failing):
    with pytest.raises(BadInput, match="has no GPU for cells; use --device cpu"):
        run_cells(failing, 7, [1], ray="local", gpus=1)


def test_without_ray_it_says_what_to_install(failing, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(Missing, match=r"pip install 'segpatch\[ray\]'"):
        run_cells(failing, 7, [1], ray="local")


def test_several_processes_do_not_use_it_too(tmp_path: Path):
    images = split_images(learnable_dataset(tmp_path), "train")
    with pytest.raises(BadInput, match="use one of them"):
        train_planned(planned(1), images, tmp_path / "run", ray="local", processes=Processes(0, 2))


@pytest.fixture
def cluster() -> Iterator[object]:
    """Two nodes of one core each on this machine."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


@pytest.mark.long
def test_a_node_that_is_killed_loses_nothing_and_nothing_is_done_twice(tmp_path: Path, cluster):
    node = cluster.add_node(num_cpus=1)
    images = split_images(learnable_dataset(tmp_path), "train")
    todo = planned(5, steps=300)
    out = tmp_path / "run"
    finished: dict[Path, int] = {}

    def kill_once_some_are_done_and_others_under_way() -> None:
        begun = time.monotonic()
        while time.monotonic() - begun < 120:
            done = [path.parent for path in out.rglob("patch.safetensors")]
            if len(done) >= 2 and len(list(out.rglob("steps.jsonl"))) > len(done):
                break
            time.sleep(0.02)
        finished.update({path: (path / "patch.safetensors").stat().st_mtime_ns for path in done})
        cluster.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=kill_once_some_are_done_and_others_under_way)
    killer.start()
    patches = train_planned(todo, images, out, ray=cluster.address)
    killer.join()
    assert 2 <= len(finished) < 5, "the node was killed in the middle"
    for item, patch in zip(todo, patches, strict=True):
        alone = train_patch(item.victims, images, resolve(item.config, images, item.victims))
        assert torch.equal(patch.pixels, alone.pixels)
        assert [row["step"] for row in read_steps(out / item.folder)] == list(range(1, 301))
    for folder, written in finished.items():
        assert (folder / "patch.safetensors").stat().st_mtime_ns == written
