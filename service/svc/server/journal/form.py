"""The format of the file: creates, recognizes, upgrades and opens it."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Final, NamedTuple

import apsw

from svc.errors import ConfigurationError, Conflict, JournalError
from svc.server.journal.files import copy_synced, create, sync
from svc.server.journal.large_rows import keep_large_rows
from svc.server.journal.mark import Claim, mark_path
from svc.server.journal.standing import COPY_ID, MOVED_ID, require_served

#: `user_version` of the files that this release writes; see schema.sql.
SCHEMA_VERSION: Final = 3
#: The versions that this release reads; a manager upgrades older ones when it opens them.
READABLE_VERSIONS: Final = tuple(range(1, SCHEMA_VERSION + 1))
#: The first version with the tables of error texts.
TEXTS_VERSION: Final = 3
#: `application_id` of the files that this release writes; see schema.sql.
APPLICATION_ID: Final = 0x73766371
#: Those of all files with the tables of a journal.
_OURS: Final = (APPLICATION_ID, COPY_ID, MOVED_ID)
#: Older releases of SQLite may corrupt the file when the log is reset (sqlite.org/wal.html, "WAL-reset bug").
SQLITE_MINIMUM: Final = (3, 51, 3)

#: Returns the version of the SQLite library in use.
sqlite_release = apsw.sqlite_lib_version

_SYNCHRONOUS = {"fsync": ("FULL", 2), "os": ("NORMAL", 1), "none": ("OFF", 0)}
DURABILITIES = tuple(_SYNCHRONOUS)
_PAGE_BYTES = 4096
_CACHE_KIB = 16 * 1024
_WAL_FILE_BYTES = 64 * 1024 * 1024
_LAST_TEXT = "SELECT max(seq) FROM text_uses"
_NEWEST = "SELECT seq, total FROM events ORDER BY seq DESC LIMIT 1"


class Opened(NamedTuple):
    """An open file: its connection, incarnation, newest row (-1: none) and number of rows.

    `created` tells whether the file was made now. `last_text` is the newest row that has texts in the tables
    of texts, or 0.
    """

    connection: apsw.Connection
    incarnation: int
    newest: int
    total: int
    created: bool
    last_text: int


def open_file(path: Path, durability: str, claim: Claim | None) -> Opened:
    """Open the file *path* in exclusive mode, and add 1 to its incarnation; make a journal of an empty file.

    Raises:
        Conflict: another process, or this one, has it open.
        JournalError: it cannot be read, is no journal, or is one of a newer release.
        JournalMoved: it was moved elsewhere.
        CopyIncomplete: it is a copy that is not complete.
        TailLost: it holds less than *claim* says; the file is not changed then.
    """
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    except apsw.Error as error:
        raise explained(path, error) from None
    try:
        return _prepare(connection, path, durability, claim)
    except BaseException as error:
        # A file that cannot be served is not changed: not even its log is moved into it.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.close()
        if isinstance(error, apsw.Error):
            raise explained(path, error) from None
        raise


def begin_incarnation(
    connection: apsw.Connection, path: Path, durability: str, claim: Claim | None, *, new: bool = False
) -> Opened:
    """Add 1 to the incarnation, which takes the exclusive lock; make or upgrade tables in the same commit.

    A transaction that is open is rolled back.

    Raises:
        apsw.Error: the file cannot be written.
        TailLost: it holds less than *claim* says.
    """
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    # No token may be given twice, so the new incarnation has to be on disk with any durability.
    _set(connection, "synchronous", *_SYNCHRONOUS["fsync"])
    connection.execute("BEGIN IMMEDIATE")
    make_tables(connection, new=new)
    incarnation = connection.execute("SELECT value FROM meta WHERE name = 'incarnation'").get
    if not isinstance(incarnation, int):
        raise apsw.CorruptError("the table meta has no incarnation")
    newest, total = connection.execute(_NEWEST).fetchone() or (-1, 0)
    last_text = connection.execute(_LAST_TEXT).get or 0
    if claim is not None:
        claim.check(path, incarnation, newest)
    connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'incarnation'")
    connection.execute("COMMIT")
    _set(connection, "synchronous", *_SYNCHRONOUS[durability])
    return Opened(connection, incarnation + 1, newest, total or 0, new, last_text)


def open_to_read(path: Path) -> tuple[apsw.Connection, int]:
    """Return a read-only connection, and the version of the file. It may be one that was moved elsewhere.

    No manager can open the file while the connection is open.

    Raises:
        Conflict: a manager has it open.
        CopyIncomplete: it is a copy that is not complete.
        ConfigurationError: there is no journal.
        JournalError: it cannot be read.
    """
    if not path.is_file():
        raise ConfigurationError(f"there is no journal {path}; name one that exists")
    try:
        logged = Path(f"{path}-wal").exists()
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        # An existing log is kept; a log that this connection makes is removed when it closes.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, int(logged))
        connection.set_busy_timeout(0)
        connection.pragma("locking_mode", "EXCLUSIVE")
        connection.pragma("query_only", "ON")
        if not is_journal(connection, path):
            raise JournalError(f"the journal {path} is empty: it was never opened by a manager")
        require_served(connection, path, moved=True)
        return connection, int(connection.pragma("user_version"))
    except apsw.Error as error:
        raise explained(path, error) from None


def keep_copies(path: Path) -> Path:
    """Copy the journal, its log, its large rows and its mark into a new directory beside them; return it.

    This process must not have the journal open: closing any descriptor of it drops the process's locks.

    Raises:
        JournalError: the disk is full, or this user may not write there.
    """
    number = 1
    while (kept := Path(f"{path}.before-loss-{number}")).exists():
        number += 1
    try:
        kept.mkdir(mode=0o700)
        for file in (path, Path(f"{path}-wal"), mark_path(path)):
            if file.exists():
                copy_synced(file, kept / file.name)
        keep_large_rows(path, kept)
        sync(kept)
        sync(kept.parent)
    except OSError as error:
        shutil.rmtree(kept, ignore_errors=True)
        raise JournalError(
            f"no copy of the journal {path} could be kept ({error.strerror}); nothing was changed: make room"
        ) from None
    return kept


def require_sqlite(version: str) -> None:
    """Check that *version* of SQLite is safe for the journal.

    Raises:
        JournalError: it is too old, or not a version.
    """
    digits = version.split(".")
    if not all(part.isdigit() for part in digits) or tuple(map(int, digits)) < SQLITE_MINIMUM:
        least = ".".join(map(str, SQLITE_MINIMUM))
        raise JournalError(
            f"SQLite {version} can damage a journal; install an apsw that carries SQLite {least} or newer"
        )


def reason(error: apsw.Error | OSError) -> str:
    """Return the message of an error of SQLite or of the system."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error).removeprefix(f"{type(error).__name__}: ") or type(error).__name__


def explained(path: Path, error: apsw.Error) -> Conflict | JournalError:
    """Return the error that explains the problem with the file to the user, and the remedy."""
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return Conflict(f"the journal {path} is in use by another process; stop that manager first")
    if isinstance(error, apsw.NotADBError | apsw.CorruptError):
        return JournalError(
            f"the journal {path} is damaged or not a journal ({reason(error)}); "
            "keep a copy of it and of its -wal file, then restore a backup or name another with --journal"
        )
    return JournalError(
        f"the journal {path} cannot be opened ({reason(error)}); "
        "see that this user may read and write the file and its directory, and that the disk has room"
    )


def require_place(path: Path, *, must_exist: bool) -> None:
    """Make the file *path*, empty and for this user alone, unless it exists.

    Its directory has to exist: one that does not is a mistyped path more often than a new place, and an empty
    queue there would take the jobs of the real one.

    Raises:
        JournalError: it does not exist and *must_exist* is set, its directory does not exist, or this user
            may not make it.
    """
    if must_exist and not path.is_file():
        raise JournalError(
            f"there is no journal {path}, and --journal-must-exist is set: is its disk mounted? Without that "
            "setting a new, empty one would be made"
        )
    if not path.parent.is_dir():
        raise JournalError(
            f"there is no directory {path.parent} for the journal {path.name}; see that the path is right "
            "and its disk is mounted, or make the directory"
        )
    try:
        with suppress(FileExistsError):
            os.close(create(path))
    except OSError as error:
        raise JournalError(
            f"the journal {path} cannot be created ({error.strerror}); "
            "choose a directory that this user may write to"
        ) from None


def _prepare(connection: apsw.Connection, path: Path, durability: str, claim: Claim | None) -> Opened:
    """Check the file, make or upgrade its tables, and set the durability."""
    connection.set_busy_timeout(0)
    connection.pragma("locking_mode", "EXCLUSIVE")
    new = not is_journal(connection, path)
    if not new:
        require_served(connection, path)
    else:
        connection.pragma("page_size", _PAGE_BYTES)
    prepare_log(connection)
    return begin_incarnation(connection, path, durability, claim, new=new)


def is_journal(connection: apsw.Connection, path: Path) -> bool:
    """Return whether the file has the tables of a journal; false if it is still empty.

    Raises:
        JournalError: it is another kind of file, or a journal of a newer release.
    """
    application = connection.pragma("application_id")
    version = connection.pragma("user_version")
    if application in _OURS:
        if version not in READABLE_VERSIONS:
            raise JournalError(
                f"the journal {path} has format {version} and this release reads format {SCHEMA_VERSION}; "
                "start the release that wrote it"
            )
        return True
    if application or connection.execute("SELECT count(*) FROM sqlite_schema").get:
        raise JournalError(
            f"{path} is a database, but not a journal of svc; name another file with --journal"
        )
    return False


def prepare_log(connection: apsw.Connection) -> None:
    """Have the commits of *connection* written to a log beside the file."""
    _set(connection, "journal_mode", "WAL", "wal")
    connection.pragma("journal_size_limit", _WAL_FILE_BYTES)
    connection.pragma("cache_size", -_CACHE_KIB)


def make_tables(connection: apsw.Connection, *, new: bool) -> None:
    """Make the tables of a journal in a *new* file, or upgrade them; a transaction is open."""
    if new:
        _run(connection, "schema.sql")
    for version in range(int(connection.pragma("user_version")), SCHEMA_VERSION):
        _run(connection, f"upgrade_{version}_to_{version + 1}.sql")


def _run(connection: apsw.Connection, script: str) -> None:
    connection.execute(resources.files(__package__).joinpath(script).read_text(encoding="utf-8"))


def _set(connection: apsw.Connection, pragma: str, value: str, expected: object) -> None:
    """Set a pragma and read it back, since SQLite silently ignores a pragma that it cannot apply."""
    connection.pragma(pragma, value)
    actual = connection.pragma(pragma)
    if actual != expected:
        raise JournalError(
            f"SQLite keeps {pragma} at {actual!r} where {value} was asked for; use a local disk"
        )
