"""Rows for journals, and journals as a kill leaves them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from service.domain.events import AnyEvent, Submitted
from service.domain.job import Terms
from service.server.journal import SqliteJournal

TERMS = Terms("module:function")
#: What stands beside the file and belongs to it.
PARTS = ("", "-wal", ".mark")


def event(number: int, size: int = 100) -> AnyEvent:
    """Return a submit of one job with about *size* bytes of arguments."""
    return Submitted(float(number), "o", number, TERMS, [b"%d" % number * (size // len(str(number)))])


def killed(source: Path, target: Path) -> Path:
    """Copy the files of a journal that is open: what the disk has after kill -9."""
    for part in PARTS:
        if Path(f"{source}{part}").exists():
            shutil.copyfile(f"{source}{part}", f"{target}{part}")
    return target


def rows_of(path: Path, **options: Any) -> list[tuple[int, AnyEvent]]:
    """Open the journal and return all that it replays."""
    journal = SqliteJournal.open(path, "os", **options)
    try:
        return list(journal.replay())
    finally:
        journal.close()


def remove(path: Path) -> None:
    """Delete the journal and what stands beside it."""
    for part in PARTS:
        Path(f"{path}{part}").unlink(missing_ok=True)
