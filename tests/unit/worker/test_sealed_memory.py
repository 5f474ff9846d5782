from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from svc.worker.sealed_memory import SealedMemory

CONTEXT = multiprocessing.get_context("spawn")


@pytest.fixture
def memory() -> SealedMemory:
    return SealedMemory(100)


def descriptors() -> dict[int, str]:
    """Return the descriptors of this process that are memory of ours."""
    return {
        int(each.name): str(each)
        for each in Path("/proc/self/fd").iterdir()
        if each.is_symlink() and "memfd:svc" in str(each.readlink())
    }


@pytest.mark.parametrize("size", [0, 99, 101, 1 << 20])
def test_nobody_can_change_its_size(memory: SealedMemory, size: int) -> None:
    assert descriptors()
    for descriptor in descriptors():
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, size)
    assert bytes(memory.view) == bytes(100)


def write(memory: SealedMemory) -> None:
    memory.view[:5] = b"hello"


def test_another_process_writes_to_the_same_bytes(memory: SealedMemory) -> None:
    process = CONTEXT.Process(target=write, args=(memory,))
    process.start()
    memory.passed()
    process.join(30)
    assert process.exitcode == 0
    process.close()
    assert bytes(memory.view[:5]) == b"hello"


def test_no_descriptor_of_it_stays_open() -> None:
    before = descriptors()
    for passed in (True, False):
        memory = SealedMemory(100)
        assert descriptors() != before
        if passed:
            memory.passed()
            memory.passed()
        del memory
        assert descriptors() == before
