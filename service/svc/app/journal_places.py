"""Journals as commands see them: in files and in streams, by their place alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from svc.errors import ConfigurationError
from svc.journal_address import StreamAddress
from svc.settings import JournalSettings, NatsSettings, NewJournalSettings, NewStreamSettings

if TYPE_CHECKING:
    from svc.server.journal.copying import CopyReport, CopySource, CopyTarget
    from svc.server.journal.inspection import Check, Info
    from svc.server.journal.jetstream.open_stream import OpenStream
    from svc.server.journal.jetstream.stream_inspection import StreamInfo

Place = Path | StreamAddress
Progress = Callable[[str, int], object]


def describe(settings: JournalSettings) -> Info | StreamInfo:
    """Return what the journal holds.

    Raises:
        ConfigurationError: there is no such file.
        Conflict: it is a file that a manager has open.
        JournalError: it cannot be read.
    """
    if isinstance(settings.journal, Path):
        from svc.server.journal.inspection import info

        return info(_existing(settings.journal))
    from svc.server.journal.jetstream.stream_inspection import stream_info

    with _stream(settings, settings.journal) as stream:
        return stream_info(stream)


def verify(settings: JournalSettings) -> Sequence[Check]:
    """Check the journal; nothing is changed.

    Raises:
        ConfigurationError: there is no such file.
        Conflict: it is a file that a manager has open.
        JournalError: it is no journal.
    """
    if isinstance(settings.journal, Path):
        from svc.server.journal import inspection

        return inspection.verify(_existing(settings.journal))
    from svc.server.journal.jetstream.stream_inspection import verify_stream

    with _stream(settings, settings.journal) as stream:
        return verify_stream(stream)


def restore(settings: NewJournalSettings, backup: Path) -> None:
    """Make the journal from *backup*, which is verified first.

    Raises:
        Conflict: there is a journal already.
        JournalError: the backup is not sound, or the journal cannot be made.
    """
    from svc.server.journal import inspection

    if isinstance(settings.journal, Path):
        inspection.restore(backup, settings.journal)
    else:
        inspection.require_sound(backup)
        copy(settings, backup, settings.journal)


def copy(
    settings: NewStreamSettings,
    source: Place,
    target: Place,
    *,
    move: bool = False,
    accept_moved: bool = False,
    progress: Progress = lambda step, rows: None,
) -> CopyReport:
    """Copy the journal *source* to *target*, or go on with such a copy; see `copying.copy_journal`.

    Raises:
        ConfigurationError: both are the same place.
        ServiceError: one of both is not as it must be; the text says what to do.
    """
    from svc.server.journal.copying import copy_journal

    if _is_same(source, target):
        raise ConfigurationError(f"{source} and {target} are the same journal; name another place")
    with _source(settings, source) as read, _target(settings, target, read.bytes) as written:
        return copy_journal(read, written, move=move, accept_moved=accept_moved, progress=progress)


def _existing(journal: Path) -> Path:
    if not journal.is_file():
        raise ConfigurationError(f"there is no journal {journal}; name it with --journal FILE")
    return journal


def _is_same(one: Place, other: Place) -> bool:
    if isinstance(one, Path) and isinstance(other, Path):
        return one.resolve() == other.resolve()
    if isinstance(one, StreamAddress) and isinstance(other, StreamAddress):
        return one.name == other.name and bool({*one.servers} & {*other.servers})
    return False


@contextmanager
def _source(settings: NatsSettings, place: Place) -> Iterator[CopySource]:
    if isinstance(place, Path):
        from svc.server.journal.file_copy import FileSource

        source: CopySource = FileSource(place)
        try:
            yield source
        finally:
            source.close()
        return
    from svc.server.journal.jetstream.stream_copy import StreamSource

    with _stream(settings, place) as stream:
        source = StreamSource(stream)
        try:
            yield source
        finally:
            source.close()


@contextmanager
def _target(settings: NewStreamSettings, place: Place, needed: int) -> Iterator[CopyTarget]:
    if isinstance(place, Path):
        from svc.server.journal.file_copy import FileTarget

        target: CopyTarget = FileTarget(place, needed)
        try:
            yield target
        finally:
            target.close()
        return
    from svc.server.journal.jetstream.stream_copy import StreamTarget

    with _stream(settings, place, new=settings.journal_replicas) as stream:
        yield StreamTarget(stream)


@contextmanager
def _stream(settings: NatsSettings, address: StreamAddress, new: int = 0) -> Iterator[OpenStream]:
    """Open a stream; if it does not exist, it is made with *new* replicas, unless that is 0."""
    from svc.server.journal.jetstream.open_stream import OpenStream
    from svc.server.journal.jetstream.opening import open_log

    user, tls = settings.nats_user(), settings.nats_tls
    stream = OpenStream(
        lambda: open_log(address, user=user, tls=tls, replicas=new or 1, create=bool(new), synced=False),
        str(address),
    )
    try:
        yield stream
    finally:
        stream.close()
