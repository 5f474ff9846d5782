from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.broker.manager import ManagerBroker
from svc.domain.job import NewChunk, Terms
from svc.server.heap import IDLE_SECONDS, LARGE_BYTES, Heap
from svc.server.manager import Server, listen

# In a process of its own: the setting is for the whole of one.
_RESIDENT = """
import os, pathlib
from svc.server.heap import Heap
def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
heap, before = Heap(), resident()
blocks = [bytearray(8 << 20) for _ in range(4)]
for block in blocks:
    block[:] = bytes(len(block))
del block, blocks
kept = resident() - before
heap.passes(10.0)
heap.tidy(100.0)
print(kept, resident() - before, heap._known)
"""


@pytest.fixture
def heap() -> Heap:
    return Heap()


def test_memory_of_large_messages_is_kept_and_given_back_when_they_have_ceased():
    run = subprocess.run([sys.executable, "-c", _RESIDENT], capture_output=True, text=True, check=True)
    kept, left, known = run.stdout.split()
    assert known == "True"
    assert int(kept) > 16 << 20
    assert int(left) < 4 << 20


def test_it_is_given_back_only_after_a_while_and_only_once(heap):
    heap.passes(10.0)
    heap.tidy(10.0 + IDLE_SECONDS / 2)
    assert heap.keeps
    heap.passes(11.0)
    heap.tidy(10.5 + IDLE_SECONDS)
    assert heap.keeps
    heap.tidy(11.0 + IDLE_SECONDS)
    assert not heap.keeps


@pytest.mark.parametrize(("size", "keeps"), [(LARGE_BYTES // 2, False), (LARGE_BYTES, True)])
def test_the_manager_notes_large_messages_and_no_others(heap, size, keeps):
    host = QueueHost(MemoryJournal())
    server = Server(host, listen("127.0.0.1", 0), b"k" * 32, heap=heap)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    client = ManagerBroker(server.endpoint, b"k" * 32)
    try:
        client.submit("o", [NewChunk(0, Terms("m:f"), [bytes(size)])])
        assert heap.keeps == keeps
    finally:
        client.close()
        server.stop()
        thread.join(30)
