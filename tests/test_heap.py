from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from segpatch import heap

GLIBC = platform.libc_ver()[0] == "glibc"
FAULTS = """
import resource, sys
import torch
from segpatch import heap
if sys.argv[1] == "keep":
    assert heap.keep()
for _ in range(20):
    torch.zeros(2**24)  # 64 MiB
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.zeros(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
RESIDENT = """
import torch
from segpatch import heap
from segpatch.latency import resident
heap.keep()
empty = resident()
full = torch.ones(2**26)
held = resident()
del full
heap.give_back()
print(held - empty, resident() - empty)
"""


OF_A_THREAD = """
import threading
from segpatch import heap
heap.keep()
import torch
from segpatch.latency import resident
thread = threading.Thread(target=lambda: [torch.ones(2**20) for _ in range(12)])  # 4 MiB each
thread.start()
thread.join()
before = resident()
held = [torch.ones(2**20 - 2**12) for _ in range(12)]  # a little less: alignment adds some
print(resident() - before)
"""


def said(script: str, *arguments: str) -> list[int]:
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


@pytest.mark.skipif(not GLIBC, reason="another C library than glibc")
def test_kept_memory_costs_no_page_faults():
    assert said(FAULTS, "keep")[0] < 100
    assert said(FAULTS, "as it is")[0] > 500, "a fault is a page of 4 KiB or of 2 MiB"


@pytest.mark.skipif(not GLIBC, reason="another C library than glibc")
def test_kept_memory_can_be_given_back():
    held, left = said(RESIDENT)
    assert held > 250 * 2**20
    assert left < 20 * 2**20


@pytest.mark.skipif(not GLIBC, reason="another C library than glibc")
def test_what_a_thread_frees_serves_the_others():
    (grown,) = said(OF_A_THREAD)
    assert grown < 10 * 2**20, "48 MiB were there"


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(heap, "_glibc", lambda: None)
    assert heap.keep() is False
    heap.give_back()
