"""The journal that survives: one SQLite file, one connection, one transaction for each turn of the loop.

Only this file knows SQLite. It holds the file in exclusive mode for its whole life, so that nothing else
(a second manager, a backup tool, the `sqlite3` shell) can write to it or checkpoint it meanwhile. For
the same reason nothing here opens the file by another way: closing any descriptor of it would drop the
process's POSIX locks.

========== ============= =============================================================================
durability synchronous   an accepted event survives
========== ============= =============================================================================
``fsync``  ``FULL``      kill -9 and power loss: the log is synced before `append` returns
``os``     ``NORMAL``    kill -9; power loss may take the last commits back, but leaves the file sound
========== ============= =============================================================================

(``OFF`` would be no faster for what we write, and after power loss the file itself may be damaged.)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from importlib import resources
from pathlib import Path
from typing import Final, NoReturn

import apsw
import msgspec

from service.domain.events import AnyEvent
from service.errors import ConfigurationError, Conflict, JournalError

#: `user_version` of the files that this release writes; see schema.sql.
SCHEMA_VERSION: Final = 1
#: `application_id` of the files that this release writes; see schema.sql.
APPLICATION_ID: Final = 0x73766371
#: Older ones may corrupt the file when the log is reset (sqlite.org/wal.html, "WAL-reset bug").
SQLITE_MINIMUM: Final = (3, 51, 3)

_SYNCHRONOUS = {"fsync": ("FULL", 2), "os": ("NORMAL", 1)}
_PAGE_BYTES = 4096
_CACHE_KIB = 16 * 1024
_WAL_FILE_BYTES = 64 * 1024 * 1024

#: What decoding a row may raise; a damaged one may also be no blob at all.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, TypeError)

_INSERT = "INSERT INTO events (seq, body) VALUES (?, ?)"
_DELETE = "DELETE FROM events WHERE seq BETWEEN ? AND ?"
_READ = "SELECT body FROM events WHERE seq = ?"
_REPLAY = "SELECT seq, body FROM events ORDER BY seq"


class SqliteJournal:
    """A `service.broker.journal.Journal` in a file; made by `open`."""

    def __init__(self, connection: apsw.Connection, path: Path, durability: str, incarnation: int) -> None:
        """Take over a connection that `open` has made ready."""
        self.durability = durability
        self.incarnation = incarnation
        self._connection = connection
        self._path = path
        self._broken = ""
        self._closed = False
        self._wal_pages = 0
        self._page_bytes = int(connection.pragma("page_size"))
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode: Callable[[bytes], AnyEvent] = msgspec.msgpack.Decoder(AnyEvent).decode
        # Taking the hook also ends SQLite's own checkpoints, which would stall whichever commit is the
        # thousandth page.
        connection.set_wal_hook(self._committed)

    @classmethod
    def open(cls, path: Path | str, durability: str = "fsync") -> SqliteJournal:
        """Open the journal at *path*, with its directory if need be, and count one incarnation up.

        Raises:
            ConfigurationError: *durability* is neither `fsync` nor `os`.
            Conflict: another process, or this one, has it open.
            JournalError: it cannot be created or read, is no journal, or is one of a newer release.
        """
        if durability not in _SYNCHRONOUS:
            raise ConfigurationError(f"durability {durability!r} is unknown; choose one of fsync, os, memory")
        require_sqlite(apsw.sqlite_lib_version())
        path = Path(path).absolute()
        _create(path)
        try:
            connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        except apsw.Error as error:
            raise _explained(path, error) from None
        try:
            return cls(connection, path, durability, _prepare(connection, path, durability))
        except apsw.Error as error:
            connection.close()
            raise _explained(path, error) from None
        except BaseException:
            connection.close()
            raise

    def append(self, records: Sequence[tuple[int, AnyEvent]], forget: Sequence[int] = ()) -> None:
        """Commit *records* and deletions in one transaction; see `Journal.append`."""
        if not records and not forget:
            return self._require_sound()
        encode = self._encode
        rows = [(sequence, encode(event)) for sequence, event in records]
        self._require_sound()
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_INSERT, rows)
            if forget:
                connection.executemany(_DELETE, _runs(forget))
            connection.execute("COMMIT")
        except apsw.Error as error:
            self._fail("written", error)

    def read(self, sequence: int) -> AnyEvent:
        """Return one event; see `Journal.read`."""
        self._require_sound()
        try:
            row = self._connection.execute(_READ, (sequence,)).fetchone()
        except apsw.Error as error:
            self._fail("read", error)
        if row is None:
            raise JournalError(f"the journal {self._path} has no row {sequence}")
        try:
            return self._decode(row[0])
        except _UNREADABLE as error:
            raise self._unreadable(sequence, error) from None

    def replay(self) -> Iterator[tuple[int, AnyEvent]]:
        """Yield every (sequence number, event) in order; see `Journal.replay`.

        This reads each page and decodes each row, so `open` needs no check of its own for damage.
        """
        self._require_sound()
        decode = self._decode
        sequence = 0
        try:
            with closing(self._connection.cursor()) as cursor:
                for sequence, body in cursor.execute(_REPLAY):
                    yield sequence, decode(body)
        except apsw.Error as error:
            self._fail("read", error)
        except _UNREADABLE as error:
            raise self._unreadable(sequence, error) from None

    def size(self) -> int:
        """Return the bytes of the file and its write-ahead log on disk."""
        return _bytes_of(self._path) + _bytes_of(Path(f"{self._path}-wal"))

    def free_bytes(self) -> int:
        """Return the bytes that the file system has left for this user."""
        space = os.statvfs(self._path.parent)
        return space.f_bavail * space.f_frsize

    def wal_bytes(self) -> int:
        """Return the bytes committed since the last checkpoint that moved everything.

        The size of the log's file says nothing of it: the file is written over from its start, not cut.
        """
        return self._wal_pages * self._page_bytes

    def checkpoint(self) -> None:
        """Move the log into the file and let the next commit start it anew; see `Journal.checkpoint`."""
        self._require_sound()
        try:
            frames, moved = self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.FullError:
            return  # all is still in the log
        except apsw.Error as error:
            self._fail("checkpointed", error)
        if frames == moved:
            self._wal_pages = 0

    def close(self) -> None:
        """Let the file go; whole journals are checkpointed, broken ones are left as they are."""
        if self._closed:
            return
        self._closed = True
        if self._broken:
            # What is on disk is the truth now: not a byte more is written by this process.
            self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self._broken = self._broken or f"the journal {self._path} is closed"
        self._connection.close()

    def _committed(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _unreadable(self, sequence: int, error: Exception) -> JournalError:
        return JournalError(
            f"row {sequence} of the journal {self._path} cannot be read ({error}); it is damaged or of "
            "a newer release: keep a copy, then start that release or restore a backup"
        )

    def _require_sound(self) -> None:
        if self._broken:
            raise JournalError(self._broken)

    def _fail(self, verb: str, error: apsw.Error) -> NoReturn:
        """Refuse everything from now on: after a failed sync the page cache cannot be trusted any more."""
        self._broken = (
            f"the journal {self._path} cannot be {verb} ({_reason(error)}); nothing accepted is lost: "
            "see to the disk, then start the manager again"
        )
        raise JournalError(self._broken) from error


def require_sqlite(version: str) -> None:
    """Return where *version* of SQLite is safe for the journal.

    Raises:
        JournalError: it is too old, or not a version.
    """
    digits = version.split(".")
    if not all(part.isdigit() for part in digits) or tuple(map(int, digits)) < SQLITE_MINIMUM:
        least = ".".join(map(str, SQLITE_MINIMUM))
        raise JournalError(
            f"SQLite {version} can damage a journal; install an apsw that carries SQLite {least} or newer"
        )


def _create(path: Path) -> None:
    """Make the file, empty and for this user alone, and the directories above it, where there are none."""
    try:
        _make_directory(path.parent)
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise JournalError(
            f"the journal {path} cannot be created ({error.strerror}); "
            "choose a directory that this user may write to"
        ) from None


def _make_directory(directory: Path) -> None:
    """Make a directory whose name survives power loss too."""
    if directory.is_dir():
        return
    _make_directory(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)
    parent = os.open(directory.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _prepare(connection: apsw.Connection, path: Path, durability: str) -> int:
    """Check the file, bring a new one into form, set the durability; return the incarnation."""
    connection.set_busy_timeout(0)
    connection.pragma("locking_mode", "EXCLUSIVE")
    new = _is_new(connection, path)
    if new:
        connection.pragma("page_size", _PAGE_BYTES)
    _set(connection, "journal_mode", "WAL", "wal")
    connection.pragma("journal_size_limit", _WAL_FILE_BYTES)
    connection.pragma("cache_size", -_CACHE_KIB)
    connection.pragma("synchronous", "FULL")
    incarnation = _begin_incarnation(connection, new=new)
    _set(connection, "synchronous", *_SYNCHRONOUS[durability])
    return incarnation


def _is_new(connection: apsw.Connection, path: Path) -> bool:
    """Return whether the file is still empty.

    Raises:
        JournalError: it is not a journal, or one of a newer release.
    """
    application = connection.pragma("application_id")
    version = connection.pragma("user_version")
    if application == APPLICATION_ID:
        if version != SCHEMA_VERSION:
            raise JournalError(
                f"the journal {path} has format {version} and this release reads format {SCHEMA_VERSION}; "
                "start the release that wrote it"
            )
        return False
    if application or connection.execute("SELECT count(*) FROM sqlite_schema").get:
        raise JournalError(
            f"{path} is a database, but not a journal of svc; name another file with --journal"
        )
    return True


def _begin_incarnation(connection: apsw.Connection, *, new: bool) -> int:
    """Count up, and with it take the exclusive lock; a new file gets its schema in the same transaction."""
    connection.execute("BEGIN IMMEDIATE")
    if new:
        connection.execute(resources.files(__package__).joinpath("schema.sql").read_text(encoding="utf-8"))
    connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'incarnation'")
    incarnation = connection.execute("SELECT value FROM meta WHERE name = 'incarnation'").get
    connection.execute("COMMIT")
    if not isinstance(incarnation, int):
        raise apsw.CorruptError("the table meta has no incarnation")
    return incarnation


def _set(connection: apsw.Connection, pragma: str, value: str, expected: object) -> None:
    """Set and read back: a pragma that cannot be followed is silently ignored by SQLite."""
    connection.pragma(pragma, value)
    actual = connection.pragma(pragma)
    if actual != expected:
        raise JournalError(
            f"SQLite keeps {pragma} at {actual!r} where {value} was asked for; use a local disk"
        )


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Return the numbers as (first, last) of unbroken runs: what is forgotten mostly lies together."""
    runs: list[tuple[int, int]] = []
    first = last = None
    for number in sorted(numbers):
        if last is None or number > last + 1:
            if first is not None and last is not None:
                runs.append((first, last))
            first = number
        last = number
    if first is not None and last is not None:
        runs.append((first, last))
    return runs


def _bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _reason(error: apsw.Error) -> str:
    return str(error).removeprefix(f"{type(error).__name__}: ") or type(error).__name__


def _explained(path: Path, error: apsw.Error) -> Conflict | JournalError:
    """Return the error that tells the user what is the matter with the file, and what to do."""
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return Conflict(f"the journal {path} is in use by another process; stop that manager first")
    if isinstance(error, apsw.NotADBError | apsw.CorruptError):
        return JournalError(
            f"the journal {path} is damaged or not a journal ({_reason(error)}); "
            "keep a copy of it and of its -wal file, then restore a backup or name another with --journal"
        )
    return JournalError(
        f"the journal {path} cannot be opened ({_reason(error)}); "
        "see that this user may read and write the file and its directory, and that the disk has room"
    )


def sqlite_release() -> str:
    """Return the version of SQLite that keeps the journal."""
    return apsw.sqlite_lib_version()
