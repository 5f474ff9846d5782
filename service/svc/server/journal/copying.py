"""Copies a journal to another place row by row, whatever keeps it there and here.

The target says from its first byte on which journal it is a copy of, and that it is not complete; no manager
serves it then. So a copy that was killed goes on where it stood: the rows that are there are passed over. At
the end the target is read back and compared with the source: the number of rows, a digest of their numbers
and contents, and the states of all jobs by a replay of both. Only then may a manager serve it.

A journal that is *moved* is marked before its copy is complete: it says where it went, and no manager can
write it any more. A kill in between leaves none of the two to be served, and the next run completes it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import Final, Protocol

import msgspec

from svc.domain.events import AnyEvent
from svc.domain.ledger import Ledger
from svc.domain.lifecycle import JobState
from svc.domain.replay import replay
from svc.errors import Conflict, JournalError, JournalMoved
from svc.server.journal.rows import encode_event

#: Bytes of rows that are written at a time.
BATCH_BYTES: Final = 512 * 1024
#: Rows between two reports of the progress.
TOLD_ROWS: Final = 10_000
#: Added to the incarnation of a copy whose source goes on. No lease that is granted there later may look like
#: a lease of the copy, however often its manager is restarted.
INCARNATIONS_SKIPPED: Final = 1 << 16
_HEAD: Final = struct.Struct("!QQ")

Record = tuple[int, AnyEvent]
#: The number of jobs in each state that has some, by queue.
States = dict[str, dict[str, int]]


class CopyOrigin(msgspec.Struct, frozen=True):
    """The source of a copy, as it was when the copy began; another state of it is another origin.

    Attributes:
        place: its path or address.
        incarnation: the incarnation of the last manager that served it; 0 for none.
        end: the number of its newest row (-1: none) or, of a stream, of its last message.
    """

    place: str
    incarnation: int
    end: int


class CopySource(Protocol):
    """A journal to copy from. It stays as it is, and no manager can begin to serve it, until `close`.

    Attributes:
        origin: its place and its state.
        moved_to: the place to which it was moved; empty if it was not.
    """

    origin: CopyOrigin
    moved_to: str

    @property
    def bytes(self) -> int:
        """The bytes that it takes on a disk."""

    def rows(self) -> Iterator[Record]:
        """Yield all rows in ascending order; failed attempts have the long texts of their errors.

        Raises:
            JournalError: a row or a text is damaged or missing.
        """

    def move_to(self, place: str) -> None:
        """Mark it as moved to *place*, so that no manager can write it any more.

        Raises:
            Conflict: a manager has written it meanwhile.
            JournalError: it cannot be written.
        """

    def close(self) -> None:
        """Let go of it."""


class CopyTarget(Protocol):
    """A place to copy to. It is looked at when it is opened, and written only by `begin` and later calls.

    Attributes:
        place: its path or address.
        origin: the source of the copy that is there; None if there is nothing.
        newest: the newest row that is there; -1 for none.
        complete: whether that copy is complete, and no manager has served it.
    """

    place: str
    origin: CopyOrigin | None
    newest: int
    complete: bool

    def begin(self, origin: CopyOrigin) -> None:
        """Mark it as a copy of *origin* that is not complete."""

    def put(self, records: Sequence[Record]) -> None:
        """Add rows behind those that are there.

        Raises:
            JournalError: there is no room, or they cannot be written.
        """

    def rows(self) -> Iterator[Record]:
        """Yield all rows that are there, as `CopySource.rows` does."""

    def finish(self, incarnation: int) -> None:
        """Make it a journal; the first manager on it gets a greater incarnation than *incarnation*."""

    def close(self) -> None:
        """Let go of it."""


class Contents(msgspec.Struct, frozen=True):
    """All that a copy and its source must have in common.

    Attributes:
        rows: the number of rows.
        newest: the number of the newest row; -1 for none.
        digest: a BLAKE2b digest of all numbers and encoded events, in hexadecimal.
        states: the jobs by queue and state, after a replay.
    """

    rows: int
    newest: int
    digest: str
    states: States

    def jobs(self) -> dict[str, int]:
        """Return the number of jobs in each state that has some."""
        found: dict[str, int] = {}
        for counts in self.states.values():
            for state, count in counts.items():
                found[state] = found.get(state, 0) + count
        return found


class CopyReport(msgspec.Struct, frozen=True):
    """The result of a copy; `kept` is the number of the newest row that an earlier run had copied, or -1."""

    source: str
    target: str
    contents: Contents
    kept: int
    moved: bool


class Reading:
    """Counts, digests and replays the rows of one journal. It takes the memory that a manager of it takes."""

    def __init__(self, progress: Callable[[int], object] = lambda rows: None) -> None:
        """Begin with no row; *progress* is called now and then with the number of rows."""
        self._progress = progress
        self._rows, self._newest = 0, -1
        self._digest = blake2b(digest_size=16)
        self._ledger = Ledger(window_bytes=0)

    def take(self, number: int, event: AnyEvent) -> int:
        """Add a row; return the bytes of its event."""
        body = encode_event(event)
        self._digest.update(_HEAD.pack(number, len(body)))
        self._digest.update(body)
        replay(self._ledger, number, event)
        self._newest = number
        self._rows += 1
        if self._rows % TOLD_ROWS == 0:
            self._progress(self._rows)
        return len(body)

    def contents(self) -> Contents:
        """Return what was read."""
        states: States = {}
        for queue, counts in sorted(self._ledger.counts.items()):
            found = {state.word: counts[state] for state in JobState if counts[state]}
            if found:
                states[queue] = found
        return Contents(self._rows, self._newest, self._digest.hexdigest(), states)


def contents_of(rows: Iterator[Record], progress: Callable[[int], object] = lambda rows: None) -> Contents:
    """Return what *rows* have; see `Reading`."""
    reading = Reading(progress)
    for number, event in rows:
        reading.take(number, event)
    return reading.contents()


def copy_journal(
    source: CopySource,
    target: CopyTarget,
    *,
    move: bool = False,
    accept_moved: bool = False,
    progress: Callable[[str, int], object] = lambda step, rows: None,
) -> CopyReport:
    """Copy *source* to *target*, or go on with such a copy; return what was copied.

    Args:
        source: the journal.
        target: the new place.
        move: whether the source is marked as moved, so that no manager serves it any more.
        accept_moved: whether a source is copied that was moved elsewhere before.
        progress: called with `copied` or `verified` and a number of rows.

    Raises:
        Conflict: the target has something else, or the source has changed since the copy began.
        JournalMoved: the source was moved elsewhere.
        JournalError: one of both cannot be read or written, or the copy differs from its source.
    """
    _require_origin(source, target, accept_moved=accept_moved)
    kept = target.newest
    if not target.complete:
        target.begin(source.origin)
    contents = _fill(source, target, lambda rows: progress("copied", rows))
    found = contents_of(target.rows(), lambda rows: progress("verified", rows))
    if found != contents:
        raise JournalError(_difference(source, target, contents, found))
    if move and source.moved_to != target.place:
        source.move_to(target.place)
    if not target.complete:
        target.finish(source.origin.incarnation + (0 if move else INCARNATIONS_SKIPPED))
    return CopyReport(source.origin.place, target.place, contents, kept, move)


def _require_origin(source: CopySource, target: CopyTarget, *, accept_moved: bool) -> None:
    """Check that the target is empty, or a copy of the source in its present state."""
    place = source.origin.place
    if target.origin is not None and target.origin.place != place:
        raise Conflict(
            f"{target.place} is a copy of {target.origin.place} and not of {place}; take another target, or "
            "delete that copy first"
        )
    if target.origin is not None and target.origin != source.origin:
        raise Conflict(
            f"{place} has changed since its copy {target.place} was begun: a manager has served it "
            f"meanwhile; delete {target.place} and begin anew"
        )
    goes_on = target.origin is not None and source.moved_to == target.place
    if source.moved_to and not goes_on and not accept_moved:
        raise JournalMoved(
            f"{place} was moved to {source.moved_to}, and what came there later is not in it; copy from "
            "there, or from here with --accept-moved"
        )


def _fill(source: CopySource, target: CopyTarget, progress: Callable[[int], object]) -> Contents:
    """Put all rows into the target that it does not have; return what the source has."""
    reading = Reading(progress)
    kept, size, batch = target.newest, 0, list[Record]()
    for number, event in source.rows():
        size += reading.take(number, event)
        if number > kept:
            batch.append((number, event))
        if size >= BATCH_BYTES:
            if batch:
                target.put(batch)
            size, batch = 0, []
    if batch:
        target.put(batch)
    return reading.contents()


def _difference(source: CopySource, target: CopyTarget, wanted: Contents, found: Contents) -> str:
    names = [name for name in Contents.__struct_fields__ if getattr(wanted, name) != getattr(found, name)]
    differences = ", ".join(f"{name} {getattr(found, name)} for {getattr(wanted, name)}" for name in names)
    return (
        f"the copy {target.place} differs from {source.origin.place} ({differences}); it is not served: "
        "delete it and begin anew"
    )
