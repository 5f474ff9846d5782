"""Describes and verifies a journal that no manager has open, without changing it; restores a backup."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import apsw
import msgspec

from svc.domain.ledger import Ledger
from svc.domain.replay import replay
from svc.errors import Conflict, JournalError, ServiceError
from svc.server.journal.form import (
    TEXTS_VERSION,
    copy_synced,
    draft_beside,
    explained,
    file_bytes,
    make_directory,
    open_to_read,
)
from svc.server.journal.large_rows import LargeRows, large_rows_bytes, large_rows_path
from svc.server.journal.mark import (
    Claim,
    TailLost,
    mark_path,
    open_mark,
    read_claim,
    sync_directory,
    this_boot,
)
from svc.server.journal.rows import checked_rows
from svc.server.journal.texts import check_uses, checked_texts, count_texts

#: Added to the incarnation of a restored journal. No lease that was granted after the backup may look like a
#: lease of the restored journal, however often the manager was restarted in between.
INCARNATIONS_SKIPPED: Final = 1 << 16


class Info(msgspec.Struct, frozen=True):
    """What a journal holds. Sizes are in bytes, `created` is a Unix time, -1 no row or no mark.

    `texts` is the number of long texts of errors beside the rows.
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


class Check(msgspec.Struct, frozen=True):
    """The result of one check: its name, whether all is well, and the findings."""

    name: str
    ok: bool
    found: str


def info(path: Path) -> Info:
    """Describe the journal at *path*.

    Raises:
        Conflict: a manager has it open.
        JournalError: it cannot be read.
    """
    with suppress(TailLost):
        return _info(path)
    raise JournalError(f"the mark {mark_path(path)} is damaged; run `svc journal verify`")


def verify(path: Path) -> list[Check]:
    """Check the journal at *path*: SQLite's structures, the rows, the error texts, a replay, and its end.

    Raises:
        Conflict: a manager has it open.
        JournalError: it does not exist, or is no journal.
    """
    connection, version = open_to_read(path)
    try:
        checks = [_check_structure(connection), _check_rows(connection, path, version)]
        checks.append(_check_texts(connection, path, version))
        checks.append(_check_replay(connection, path, version))
        checks.append(_check_end(connection, path))
    finally:
        connection.close()
    return checks


def check_copy(path: Path, each: Callable[[int], None]) -> None:
    """Check the structure, rows and texts of a new copy; call *each* with the number of each row or text.

    Raises:
        JournalError: the copy is not sound.
        Conflict: another process has it open.
    """
    connection, version = open_to_read(path)
    try:
        structure = _check_structure(connection)
        if not structure.ok:
            raise JournalError(f"the copy {path} is damaged ({structure.found}); run the backup again")
        for count, _ in enumerate(checked_rows(connection, path, LargeRows(path), version), start=1):
            each(count)
        texts = _check_texts(connection, path, version, each)
        if not texts.ok:
            raise JournalError(f"the copy {path} is damaged ({texts.found}); run the backup again")
    except apsw.Error as error:
        raise explained(path, error) from None
    finally:
        connection.close()


def restore(backup: Path, path: Path) -> None:
    """Make the journal *path* from *backup*, which is verified first and not changed.

    Raises:
        Conflict: there is a journal, or a file of one, at *path* already.
        JournalError: the backup is not sound, or the journal cannot be made.
    """
    path = path.absolute()
    for beside in (path, Path(f"{path}-wal"), mark_path(path), large_rows_path(path)):
        if beside.exists():
            raise Conflict(f"{beside} exists and is not replaced; move the old journal's files away first")
    bad = [check for check in verify(backup) if not check.ok]
    if bad or Path(f"{backup}-wal").exists():
        found = bad[0].found if bad else "it has a -wal file, so it is no backup but a journal in use"
        raise JournalError(f"the backup {backup} is not restored: {found}")
    draft = draft_beside(path)
    try:
        make_directory(path.parent)
        copy_synced(backup, draft)
        incarnation, newest = _skip_incarnations(draft)
        os.close(open_mark(mark_path(path), Claim(incarnation, newest, durable=1, boot=this_boot())))
        os.link(draft, path)
        draft.unlink()
        sync_directory(path.parent)
    except (OSError, apsw.Error) as error:
        draft.unlink(missing_ok=True)
        raise JournalError(f"the journal {path} cannot be made from {backup} ({error})") from None


def _skip_incarnations(path: Path) -> tuple[int, int]:
    """Add `INCARNATIONS_SKIPPED` to the incarnation; return it, and the newest row."""
    with apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE) as connection:
        skip = "UPDATE meta SET value = value + ? WHERE name = 'incarnation'"
        connection.execute(skip, (INCARNATIONS_SKIPPED,))
    found = _meta(connection)["incarnation"], _newest(connection)
    connection.close()
    return found


def _info(path: Path) -> Info:
    claim = read_claim(mark_path(path))
    connection, version = open_to_read(path)
    kinds: Counter[str] = Counter()
    first = newest = -1
    try:
        meta = _meta(connection)
        for newest, event in checked_rows(connection, path, LargeRows(path), version):
            kinds[str(event.__struct_config__.tag)] += 1
            first = newest if first < 0 else first
        texts = count_texts(connection) if version >= TEXTS_VERSION else 0
    except apsw.Error as error:
        raise explained(path, error) from None
    finally:
        connection.close()
    return Info(
        path=str(path),
        version=version,
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
    )


def _check_structure(connection: apsw.Connection) -> Check:
    try:
        found = [row[0] for row in connection.execute("PRAGMA integrity_check(10)")]
    except apsw.Error as error:
        found = [str(error)]
    return Check("structure", found == ["ok"], "; ".join(map(str, found)))


def _check_rows(connection: apsw.Connection, path: Path, version: int) -> Check:
    try:
        count = sum(1 for _ in checked_rows(connection, path, LargeRows(path), version))
    except (apsw.Error, JournalError) as error:
        return Check("rows", False, str(error))
    old = "; they have no checksums, being of version 1" if version == 1 else ""
    return Check("rows", True, f"{count} rows{old}")


def _check_texts(
    connection: apsw.Connection, path: Path, version: int, each: Callable[[int], None] = lambda count: None
) -> Check:
    count = 0
    if version >= TEXTS_VERSION:
        try:
            for count, _ in enumerate(checked_texts(connection), start=1):
                each(count)
            check_uses(connection, checked_rows(connection, path, LargeRows(path), version))
        except JournalError:
            return Check("texts", True, f"{count} texts of errors; the rows are too damaged to compare them")
        except (apsw.Error, ValueError) as error:
            return Check("texts", False, str(error))
    return Check("texts", True, f"{count} texts of errors")


def _check_replay(connection: apsw.Connection, path: Path, version: int) -> Check:
    ledger = Ledger(window_bytes=0)
    try:
        for sequence, event in checked_rows(connection, path, LargeRows(path), version):
            replay(ledger, sequence, event)
    except (apsw.Error, ServiceError, LookupError, ValueError, TypeError) as error:
        return Check("replay", False, str(error))
    unfinished = sum(chunk.unfinished for chunk in ledger.chunks.values())
    finished = sum(chunk.count for chunk in ledger.chunks.values()) - unfinished
    return Check("replay", True, f"{unfinished} jobs to be done, {finished} finished ones kept")


def _check_end(connection: apsw.Connection, path: Path) -> Check:
    try:
        claim = read_claim(mark_path(path))
        if claim is None:
            return Check("end", True, "there is no mark to compare with, as with a backup")
        claim.check(path, _meta(connection)["incarnation"], _newest(connection))
    except (TailLost, apsw.Error, OSError, LookupError) as error:
        return Check("end", False, str(error))
    return Check("end", True, f"the mark at row {claim.sequence} is reached")


def _meta(connection: apsw.Connection) -> dict[str, int]:
    return dict(connection.execute("SELECT name, value FROM meta"))


def _newest(connection: apsw.Connection) -> int:
    newest = connection.execute("SELECT max(seq) FROM events").get
    return -1 if newest is None else int(newest)


def _sizes(path: Path) -> dict[str, int]:
    sizes = {part or "file": file_bytes(Path(f"{path}{part}")) for part in ("", "-wal", ".mark", ".ballast")}
    return sizes | {".large": large_rows_bytes(path)}
