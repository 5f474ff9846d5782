"""Power loss at every sync of a long log: each state that a disk may hold is a promised one (F6)."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from svc.errors import JournalError
from svc.server.journal import SqliteJournal
from svc.server.journal.mark import Claim, mark_path, open_mark, this_boot
from tests.support.disk import Disk, Step, recorded_disk
from tests.support.journals import event, remove, rows_of

OPERATIONS = 5_000
KEPT, CHECKPOINT_EACH = 40, 60


def numbers_after(operation: int) -> list[int]:
    """Return the rows that are there once *operation* is acknowledged: the last few."""
    return list(range(max(0, operation - KEPT + 1), operation + 1))


def recorded(disk: Disk, path: Path) -> list[int]:
    """Run the operations; return for each the number of disk steps before its answer."""
    journal = SqliteJournal.open(path)
    answered = []
    for operation in range(OPERATIONS):
        journal.append([(operation, event(operation))], [operation - KEPT] if operation >= KEPT else [])
        answered.append(len(disk.history))
        if operation % CHECKPOINT_EACH == 0:
            journal.checkpoint()
    journal.close()
    return answered


class Image:
    """The files on a disk after the steps that were applied so far."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def apply(self, steps: list[Step]) -> None:
        for kind, name, offset, data in steps:
            if kind == "sync" or name.endswith("-journal"):
                continue
            with (self._directory / name).open("r+b" if (self._directory / name).exists() else "w+b") as file:
                if kind == "truncate":
                    file.truncate(offset)
                else:
                    file.seek(offset)
                    file.write(data)

    def numbers(self, path: Path, acknowledged: int) -> list[int]:
        """Open a fresh copy of the files, with a mark at the last acknowledged row, and return its rows."""
        remove(path)
        for file in self._directory.iterdir():
            shutil.copyfile(file, path.with_name(file.name))
        os.close(open_mark(mark_path(path), Claim(1, acknowledged, durable=1, boot=this_boot())))
        return [number for number, _ in rows_of(path)]


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Path]:
    """Return a directory in memory if there is one: files that are opened there need not survive."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as directory:
        yield Path(directory)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_prefix_of_a_log_of_5000_operations_recovers_each_acknowledged_one(
    tmp_path, fresh, record_property
):
    image = tmp_path / "image"
    image.mkdir()
    with recorded_disk() as disk:
        answered = recorded(disk, tmp_path / "j.db")
    syncs = [place + 1 for place, step in enumerate(disk.history) if step[0] == "sync"]
    start = next(place for place in syncs if place > answered[0] - 1)
    disk_state = Image(image)
    disk_state.apply(disk.history[:start])
    operation, lost = 0, []
    for before, cut in pairwise([start, *(place for place in syncs if place > start)]):
        disk_state.apply(disk.history[before:cut])
        while operation + 1 < OPERATIONS and answered[operation + 1] <= cut:
            operation += 1
        found = disk_state.numbers(fresh / "j.db", operation)
        # The newest row may be durable before its answer; then the oldest of the window has gone with it.
        if found not in (numbers_after(operation), numbers_after(operation + 1)):
            lost.append((cut, operation))
    assert not lost
    assert operation == OPERATIONS - 1
    assert len(syncs) > OPERATIONS
    record_property("F6 cut the power at each sync of 5,000 operations", len(syncs) - syncs.index(start) - 1)


def test_the_same_check_sees_a_commit_that_the_disk_has_dropped(tmp_path, fresh):
    """So the check can fail: the state before the last sync, and the mark of a later answer."""
    with recorded_disk() as disk:
        journal = SqliteJournal.open(tmp_path / "j.db")
        for number in range(5):
            journal.append([(number, event(number))])
        history = list(disk.history)
        journal.close()
    (tmp_path / "image").mkdir()
    last = max(place for place, step in enumerate(history[:-1]) if step[0] == "sync")
    state = Image(tmp_path / "image")
    state.apply(history[: last + 1])
    assert state.numbers(fresh / "j.db", 3) == [0, 1, 2, 3]
    with pytest.raises(JournalError, match="once reached row 4"):
        state.numbers(fresh / "j.db", 4)
