"""Journals in memory: restarted, copied, and with commits that are confirmed later, as other hosts do it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from copy import deepcopy

from svc.broker.journal import MemoryJournal, Ticket
from svc.domain.events import AnyEvent
from svc.errors import JournalError
from svc.server.journal.mirror import Mirror
from svc.server.journal.rows import EncodedRow, decode_event

#: Seconds after which `LateJournal` confirms a commit.
LATE_SECONDS = 0.002


def reopened(journal: MemoryJournal) -> MemoryJournal:
    """Close a journal; return one with the same events and the next incarnation, as a restart does."""
    successor = type(journal)(journal.incarnation + 1)
    successor._events, successor._texts = journal._events, journal._texts
    journal.close()
    return successor


def copied(journal: MemoryJournal) -> MemoryJournal:
    """Return a journal with the same events and the next incarnation; both can go on."""
    copy = MemoryJournal(journal.incarnation + 1)
    copy._events, copy._texts = deepcopy((journal._events, journal._texts))
    return copy


class MemoryMirror(MemoryJournal, Mirror):
    """A mirror of a simulated replica."""

    def append_encoded(self, encoded: Sequence[EncodedRow], forget: Sequence[int] = ()) -> None:
        self.append([(number, decode_event(body)) for number, body in encoded], forget)


class HeldTicket(Ticket):
    """A commit that is confirmed, or fails, as a test says."""

    def __init__(self) -> None:
        self.error: JournalError | None = None
        self._done = threading.Event()

    def settled(self) -> bool:
        if self.error is not None:
            raise self.error
        return self._done.is_set()

    def wait(self, seconds: float) -> bool:
        self._done.wait(seconds)
        return self.settled()

    def confirm(self) -> None:
        self._done.set()

    def fail(self, text: str) -> None:
        self.error = JournalError(text)
        self._done.set()


class HeldJournal(MemoryJournal):
    """A journal whose test confirms each commit.

    Attributes:
        tickets: the tickets so far.
        gathers: whether the next commits share the last ticket.
    """

    def __init__(self, incarnation: int = 1) -> None:
        super().__init__(incarnation)
        self.tickets: list[HeldTicket] = []
        self.gathers = False

    def append(self, records: Sequence[tuple[int, AnyEvent]], forget: Sequence[int] = ()) -> Ticket | None:
        super().append(records, forget)
        if not self.gathers or not self.tickets:
            self.tickets.append(HeldTicket())
        return self.tickets[-1]


class LateJournal(MemoryJournal):
    """A journal that confirms each commit after a moment."""

    def append(self, records: Sequence[tuple[int, AnyEvent]], forget: Sequence[int] = ()) -> Ticket | None:
        super().append(records, forget)
        ticket = HeldTicket()
        timer = threading.Timer(LATE_SECONDS, self._confirm, (ticket,))
        timer.daemon = True
        timer.start()
        return ticket

    def _confirm(self, ticket: HeldTicket) -> None:
        ticket.confirm()
        self.notify()
