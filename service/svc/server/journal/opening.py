"""Opens a journal: its place, its owner, the file, and the files beside it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, TypedDict

import apsw

from svc.errors import ConfigurationError, JournalError
from svc.server.journal.ballast import Ballast
from svc.server.journal.form import (
    DURABILITIES,
    Opened,
    begin_incarnation,
    keep_copies,
    open_file,
    require_place,
    require_sqlite,
    sqlite_release,
)
from svc.server.journal.mark import Claim, TailLost, begin_mark, mark_path, open_mark, read_claim, this_boot
from svc.server.journal.ownership import Ownership
from svc.server.journal.presence import Presence


class OpenOptions(TypedDict, total=False):
    """The options of a journal.

    Attributes:
        ballast_bytes: size of the ballast; 0 for none, which is the default.
        accept_loss: keep a copy of a journal whose end is lost, and then serve it.
        backups: the directory for backups; None for the journal's path with `.backups` appended.
        must_exist: do not make a new journal.
        accept_network: serve a journal on a network file system, which may let two managers write at once.
    """

    ballast_bytes: int
    accept_loss: bool
    backups: Path | None
    must_exist: bool
    accept_network: bool


class Files(NamedTuple):
    """The open files of a journal; `kept_copy` has a copy of them if the loss of the end was accepted."""

    opened: Opened
    claim: Claim
    mark: int
    ownership: Ownership
    ballast: Ballast
    presence: Presence
    kept_copy: Path | None


def open_files(path: Path, durability: str, options: OpenOptions) -> Files:
    """Open the journal at *path*, make it if need be, and add 1 to its incarnation.

    Raises:
        ConfigurationError: *durability* is neither `fsync` nor `os`.
        Conflict: another process, or this one, has it open.
        JournalError: it cannot be created or read, is no journal, is one of a newer release, has lost its
            end, is missing and has to exist, has no directory, or is on a network file system.
    """
    if durability not in DURABILITIES:
        raise ConfigurationError(f"durability {durability!r} is unknown; choose one of fsync, os, memory")
    require_sqlite(sqlite_release())
    require_place(path, must_exist=options.get("must_exist", False))
    try:
        ownership = Ownership(path, accept_network=options.get("accept_network", False))
        try:
            return _open_owned(path, durability, ownership, options)
        except BaseException:
            ownership.close()
            raise
    except OSError as error:
        raise JournalError(
            f"the mark {mark_path(path)} cannot be read or written ({error.strerror}); see that this "
            "user may, and that the disk has room"
        ) from None


def begin_anew(
    connection: apsw.Connection, path: Path, durability: str, mark: int, claim: Claim
) -> tuple[Opened, Claim]:
    """Add 1 to the incarnation of an open journal, also in its *mark*; return its end, and the new claim.

    Raises:
        JournalError: the journal ends before its mark.
        apsw.Error: the file cannot be written.
        OSError: the mark cannot be read or written.
    """
    try:
        opened = begin_incarnation(connection, path, durability, read_claim(mark_path(path)))
    except TailLost as lost:
        raise JournalError(str(lost)) from None
    claim = claim._replace(incarnation=opened.incarnation, sequence=opened.newest)
    begin_mark(mark, claim)
    return opened, claim


def _open_owned(path: Path, durability: str, ownership: Ownership, options: OpenOptions) -> Files:
    kept = None
    try:
        opened = open_file(path, durability, read_claim(mark_path(path)))
    except TailLost as lost:
        if not options.get("accept_loss"):
            raise JournalError(str(lost)) from None
        kept = keep_copies(path)
        opened = open_file(path, durability, None)
    claim = Claim(opened.incarnation, opened.newest, int(durability == "fsync"), this_boot())
    try:
        mark = open_mark(mark_path(path), claim)
    except OSError:
        opened.connection.close()
        raise
    ballast = Ballast(path, options.get("ballast_bytes", 0))
    return Files(opened, claim, mark, ownership, ballast, Presence(path), kept)
