"""The replicated journal of a leader: every commit goes to the mirror at once, and to the stream by a ticket.

The mirror is ahead of the stream by the frames that are under way. That does no harm: nothing is acknowledged
before its frame is stored, and no mirror outlives its manager.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from svc.broker.journal import Journal, Ticket
from svc.domain.events import AnyEvent
from svc.domain.replies import Copy
from svc.errors import JournalError
from svc.server.journal.jetstream.frame_table import FrameTable
from svc.server.journal.jetstream.sending import Sender
from svc.server.journal.mirror import Mirror
from svc.server.journal.rows import due_rows, encoded_rows

#: Bytes of old rows in one frame that rewrites them.
REWRITE_BYTES: Final = 256 * 1024


class Term(Protocol):
    """The term of a leader: its frames in the stream; `replication.Replication` has them."""

    @property
    def sender(self) -> Sender:
        """The frames on their way."""

    @property
    def number(self) -> int:
        """The number of the term."""

    @property
    def mirror(self) -> Mirror:
        """The journal on this host's disk that has the live rows."""

    @property
    def table(self) -> FrameTable:
        """The rows of each frame of the stream."""

    def room(self) -> int | None:
        """Return the bytes that the stream can still take; None if that is not known."""

    def begin_next(self) -> None:
        """Begin the next term behind all frames that are under way."""

    def close(self) -> None:
        """End the connection to the stream, and delete the mirror."""


class JetStreamJournal(Journal):
    """The journal of the manager that leads."""

    durability = "replicated"

    def __init__(self, term: Term) -> None:
        """Write frames in *term*."""
        self._term = term
        self._mirror = term.mirror
        self._newest = 0
        #: The newest row, if it is to be forgotten; see `due_rows`.
        self._deferred: set[int] = set()
        self._closed = ""
        term.sender.settled = self._tell_settled

    @property
    def incarnation(self) -> int:  # type: ignore[override]
        """The number of the term."""
        return self._term.number

    def append(self, records: Sequence[tuple[int, AnyEvent]], forget: Sequence[int] = ()) -> Ticket | None:
        """Keep *records* in the mirror, and send them on their way; see `Journal.append`."""
        self._require_open()
        self._newest = max([self._newest, *[number for number, _ in records]])
        gone = self._deferred.union(forget)
        if gone:
            records, gone, self._deferred = due_rows(records, gone, self._newest)
        if not records and not gone:
            return None
        rows, forgotten = encoded_rows(records), sorted(gone)
        self._mirror.append_encoded(rows, forgotten)  # it refuses a number that is taken
        return self._term.sender.put(rows, forgotten)

    def read(self, sequence: int) -> AnyEvent:
        """Return one event of the mirror; see `Journal.read`."""
        self._require_open()
        return self._mirror.read(sequence)

    def replay(self) -> Iterator[tuple[int, AnyEvent]]:
        """Yield all events of the mirror; see `Journal.replay`."""
        self._require_open()
        for sequence, event in self._mirror.replay():
            self._newest = max(self._newest, sequence)
            yield sequence, event

    def begin_incarnation(self) -> None:
        """Begin the next term; see `Journal.begin_incarnation`."""
        self._require_open()
        self._term.begin_next()
        self._mirror.begin_incarnation()

    def maintain(self, *, idle: bool) -> bool:
        """Keep the mirror's files in order, and the stream's size in bounds; see `Journal.maintain`."""
        self._require_open()
        more = self._mirror.maintain(idle=idle)
        if numbers := self._term.sender.worth_rewriting(REWRITE_BYTES):
            self._term.sender.rewrite(encoded_rows((number, self._mirror.read(number)) for number in numbers))
        return more

    def size(self) -> int:
        """Return the bytes that the journal takes in the stream."""
        return self._term.table.size

    def free_bytes(self) -> int | None:
        """Return the bytes that the mirror's disk, or the stream if that is less, has left."""
        known = [free for free in (self._mirror.free_bytes(), self._term.room()) if free is not None]
        return min(known, default=None)

    def backup(self, name: str) -> Copy:
        """Begin a backup of the mirror; see `Journal.backup`."""
        self._require_open()
        return self._mirror.backup(name)

    def close(self) -> None:
        """Wait for the frames that are under way, and end the term; see `Journal.close`."""
        if self._closed:
            return
        self._closed = "the journal is closed"
        self._term.close()

    def _tell_settled(self) -> None:
        self.notify()  # which its owner may set later

    def _require_open(self) -> None:
        if self._closed:
            raise JournalError(self._closed)
        self._term.sender.require_sound()
