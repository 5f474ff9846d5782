"""Rows for journals, and journals in the state after a kill."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw

from svc.broker.error_texts import put_back
from svc.broker.journal import Journal, MemoryJournal
from svc.domain.events import (
    Answered,
    AnyEvent,
    Checkpointed,
    Drained,
    Failed,
    Forgotten,
    JobsCancelled,
    Merged,
    Purged,
    Range,
    Requeued,
    Resumed,
    Submitted,
    Succeeded,
    Yielded,
)
from svc.domain.field_bounds import TRACEBACK_MAX
from svc.domain.job import Cause, ErrorInfo, Terms
from svc.server.journal import SqliteJournal
from svc.server.journal.large_rows import large_rows_path
from svc.server.journal.mark import mark_path
from svc.server.journal.rows import event_of
from svc.server.journal.store import rows_of as as_rows
from svc.server.journal.texts import ErrorTexts
from tests.support.jetstream_journals import led, new_stream
from tests.support.memory_journals import LateJournal, reopened

TERMS = Terms("module:function")
SUBMITTED = Terms("module:function", priority=-3, retries=2, backoff=0.5, answer=True)
#: An event of each kind.
EVENTS: list[AnyEvent] = [
    Submitted(1.5, "k3v9x0m2q7w1z", 0, SUBMITTED, [b"", b"\x00\xff" * 50], due=2.5, key="naïve ⚙"),
    Merged(1.75, "a", 7, SUBMITTED, [b"", b"x"], [1, 3], [1.0, 1.5]),
    Succeeded(2.0, [Range("k3v9x0m2q7w1z", 0, 7, [b"one", b"two"], [0.25, 0.5])]),
    Failed(3.0, "a", 1, Cause.CRASHED, ErrorInfo("OSError", "no\nluck", "Traceback …"), 9.5, 0.125, "c1"),
    Failed(3.0, "a", 2, Cause.REFUSED, ErrorInfo("", ""), None),
    Failed(3.5, "a", 2, Cause.FAILED, ErrorInfo("", ""), 9.5, code="3f2a91c07b54", peak=1 << 40),
    Succeeded(3.5, [Range("a", 5, 7, [b"one"], [0.25], "c1", "3f2a91c07b54", [1 << 40])]),
    JobsCancelled(4.0, "a", [3, 4]),
    Requeued(5.0, "a", [2]),
    Answered("a", [1]),
    Drained(6.0, 1, worker="w"),
    Resumed(7.0),
    Forgotten(8.0, "a", 5),
    Checkpointed(9.0, "a", 1, 7, b"\x00data"),
    Yielded(9.5, "a", 1, 7, 2, [b"\x00", b""], 1, 3),
    Purged(10.0, "a", [(0, 2), (5, 6)], 9.75),
]
_FRAMES = "Traceback (most recent call last):\n" + '  File "tasks.py", line 7, in add … ⚙\n' * 400
#: The longest traceback that an event may have.
LONG_TRACEBACK = _FRAMES[:TRACEBACK_MAX]
#: The suffixes of the files that belong to a journal.
PARTS = ("", "-wal", ".mark")


def event(number: int, size: int = 100) -> AnyEvent:
    """Return a submit of one job with about *size* bytes of arguments."""
    return Submitted(float(number), "o", number, TERMS, [b"%d" % number * (size // len(str(number)))])


def failed(number: int, error: ErrorInfo) -> AnyEvent:
    """Return an attempt without a result."""
    return Failed(float(number), "o", number, Cause.FAILED, error, None, 0.5, "w.1", 7, 1, 0, 0)


def traceback_with(message: str) -> str:
    """Return a long traceback that ends with *message*."""
    return f"{LONG_TRACEBACK[: TRACEBACK_MAX - len(message) - 20]}\nValueError: {message}\n"


def numbered(events: list[AnyEvent], first: int = 1) -> list[tuple[int, AnyEvent]]:
    return list(enumerate(events, start=first))


def killed(source: Path, target: Path) -> Path:
    """Copy the files of an open journal: the content of the disk after kill -9."""
    for part in PARTS:
        if Path(f"{source}{part}").exists():
            shutil.copyfile(f"{source}{part}", f"{target}{part}")
    if large_rows_path(source).exists():
        shutil.copytree(large_rows_path(source), large_rows_path(target))
    return target


def rows_of(path: Path, **options: Any) -> list[tuple[int, AnyEvent]]:
    """Open the journal and return all rows that it replays."""
    journal = SqliteJournal.open(path, "os", **options)
    try:
        return list(journal.replay())
    finally:
        journal.close()


def age(path: Path, version: int = 1) -> None:
    """Turn a closed journal into one of format 1 or 2, as an older release would have left it.

    Format 2 has no tables of error texts; format 1 has no checksums and no mark either.
    """
    connection = apsw.Connection(str(path))
    try:
        _put_texts_back(connection)
        connection.execute("DROP TABLE texts; DROP TABLE text_uses")
        if version == 1:
            connection.execute("ALTER TABLE events DROP COLUMN crc; ALTER TABLE events DROP COLUMN total")
        connection.pragma("user_version", version)
    finally:
        connection.close()
    if version == 1:
        mark_path(path).unlink(missing_ok=True)


def _put_texts_back(connection: apsw.Connection) -> None:
    """Write the long texts of errors into their events, as formats 1 and 2 have them."""
    texts = ErrorTexts(connection, 0)
    found: list[Any] = connection.execute(
        "SELECT seq, body, crc FROM events WHERE seq IN (SELECT seq FROM text_uses)"
    ).fetchall()
    whole = [(number, put_back(event_of(number, body, check), texts.read)) for number, body, check in found]
    connection.executemany(
        "UPDATE events SET body = ?, crc = ? WHERE seq = ?",
        [(body, check, number) for number, body, check, _ in as_rows(whole)],
    )


def remove(path: Path) -> None:
    """Delete the journal and its other files."""
    for part in PARTS:
        Path(f"{path}{part}").unlink(missing_ok=True)
    shutil.rmtree(large_rows_path(path), ignore_errors=True)


class Kept:
    """A journal that can be restarted, in a file or in memory."""

    def __init__(self, start: Callable[[], Journal], restart: Callable[[Journal], Journal]) -> None:
        self.journal = start()
        self._restart = restart

    def reopen(self) -> Journal:
        self.journal = self._restart(self.journal)
        return self.journal


def in_file(path: Path, durability: str) -> Kept:
    def reopen(journal: Journal) -> Journal:
        journal.close()
        return SqliteJournal.open(path, durability)

    return Kept(lambda: SqliteJournal.open(path, durability), reopen)


def in_memory(kind: type[MemoryJournal] = MemoryJournal) -> Kept:
    def reopen(journal: Journal) -> Journal:
        assert isinstance(journal, MemoryJournal)
        return reopened(journal)

    return Kept(kind, reopen)


def in_stream(folder: Path) -> Kept:
    address = new_stream()

    def reopen(journal: Journal) -> Journal:
        journal.close()
        return led(address, folder / "mirror")

    return Kept(lambda: led(address, folder / "mirror"), reopen)


#: Every journal there is: how a test begins it in a folder. A new engine joins the contract suites here.
JOURNALS: dict[str, Callable[[Path], Kept]] = {
    "memory": lambda folder: in_memory(),
    "memory-late": lambda folder: in_memory(LateJournal),
    "sqlite": lambda folder: in_file(folder / "journal.db", "os"),
    "sqlite-fsync": lambda folder: in_file(folder / "journal.db", "fsync"),
    "jetstream": in_stream,
}
#: The journals that differ from another one only in the time that a commit takes.
SLOW_JOURNALS = ("sqlite-fsync",)
