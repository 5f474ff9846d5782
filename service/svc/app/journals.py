"""Opens the journal of a manager, and the stores beside it, as its settings say."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from svc.app.process import logger
from svc.errors import ConfigurationError, JournalError
from svc.journal_address import StreamAddress
from svc.settings import ManagerSettings

if TYPE_CHECKING:
    from svc.broker.journal import Journal
    from svc.broker.outputs import OutputStore
    from svc.server.fault_reports import FaultReports
    from svc.server.journal.jetstream.replication import Replication


#: Seconds without an answer of the servers after which a start says that it waits for them.
TELL_SECONDS = 3.0


@dataclass(frozen=True)
class ManagerFiles:
    """The files of a manager beside its journal; all None if it keeps nothing on disk.

    Attributes:
        output: of the output of tasks.
        faults: the folder for reports of the manager's own faults.
    """

    output: Path | None = None
    faults: Path | None = None


def files_of(settings: ManagerSettings) -> ManagerFiles:
    """Return the files beside the journal, or beside the mirror of a stream."""
    if settings.durability == "memory":
        return ManagerFiles()
    from svc.server.journal import OUTPUT_SUFFIX

    beside = settings.journal if isinstance(settings.journal, Path) else mirror_of(settings)
    return ManagerFiles(Path(f"{beside}{OUTPUT_SUFFIX}").absolute(), Path(f"{beside}.faults").absolute())


def mirror_of(settings: ManagerSettings) -> Path:
    """Return the folder for the mirror of a stream."""
    name = settings.journal.name if isinstance(settings.journal, StreamAddress) else "journal"
    return (settings.mirror or Path(f"svc-{name}.mirror")).absolute()


def open_journal(settings: ManagerSettings) -> tuple[Journal, str]:
    """Return a journal that no other host has to confirm, and the release of SQLite if it is in a file.

    Raises:
        Conflict: another manager has it.
        JournalError: it cannot be opened, or is not as it must be.
    """
    from svc.broker.journal import MemoryJournal

    if settings.durability == "memory":
        # No earlier manager had this incarnation, so leases from before its start stay invalid.
        return MemoryJournal(1 + secrets.randbelow(1 << 20)), ""
    if isinstance(settings.journal, StreamAddress):
        raise ConfigurationError("a stream is opened by `open_replication`")
    return _open_file(settings, settings.journal)


def _open_file(settings: ManagerSettings, path: Path) -> tuple[Journal, str]:
    from svc.app.journal_marker import leave_marker, require_journal
    from svc.server.journal import SqliteJournal, sqlite_release

    if settings.journal_marker is not None:
        require_journal(settings.journal_marker, path)
    journal = SqliteJournal.open(
        path,
        settings.durability,
        ballast_bytes=settings.ballast_bytes,
        accept_loss=settings.accept_loss,
        backups=settings.backups,
        must_exist=settings.journal_must_exist,
        accept_network=settings.accept_network_filesystem,
    )
    if settings.journal_marker is not None:
        try:
            leave_marker(settings.journal_marker, path)
        except JournalError:
            journal.close()
            raise
    log = logger()
    if journal.created:
        log.info("journal_created", path=str(path))
    if journal.kept_copy is not None:
        log.warning("journal_loss_accepted", copy=str(journal.kept_copy))
    return journal, sqlite_release()


@contextmanager
def _told_if_slow(address: StreamAddress) -> Iterator[None]:
    """Tell the log if the servers of the stream take long to answer."""
    servers, log = ",".join(map(str, address.servers)), logger()
    timer = threading.Timer(TELL_SECONDS, lambda: log.warning("journal_awaited", servers=servers))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def open_replication(settings: ManagerSettings, address: StreamAddress) -> Replication:
    """Return the replica of the stream at *address*; it follows the stream from now on.

    Raises:
        ServiceError: the servers or the stream are not as they must be; the text says what to do.
    """
    from svc.app.journal_marker import leave_marker
    from svc.server.journal.jetstream.opening import open_log
    from svc.server.journal.jetstream.replication import Replication

    mirror, marker = mirror_of(settings), settings.journal_marker
    must_exist = settings.journal_must_exist or (marker is not None and marker.exists())
    with _told_if_slow(address):
        replication = Replication.open(
            lambda: open_log(
                address,
                user=settings.nats_user(),
                tls=settings.nats_tls,
                replicas=settings.journal_replicas,
                create=not must_exist,
                synced=settings.durability == "fsync",
            ),
            mirror,
            backups=settings.backups or Path(f"{mirror}.backups"),
        )
    if marker is not None:
        try:
            leave_marker(marker, address)
        except JournalError:
            replication.close()
            raise
    for warning in replication.warnings():
        logger().warning("journal_at_risk", reason=warning)
    return replication


def output_store(settings: ManagerSettings) -> OutputStore:
    """Return the store for the output of tasks: a file beside the journal, or memory."""
    from svc.broker.outputs import OUTPUTS_BYTES, MemoryOutputs
    from svc.server.journal import OutputFile

    file = files_of(settings).output
    if file is None:
        return MemoryOutputs(min(settings.max_output, OUTPUTS_BYTES))
    return OutputFile(file, settings.max_output)


def fault_reports(settings: ManagerSettings, sqlite: str) -> FaultReports | None:
    """Return the store for reports of the manager's own faults, beside the journal; None without one."""
    from svc.server.fault_reports import FaultReports

    folder = files_of(settings).faults
    return None if folder is None else FaultReports(folder, sqlite=sqlite)
