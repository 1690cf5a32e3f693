from __future__ import annotations

import threading

import pytest
import torch

from segpatch.cores import count, side_by_side

CPU = torch.device("cpu")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_each_piece_has_one_core_and_the_caller_keeps_all(two_threads):
    both = threading.Barrier(2, timeout=20)

    def work(piece: int) -> tuple[int, int]:
        both.wait()  # so that each is done by a thread of its own
        return piece, torch.get_num_threads()

    assert side_by_side(work, range(2), CPU) == [(0, 1), (1, 1)]
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


def test_one_piece_or_one_thread_is_done_here(two_threads):
    here = threading.get_ident()
    assert side_by_side(lambda _: threading.get_ident(), [0], CPU) == [here]
    torch.set_num_threads(1)
    assert side_by_side(lambda _: threading.get_ident(), [0, 1], CPU) == [here, here]


def test_a_gpu_orders_its_own_work(two_threads):
    cuda, here = torch.device("cuda"), threading.get_ident()
    assert (count(CPU), count(cuda)) == (2, 1)
    assert side_by_side(lambda _: threading.get_ident(), [0, 1], cuda) == [here, here]
