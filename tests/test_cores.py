from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
import torch

from segpatch import cores
from segpatch.cores import count, side_by_side

CPU = torch.device("cpu")


@pytest.fixture(params=["team", "pool"])
def two_threads(request, monkeypatch):
    """Of torch's own team, and where there is none."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    if request.param == "pool":
        monkeypatch.setattr(cores, "_openmp", lambda: None)
    else:
        assert sys.platform != "linux" or cores._openmp(), "torch on Linux loads GNU OpenMP"
    yield
    torch.set_num_threads(before)


def test_each_piece_has_one_core_and_the_caller_keeps_all(two_threads):
    both = threading.Barrier(2, timeout=20)
    large = torch.rand(1000, 1000)

    def work(piece: int) -> tuple[int, int]:
        both.wait()  # so that each is done by a thread of its own
        before = len(list(Path("/proc/self/task").iterdir()))
        large.exp() @ large
        return piece, len(list(Path("/proc/self/task").iterdir())) - before

    side_by_side(work, range(2), CPU)
    assert side_by_side(work, range(2), CPU) == [(0, 0), (1, 0)], "no thread of them starts others"
    assert torch.get_num_threads() == 2
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [2], "threads that come later have what the caller has"


def test_pieces_keep_their_order_and_errors_come_through(two_threads):
    assert side_by_side(lambda piece: piece * piece, range(9), CPU) == [k * k for k in range(9)]
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda piece: 1 // piece, range(3), CPU)
    with pytest.raises(KeyboardInterrupt):
        side_by_side(lambda _: (_ for _ in ()).throw(KeyboardInterrupt), range(2), CPU)


def test_one_piece_or_one_thread_is_done_here(two_threads):
    here = threading.get_ident()
    assert side_by_side(lambda _: threading.get_ident(), [0], CPU) == [here]
    torch.set_num_threads(1)
    assert side_by_side(lambda _: threading.get_ident(), [0, 1], CPU) == [here, here]


def test_a_thread_that_is_not_the_main_one_has_its_pieces_done_too(two_threads):
    made: list[list[int]] = []
    thread = threading.Thread(target=lambda: made.append(side_by_side(lambda piece: piece + 1, range(5), CPU)))
    thread.start()
    thread.join()
    assert made == [[1, 2, 3, 4, 5]]


def test_a_gpu_orders_its_own_work(two_threads):
    cuda, here = torch.device("cuda"), threading.get_ident()
    assert (count(CPU), count(cuda)) == (2, 1)
    assert side_by_side(lambda _: threading.get_ident(), [0, 1], cuda) == [here, here]
