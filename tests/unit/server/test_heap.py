from __future__ import annotations

import subprocess
import sys

from service.server.heap import IDLE_SECONDS, LARGE_BYTES, Heap

# In a process of its own: the setting is for the whole of one.
_RESIDENT = """
import pathlib
from service.server.heap import Heap
def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096
heap, before = Heap(), resident()
blocks = [bytearray(8 << 20) for _ in range(4)]
for block in blocks:
    block[:] = bytes(len(block))
del block, blocks
kept = resident() - before
heap.passes(8 << 20, 10.0)
heap.tidy(100.0)
print(kept, resident() - before, heap._known)
"""


def test_memory_of_large_messages_is_kept_and_given_back_when_they_have_ceased():
    run = subprocess.run([sys.executable, "-c", _RESIDENT], capture_output=True, text=True, check=True)
    kept, left, known = run.stdout.split()
    assert known == "True"
    assert int(kept) > 16 << 20
    assert int(left) < 4 << 20


def test_it_is_given_back_only_after_a_while_and_only_once():
    heap = Heap()
    heap.passes(LARGE_BYTES, 10.0)
    heap.tidy(10.0 + IDLE_SECONDS / 2)
    assert heap.keeps
    heap.passes(LARGE_BYTES, 11.0)
    heap.tidy(10.5 + IDLE_SECONDS)
    assert heap.keeps
    heap.tidy(11.0 + IDLE_SECONDS)
    assert not heap.keeps


def test_small_messages_have_nothing_kept():
    heap = Heap()
    heap.passes(LARGE_BYTES - 1, 10.0)
    assert not heap.keeps
