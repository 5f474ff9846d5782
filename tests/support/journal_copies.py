"""Journals to copy, in a file or in a stream; and a copy whose process is killed at a named place.

`python -m tests.support.journal_copies PLACE[:N] journal copy …` is `svc journal copy …` that dies when it is
at the place for the N-th time (once is the default).

===================  ====================================================================================
``begun``            the target says of which journal it is a copy, and has no row
``in_frame``         a part of a frame is in the stream
``put``              some rows are in the target
``verified``         the target was read back; neither it nor the source is marked
``moved``            the source is marked as moved, and the target is not complete
``complete``         the target is complete
===================  ====================================================================================
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from svc.app import journal_places
from svc.broker.journal import Journal
from svc.cli import main as svc
from svc.domain.events import AnyEvent
from svc.journal_address import StreamAddress
from svc.server.journal import SqliteJournal, copying
from svc.server.journal.file_copy import FileSource, FileTarget
from svc.server.journal.jetstream.stream_copy import StreamSource, StreamTarget
from svc.server.journal.jetstream.writer import FrameWriter
from svc.settings import JournalSettings, NewStreamSettings
from tests.support.jetstream_journals import led, new_stream

#: The methods after which a process can be killed.
_METHODS: dict[str, list[tuple[type, str]]] = {
    "begun": [(FileTarget, "begin"), (StreamTarget, "begin")],
    "in_frame": [(FrameWriter, "_put")],
    "put": [(FileTarget, "put"), (StreamTarget, "put")],
    "moved": [(FileSource, "move_to"), (StreamSource, "move_to")],
    "complete": [(FileTarget, "finish"), (StreamTarget, "finish")],
}
PLACES = (*_METHODS, "verified")

Place = Path | StreamAddress


def new_place(kind: str, folder: Path) -> Place:
    """Return a place at which there is no journal: `file` in *folder*, or `stream`."""
    return new_stream() if kind == "stream" else folder / f"j{len(list(folder.iterdir()))}.db"


def opened(place: Place, folder: Path) -> Journal:
    """Return the journal at *place* as its manager has it; the mirror of a stream is in *folder*."""
    return SqliteJournal.open(place) if isinstance(place, Path) else led(place, folder / "mirror")


def write(place: Place, folder: Path, records: list[tuple[int, AnyEvent]], gone: list[int]) -> None:
    """Make a journal at *place* with *records*, of which *gone* are forgotten later."""
    with closing(opened(place, folder)) as journal:
        for record in records:
            journal.append([record])
        ticket = journal.append([], gone)
        assert ticket is None or ticket.wait(30)


def rows(place: Place, folder: Path) -> dict[int, AnyEvent]:
    """Return all rows of the journal at *place*, as its next manager reads them."""
    with closing(opened(place, folder)) as journal:
        return {number: journal.read(number) for number, _ in journal.replay()}


def copied(source: Place, target: Place, **options: Any) -> copying.CopyReport:
    """Copy a journal in this process."""
    return journal_places.copy(NewStreamSettings(journal_replicas=1), source, target, **options)


def described(place: Place) -> Any:
    """Return the facts about the journal at *place*."""
    return journal_places.describe(JournalSettings(journal=place))


def checks(place: Place) -> dict[str, bool]:
    """Return the result of each check of the journal at *place*."""
    return {check.name: check.ok for check in journal_places.verify(JournalSettings(journal=place))}


class _Countdown:
    """Kills the process when it is at a place for the N-th time."""

    def __init__(self, count: int) -> None:
        self._left = count

    def pass_by(self) -> None:
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)


def _kill_after(method: Callable[..., Any], countdown: _Countdown) -> Callable[..., Any]:
    @functools.wraps(method)
    def killing(*args: Any, **options: Any) -> Any:
        result = method(*args, **options)
        countdown.pass_by()
        return result

    @functools.wraps(method)
    async def killing_later(*args: Any, **options: Any) -> Any:
        result = await method(*args, **options)
        countdown.pass_by()
        return result

    return killing_later if method.__name__ == "_put" else killing


def _kill_at(place: str, count: int) -> None:
    """Have this process killed at *place*."""
    countdown = _Countdown(count)
    if place == "verified":
        found = copying.contents_of

        def verified(rows: Iterator[Any], *rest: Any) -> copying.Contents:
            contents = found(rows, *rest)
            countdown.pass_by()
            return contents

        setattr(copying, "contents_of", verified)  # noqa: B010 - as for the methods below
        return
    for kind, name in _METHODS[place]:
        setattr(kind, name, _kill_after(getattr(kind, name), countdown))


if __name__ == "__main__":
    where, _, times = sys.argv.pop(1).partition(":")
    _kill_at(where, int(times or 1))
    svc()
