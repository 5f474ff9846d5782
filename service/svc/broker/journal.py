"""The contract of journals, which keep the queue's events, and the journal in memory.

The durable journal is `svc.server.journal.SqliteJournal`. Every engine passes
`tests/contract/test_journals.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

from svc.broker.error_texts import Packed, Packing, Texts, digests_of, put_back, set_aside, unpack
from svc.domain.events import AnyEvent
from svc.domain.replies import Copy
from svc.errors import Conflict, JournalError, RowMissing


class Ticket(ABC):
    """A commit that is not durable yet."""

    @abstractmethod
    def settled(self) -> bool:
        """Return whether the commit is durable, and all commits before it.

        Raises:
            JournalError: it failed, or it will never be known whether it did; the journal is to be given up.
        """

    @abstractmethod
    def wait(self, seconds: float) -> bool:
        """Return `settled` once the commit is durable, or after *seconds*.

        Raises:
            JournalError: as `settled`.
        """


class Journal(ABC):
    """Events under ascending sequence numbers, in one process, used by one thread at a time.

    A new engine implements the abstract methods; the others have the behaviour of an engine without a disk of
    its own. After an error in `append`, all earlier events are kept, but it is not known whether the events
    of that call are. The journal then refuses every further call, and its owner exits and recovers from what
    is stored.

    Attributes:
        durability: the failure that accepted events survive: `fsync` power loss, `os` kill -9, `memory` none.
        incarnation: how many times the journal was opened or begun anew so far; never the same number twice.
        notify: is called, from any thread, whenever a ticket is settled or has failed; set by the owner.
    """

    durability: str
    incarnation: int
    notify: Callable[[], object] = staticmethod(lambda: None)

    @abstractmethod
    def append(self, records: Sequence[tuple[int, AnyEvent]], forget: Sequence[int] = ()) -> Ticket | None:
        """Keep *records* and delete the rows in *forget*, all or nothing; both may be empty.

        If it returns None, the change is as durable as `durability` says. An engine that has to ask other
        hosts returns a ticket, and the change is durable once that is settled. `read` has the events at once.
        A number in *forget* that does not exist is ignored, and the newest row may be kept until there is a
        newer one.

        Raises:
            JournalError: it could not be written (disk full, I/O error, a number exists already, closed), or
                the journal does not belong to this process any more.
        """

    @abstractmethod
    def read(self, sequence: int) -> AnyEvent:
        """Return one event.

        Raises:
            RowMissing: there is no such row.
            JournalError: it cannot be read.
        """

    @abstractmethod
    def replay(self) -> Iterator[tuple[int, AnyEvent]]:
        """Yield every (sequence number, event) in ascending order; nothing may be appended meanwhile.

        Failed attempts come without the long texts of their errors; `read` returns those too.

        Raises:
            JournalError: a row cannot be read.
        """

    @abstractmethod
    def begin_incarnation(self) -> None:
        """Add 1 to the incarnation of the open journal, so that its owner may replay it again.

        Appended events stay; a transaction that a failed turn left unfinished is rolled back.

        Raises:
            JournalError: it could not be written, or its end is lost.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the journal. May be called twice, and after an error."""

    def maintain(self, *, idle: bool) -> bool:  # noqa: ARG002 - an engine with a disk needs it
        """Do some of the work that commits have postponed, and check from time to time that nothing is lost.

        The owner calls it after each turn; after an *idle* turn there is time for more work. A full disk
        raises nothing: a later call tries again.

        Returns:
            Whether there is more to do at once.

        Raises:
            JournalError: an I/O error, or the journal does not belong to this process any more.
        """
        return False

    def size(self) -> int:
        """Return the bytes that the journal takes on disk; 0 if it is not on a disk of this host."""
        return 0

    def free_bytes(self) -> int | None:
        """Return the bytes that its disk has left, or None if it is not on a disk of this host."""
        return None

    def backup(self, name: str) -> Copy:
        """Begin a backup of that name, unless it is the last one that was begun; return its state.

        Calls of `maintain` make it. It holds at least everything that was accepted before this call.

        Raises:
            BadRequest: the name is not allowed.
            Conflict: there is a file of that name, another backup is running, or this engine makes none.
            JournalError: the backup cannot be made.
        """
        raise Conflict(f"the backup {name} is not made: with --durability memory there is no journal")

    def note_time(self, now: float) -> None:  # noqa: B027 - need not be implemented
        """Keep that the manager's clock shows *now*, a Unix time; called now and then, and not durable."""

    def expected_time(self) -> float:
        """Return the Unix time that it should be by what `note_time` has kept, or 0 if that is unknown."""
        return 0.0


class SharedTexts:
    """Texts of errors in memory: each once, compressed, and as long as an event refers to it."""

    def __init__(self) -> None:
        """Begin empty."""
        self._packed: dict[bytes, Packed] = {}
        self._uses: Counter[bytes] = Counter()

    def keep(self, texts: Iterable[Texts]) -> None:
        """Keep the texts of more events."""
        packing = Packing()
        for digest, text in chain.from_iterable(each.items() for each in texts):
            if digest not in self._packed:
                self._packed[digest] = packing.pack(text)
            self._uses[digest] += 1

    def drop(self, digests: Iterable[bytes]) -> None:
        """Note that an event with these texts is deleted."""
        for digest in digests:
            self._uses[digest] -= 1
            if not self._uses[digest]:
                del self._uses[digest], self._packed[digest]

    def read(self, digest: bytes) -> bytes:
        """Return a text."""
        return unpack(digest, self._packed[digest])


class MemoryJournal(Journal):
    """A journal in memory. It keeps the event objects themselves, so reading costs nothing."""

    durability = "memory"

    def __init__(self, incarnation: int = 1) -> None:
        """Start empty. A manager passes a number that no earlier one had, so that old leases stay invalid."""
        self.incarnation = incarnation
        self._events: dict[int, AnyEvent] = {}
        self._texts = SharedTexts()
        self._closed = False

    def append(self, records: Sequence[tuple[int, AnyEvent]], forget: Sequence[int] = ()) -> Ticket | None:
        """Keep *records* and delete the rows in *forget*; see `Journal.append`."""
        self._require_open()
        for sequence, _ in records:
            if sequence in self._events:
                self.close()
                raise JournalError(
                    f"the journal has a row {sequence} already; this is a fault of the manager"
                )
        short, texts = set_aside(records)
        self._events.update(short)
        self._texts.keep(texts.values())
        for sequence in forget:
            event = self._events.pop(sequence, None)
            if event is not None:
                self._texts.drop(digests_of(event))
        return None

    def read(self, sequence: int) -> AnyEvent:
        """Return one event; see `Journal.read`."""
        self._require_open()
        event = self._events.get(sequence)
        if event is None:
            raise RowMissing(f"the journal has no row {sequence}")
        return put_back(event, self._texts.read)

    def begin_incarnation(self) -> None:
        """Add 1 to the incarnation; see `Journal.begin_incarnation`."""
        self._require_open()
        self.incarnation += 1

    def replay(self) -> Iterator[tuple[int, AnyEvent]]:
        """Yield every (sequence number, event) in order; see `Journal.replay`."""
        self._require_open()
        yield from sorted(self._events.items(), key=lambda row: row[0])

    def maintain(self, *, idle: bool) -> bool:  # noqa: ARG002 - as above
        """Do nothing; see `Journal.maintain`."""
        self._require_open()
        return False

    def close(self) -> None:
        """Refuse all further calls."""
        self._closed = True

    def _require_open(self) -> None:
        if self._closed:
            raise JournalError("the journal is closed")
