"""Describes and verifies a journal that no manager has open, without changing it; restores a backup."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import apsw
import msgspec

from svc.domain.events import AnyEvent
from svc.domain.lifecycle import UNFINISHED, JobState
from svc.errors import Conflict, JournalError, ServiceError
from svc.server.journal.copying import INCARNATIONS_SKIPPED, Contents, contents_of
from svc.server.journal.files import copy_synced, draft_beside, file_bytes, make_directory, publish
from svc.server.journal.form import (
    TEXTS_VERSION,
    explained,
    open_to_read,
)
from svc.server.journal.large_rows import LargeRows, large_rows_bytes, large_rows_path
from svc.server.journal.mark import (
    Claim,
    TailLost,
    mark_path,
    open_mark,
    read_claim,
    this_boot,
)
from svc.server.journal.rows import checked_rows
from svc.server.journal.standing import MOVED_ID, MOVED_TO, read_place, require_served
from svc.server.journal.texts import check_uses, checked_texts


class Info(msgspec.Struct, frozen=True):
    """What a journal holds. Sizes are in bytes, `created` is a Unix time, -1 no row or no mark.

    `texts` is the number of long texts of errors beside the rows; `moved_to` is empty unless it was moved.
    """

    path: str
    version: int
    incarnation: int
    created: int
    first: int
    newest: int
    rows: int
    events: dict[str, int]
    bytes: dict[str, int]
    mark_incarnation: int
    mark_sequence: int
    texts: int = 0
    moved_to: str = ""


class Check(msgspec.Struct, frozen=True):
    """The result of one check: its name, whether all is well, and the findings."""

    name: str
    ok: bool
    found: str


def info(path: Path) -> Info:
    """Describe the journal at *path*.

    Raises:
        ConfigurationError: it does not exist.
        Conflict: a manager has it open.
        JournalError: it cannot be read.
    """
    try:
        claim = read_claim(mark_path(path))
    except TailLost:
        raise JournalError(f"the mark {mark_path(path)} is damaged; run `svc journal verify`") from None
    kinds: Counter[str] = Counter()
    first = newest = -1
    with _reading(path) as journal:
        try:
            meta = _meta(journal.connection)
            for newest, event in journal.rows():
                kinds[str(event.__struct_config__.tag)] += 1
                first = newest if first < 0 else first
            count = "SELECT count(*) FROM texts" if journal.version >= TEXTS_VERSION else "SELECT 0"
            texts = journal.connection.execute(count).get
            moved_to = read_place(journal.connection, MOVED_TO)
        except apsw.Error as error:
            raise explained(path, error) from None
    return Info(
        path=str(path),
        version=journal.version,
        incarnation=meta["incarnation"],
        created=meta["created"],
        first=first,
        newest=newest,
        rows=kinds.total(),
        events=dict(kinds),
        bytes=_sizes(path),
        mark_incarnation=claim.incarnation if claim else -1,
        mark_sequence=claim.sequence if claim else -1,
        texts=texts,
        moved_to=moved_to,
    )


def verify(path: Path) -> list[Check]:
    """Check the journal at *path*: SQLite's structures, the rows, the error texts, a replay, and its end.

    Raises:
        ConfigurationError: it does not exist.
        Conflict: a manager has it open.
        JournalError: it is no journal.
    """
    with _reading(path) as journal:
        return [_checked(name, look, journal) for name, look in _CHECKS.items()]


def check_copy(path: Path, each: Callable[[int], None]) -> None:
    """Check the structure, rows and texts of a new copy; call *each* with the number of each row or text.

    Raises:
        JournalError: the copy is not sound.
        Conflict: another process has it open.
    """
    with _reading(path) as journal:
        try:
            _structure(journal)
            for count, _ in enumerate(journal.rows(), start=1):
                each(count)
            _texts(journal, each)
        except (apsw.Error, ValueError) as error:
            raise JournalError(f"the copy {path} is damaged ({error}); run the backup again") from None


def jobs_found(contents: Contents) -> str:
    """Return the result of a replay in words."""
    jobs = contents.jobs()
    unfinished = sum(count for word, count in jobs.items() if JobState[word.upper()] in UNFINISHED)
    return f"{unfinished} jobs to be done, {sum(jobs.values()) - unfinished} finished ones kept"


def restore(backup: Path, path: Path) -> None:
    """Make the journal *path* from *backup*, which is verified first and not changed.

    Raises:
        ConfigurationError: there is no such backup.
        Conflict: there is a journal, or a file of one, at *path* already.
        JournalError: the backup is not sound, or the journal cannot be made.
    """
    path = path.absolute()
    for beside in (path, Path(f"{path}-wal"), mark_path(path), large_rows_path(path)):
        if beside.exists():
            raise Conflict(f"{beside} exists and is not replaced; move the old journal's files away first")
    require_sound(backup)
    draft = draft_beside(path)
    try:
        make_directory(path.parent)
        copy_synced(backup, draft)
        incarnation, newest = _skip_incarnations(draft)
        os.close(open_mark(mark_path(path), Claim(incarnation, newest, durable=1, boot=this_boot())))
        publish(draft, path)
    except (OSError, apsw.Error) as error:
        draft.unlink(missing_ok=True)
        raise JournalError(f"the journal {path} cannot be made from {backup} ({error})") from None


def require_sound(backup: Path) -> None:
    """Verify a backup.

    Raises:
        ConfigurationError: there is no such file.
        JournalError: it is not sound, or is the file of a journal in use, or of one that was moved.
    """
    with _reading(backup) as journal:
        require_served(journal.connection, backup)
    bad = [check for check in verify(backup) if not check.ok]
    if bad or Path(f"{backup}-wal").exists():
        found = bad[0].found if bad else "it has a -wal file, so it is no backup but a journal in use"
        raise JournalError(f"the backup {backup} is not restored: {found}")


def _skip_incarnations(path: Path) -> tuple[int, int]:
    """Add `INCARNATIONS_SKIPPED` to the incarnation; return it, and the newest row."""
    with apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE) as connection:
        skip = "UPDATE meta SET value = value + ? WHERE name = 'incarnation'"
        connection.execute(skip, (INCARNATIONS_SKIPPED,))
    found = _meta(connection)["incarnation"], _newest(connection)
    connection.close()
    return found


class _Reading(NamedTuple):
    """A journal that is open to be read."""

    path: Path
    connection: apsw.Connection
    version: int

    def rows(self) -> Iterator[tuple[int, AnyEvent]]:
        return checked_rows(self.connection, self.path, LargeRows(self.path), self.version)


@contextmanager
def _reading(path: Path) -> Iterator[_Reading]:
    connection, version = open_to_read(path)
    try:
        yield _Reading(path, connection, version)
    finally:
        connection.close()


def _checked(name: str, look: Callable[[_Reading], str], journal: _Reading) -> Check:
    """Return the result of a check: what *look* has found, or the error that it raised."""
    try:
        return Check(name, True, look(journal))
    except (apsw.Error, ServiceError, TailLost, OSError, LookupError, ValueError, TypeError) as error:
        return Check(name, False, str(error))


def _structure(journal: _Reading) -> str:
    found = "; ".join(str(row[0]) for row in journal.connection.execute("PRAGMA integrity_check(10)"))
    if found != "ok":
        raise ValueError(found)
    return found


def _rows(journal: _Reading) -> str:
    count = sum(1 for _ in journal.rows())
    return f"{count} rows{'; they have no checksums, being of version 1' if journal.version == 1 else ''}"


def _texts(journal: _Reading, each: Callable[[int], None] = lambda count: None) -> str:
    count, damaged = 0, ""
    if journal.version >= TEXTS_VERSION:
        for count, _ in enumerate(checked_texts(journal.connection), start=1):
            each(count)
        try:
            check_uses(journal.connection, journal.rows())
        except JournalError:
            damaged = "; the rows are too damaged to compare them"
    return f"{count} texts of errors{damaged}"


def _replay(journal: _Reading) -> str:
    return jobs_found(contents_of(journal.rows()))


def _end(journal: _Reading) -> str:
    if journal.connection.pragma("application_id") == MOVED_ID:
        return f"the journal was moved to {read_place(journal.connection, MOVED_TO)}"
    claim = read_claim(mark_path(journal.path))
    if claim is None:
        return "there is no mark to compare with, as with a backup"
    claim.check(journal.path, _meta(journal.connection)["incarnation"], _newest(journal.connection))
    return f"the mark at row {claim.sequence} is reached"


_CHECKS: dict[str, Callable[[_Reading], str]] = {
    "structure": _structure,
    "rows": _rows,
    "texts": _texts,
    "replay": _replay,
    "end": _end,
}


def _meta(connection: apsw.Connection) -> dict[str, int]:
    return dict(connection.execute("SELECT name, value FROM meta"))


def _newest(connection: apsw.Connection) -> int:
    newest = connection.execute("SELECT max(seq) FROM events").get
    return -1 if newest is None else int(newest)


def _sizes(path: Path) -> dict[str, int]:
    sizes = {part or "file": file_bytes(Path(f"{path}{part}")) for part in ("", "-wal", ".mark", ".ballast")}
    return sizes | {".large": large_rows_bytes(path)}
