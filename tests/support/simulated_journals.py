"""The journals of a simulation, and how a manager finds each of them after the one before was killed."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from svc.broker.journal import Journal, MemoryJournal, Ticket
from svc.domain.events import AnyEvent
from svc.server.journal.jetstream.frame_table import FrameTable
from svc.server.journal.jetstream.journal import JetStreamJournal
from svc.server.journal.jetstream.replica import Replica
from svc.server.journal.jetstream.sending import Sender
from svc.server.journal.jetstream.term import LeaderTerm
from svc.server.journal.mirror import Mirror
from tests.support.log_model import LogFaults, LogModel, ModelStream
from tests.support.memory_journals import MemoryMirror, reopened
from tests.support.virtual_time import VirtualLoop

#: Faults of a stream of which some come in each story, and none lasts for ever.
STREAM_FAULTS = LogFaults(lost=0.02, late=0.01, repeated=0.02, election=0.01, stale=0.3)


class Journals(abc.ABC):
    """Where the journal of a simulated manager is kept."""

    @abc.abstractmethod
    def new(self, rng: Random) -> Journal:
        """Return an empty journal; *rng* decides its faults."""

    def close(self) -> None:  # noqa: B027 - memory needs none
        """End all that still runs."""

    @abc.abstractmethod
    def reopened(self, journal: Journal) -> Journal:
        """Return the journal as the next manager finds it; that of the killed one is *journal*."""

    def go_on(self) -> None:  # noqa: B027 - memory needs none
        """Let some time pass for a journal on other hosts."""

    def end_faults(self) -> None:  # noqa: B027 - memory needs none
        """Let all commits come through from now on."""


class MemoryJournals(Journals):
    """Journals in memory, which commit at once."""

    def new(self, rng: Random) -> Journal:
        return MemoryJournal()

    def reopened(self, journal: Journal) -> Journal:
        assert isinstance(journal, MemoryJournal)
        return reopened(journal)


class SimulatedTerm:
    """The term of a simulated leader, in the loop of its stream."""

    def __init__(self, go_on: Callable[[], object], replica: Replica, term: LeaderTerm) -> None:
        self._go_on = go_on
        self._replica = replica
        self.leader = term

    @property
    def sender(self) -> Sender:
        return self.leader.sender

    @property
    def number(self) -> int:
        return self.leader.number

    @property
    def mirror(self) -> Mirror:
        return self._replica.mirror

    @property
    def table(self) -> FrameTable:
        return self._replica.table

    def room(self) -> None:
        return None

    def begin_next(self) -> None:
        ticket = self.sender.put_term()
        while not ticket.settled():
            self._go_on()

    def close(self) -> None:
        self.leader.end()


@dataclass
class StreamJournals(Journals):
    """Replicated journals on a modelled stream, whose time goes on as the simulation lets it.

    Attributes:
        faults: those of the stream.
        standbys: how often a standby took over, and not a new manager.
    """

    faults: LogFaults = STREAM_FAULTS
    standbys: int = 0
    stream: ModelStream = field(init=False)

    def new(self, rng: Random) -> Journal:
        self._rng = rng
        self._loop = VirtualLoop()
        self.stream = ModelStream(Random(rng.random()), self.faults)
        self._standby: Replica | None = None
        self._managers = 0
        return self._led(self._replica())

    def reopened(self, journal: Journal) -> Journal:
        assert isinstance(journal, JetStreamJournal)
        term = journal._term
        assert isinstance(term, SimulatedTerm)
        term.leader.end()  # what it has sent may still arrive
        replica, self._standby = self._standby, None
        if replica is None or self._rng.random() < 0.3:
            replica = self._replica()
        else:
            self.standbys += 1
        if self._rng.random() < 0.7:
            self._standby = self._replica()
        return self._led(replica)

    def go_on(self) -> None:
        self._run(asyncio.sleep(self._rng.choice([0.0, 0.001, 0.01])))

    def end_faults(self) -> None:
        self.stream.faults = LogFaults()
        self._run(asyncio.sleep(30))

    def close(self) -> None:
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._run(asyncio.wait(tasks) if tasks else asyncio.sleep(0))
        self._loop.close()

    def _led(self, replica: Replica) -> Journal:
        term = LeaderTerm(replica.log, replica, self._loop.call_soon)
        self._run(term.begin())
        return self._journal_of(SimulatedTerm(self.go_on, replica, term))

    def _journal_of(self, term: SimulatedTerm) -> Journal:
        return JetStreamJournal(term)

    def _replica(self) -> Replica:
        self._managers += 1
        replica = Replica(LogModel(self.stream, f"m{self._managers}"), MemoryMirror)
        self._loop.call_soon(replica.start)
        return replica

    def _run(self, work: object) -> None:
        self._loop.run_until_complete(work)  # type: ignore[arg-type]


class AwaitedJournal(JetStreamJournal):
    """A replicated journal each of whose commits is durable when it returns, as those of memory are."""

    def __init__(self, term: SimulatedTerm, wait: Callable[[Ticket], object]) -> None:
        super().__init__(term)
        self._wait = wait

    def append(self, records: Sequence[tuple[int, AnyEvent]], forget: Sequence[int] = ()) -> Ticket | None:
        ticket = super().append(records, forget)
        if ticket is not None:
            self._wait(ticket)
        return None


class AwaitedStreams(StreamJournals):
    """The same for a test that has no time of its own: a commit passes the time that it needs."""

    def _journal_of(self, term: SimulatedTerm) -> Journal:
        return AwaitedJournal(term, lambda ticket: self._run(_settled(ticket)))


async def _settled(ticket: Ticket) -> None:
    pause = 0.001
    while not ticket.settled():
        await asyncio.sleep(pause)
        pause = min(2 * pause, 0.1)
