"""Rows for journals, and journals as a kill leaves them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import apsw

from service.domain.events import AnyEvent, Submitted
from service.domain.job import Terms
from service.server.journal import SqliteJournal
from service.server.journal.annex import annex_path
from service.server.journal.mark import mark_path

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
    if annex_path(source).exists():
        shutil.copytree(annex_path(source), annex_path(target))
    return target


def rows_of(path: Path, **options: Any) -> list[tuple[int, AnyEvent]]:
    """Open the journal and return all that it replays."""
    journal = SqliteJournal.open(path, "os", **options)
    try:
        return list(journal.replay())
    finally:
        journal.close()


def age(path: Path) -> None:
    """Make of a closed journal what a release of format 1 would have left: no checksums, no mark."""
    connection = apsw.Connection(str(path))
    try:
        connection.execute("ALTER TABLE events DROP COLUMN crc; ALTER TABLE events DROP COLUMN total")
        connection.pragma("user_version", 1)
    finally:
        connection.close()
    mark_path(path).unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Delete the journal and what stands beside it."""
    for part in PARTS:
        Path(f"{path}{part}").unlink(missing_ok=True)
    shutil.rmtree(annex_path(path), ignore_errors=True)
