"""Two managers on one modelled stream and one modelled bucket, in virtual time, with clients of both.

The components are the real ones but for the network: leadership, replica, term, journal and host. A manager
can be cut off from the servers while its clients still reach it: the worst that can happen to a leader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from svc.broker.leading import LeadingHost
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import NewChunk, Terms
from svc.domain.members import Member
from svc.errors import JournalError
from svc.server.journal.jetstream.candidacy import Candidacy
from svc.server.journal.jetstream.frames import parse_part
from svc.server.journal.jetstream.journal import JetStreamJournal
from svc.server.journal.jetstream.lead_timing import Timing
from svc.server.journal.jetstream.leadership import Leadership, Position
from svc.server.journal.jetstream.log import Unanswered
from svc.server.journal.jetstream.replica import Replica
from svc.server.journal.jetstream.term import LeaderTerm
from tests.support.clock import FakeClock
from tests.support.key_model import KeyModel, ModelBucket
from tests.support.log_model import LogFaults, LogModel, ModelStream
from tests.support.memory_journals import MemoryMirror
from tests.support.simulated_journals import SimulatedTerm

Answer = TypeVar("Answer")
#: Seconds between two turns of a manager.
TURN_SECONDS = 0.02
#: Seconds between two jobs of a manager's client.
SUBMIT_SECONDS = 0.1


class CutLog(LogModel):
    """A client of the stream that can be cut off from it."""

    cut_off = False

    async def _ask(self, act: Callable[[], Answer]) -> Answer:
        if self.cut_off:
            await asyncio.sleep(self._patience)
            raise Unanswered("no answer in time")
        return await super()._ask(act)


@dataclass
class Record:
    """What happened, each with its time.

    Attributes:
        accepted: the jobs whose submit was acknowledged.
        granted: when a manager handed out a job: its name and the time.
        terms: the managers in the order of their terms, with the time at which each term began.
        deposed: the managers that found out that they were.
    """

    accepted: set[str] = field(default_factory=set)
    granted: list[tuple[str, float]] = field(default_factory=list)
    terms: list[tuple[str, float]] = field(default_factory=list)
    deposed: list[str] = field(default_factory=list)


class Manager:
    """A manager that stands for the lead, and serves while it has it.

    Attributes:
        waits: whether it begins no term before the log is silent; off only to show that a test can fail.
    """

    waits = True

    def __init__(self, name: str, stream: ModelStream, keys: KeyModel, record: Record, rng: Random) -> None:
        self.name = name
        self.record = record
        self.log = CutLog(stream, name)
        self.bucket = ModelBucket(keys, rng)
        self.pace = rng.uniform(0.99, 1.01)
        leadership = Leadership(name, (f"{name}:7077",), Timing(), now=self._now())
        self.candidacy = Candidacy(
            self.bucket,
            leadership,
            self._changed,
            clock=self._now,
            caught_up=lambda: self.replica.caught_up,
        )
        self.replica = Replica(self.log, MemoryMirror)
        self.host: LeadingHost | None = None
        self._jobs = 0
        self._terms: list[LeaderTerm] = []
        self._tasks = {asyncio.create_task(self.candidacy.run())}
        self.replica.start()

    def cut_off(self, *, on: bool) -> None:
        """Cut the manager off from all servers, but not from its clients; or end that."""
        self.log.cut_off = self.bucket.cut_off = on

    def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        for term in self._terms:
            term.end()

    def _now(self) -> float:
        return asyncio.get_running_loop().time() * getattr(self, "pace", 1.0)

    def _changed(self, position: Position) -> None:
        if position is Position.LEADER and self.host is None:
            self._begin(self._lead())

    def _begin(self, work: Awaitable[None]) -> None:
        self._tasks.add(asyncio.ensure_future(work))

    async def _lead(self) -> None:
        term = LeaderTerm(self.log, self.replica, asyncio.get_running_loop().call_soon)
        self._terms.append(term)
        leadership = self.candidacy.leadership
        silence = leadership.timing.silence if self.waits else 0.0
        await term.begin(silence, self._stored, free=leadership.took_free)
        self.candidacy.append = term.sender.put_nothing
        self.record.terms.append((self.name, asyncio.get_running_loop().time()))
        journal = JetStreamJournal(SimulatedTerm(_ignored, self.replica, term))
        clock = FakeClock()
        self.host = LeadingHost(journal, leads=lambda: self.candidacy.valid, clock=clock)
        try:
            await self._serve(self.host, clock)
        except JournalError:
            self.record.deposed.append(self.name)

    async def _serve(self, host: LeadingHost, clock: FakeClock) -> None:
        consumer = Member()
        host.connected(consumer)
        host.call([c.Hello(1, "consumer", f"{self.name}-1", self.name, tasks=["m:f"])], consumer, _ignored)
        next_job = 0.0
        while True:
            clock.advance(TURN_SECONDS)
            now = asyncio.get_running_loop().time()
            if now >= next_job:
                next_job = now + SUBMIT_SECONDS
                self._submit(host)
                host.call([c.Lease(1)], consumer, self._granted)
            host.turn()
            await asyncio.sleep(TURN_SECONDS)

    def _stored(self, started: float) -> None:
        self.candidacy.leadership.stored(started * self.pace)

    def _submit(self, host: LeadingHost) -> None:
        job, self._jobs = f"{self.name}-{self._jobs}", self._jobs + 1
        chunk = NewChunk(self._jobs - 1, Terms("m:f"), [job.encode()])

        def answered(replies: list[r.Reply]) -> None:
            if isinstance(replies[0], r.Accepted):
                self.record.accepted.add(job)

        host.call([c.Submit(self.name, [chunk])], Member(), answered)

    def _granted(self, replies: list[r.Reply]) -> None:
        if any(isinstance(reply, r.Grant) and reply.deliveries for reply in replies):
            self.record.granted.append((self.name, asyncio.get_running_loop().time()))


def _ignored(*replies: object) -> None:
    pass


async def cut_off_leader(seed: int, *, fenced: bool = True) -> tuple[Record, ModelStream]:
    """Tell the story of a leader that is cut off for a while, with a standby beside it; return its record.

    With *fenced* false, the stream takes all appends: only to show that the checks can fail.
    """
    rng = Random(seed)
    faults = LogFaults(lost=0.01, late=0.01, repeated=0.01) if seed % 2 else LogFaults()
    stream = ModelStream(Random(rng.random()), faults, fenced)
    keys, record = KeyModel(), Record()
    managers = [Manager(name, stream, keys, record, Random(rng.random())) for name in ("a", "b")]
    await _until(lambda: bool(record.terms))
    leader = next(each for each in managers if each.name == record.terms[0][0])
    await asyncio.sleep(rng.uniform(1, 5))
    leader.cut_off(on=True)
    await _until(lambda: len(record.terms) > 1)
    await asyncio.sleep(rng.uniform(0, 5))
    leader.cut_off(on=False)
    await asyncio.sleep(15)
    stream.faults = LogFaults()
    await asyncio.sleep(15)
    for manager in managers:
        manager.end()
    return record, stream


async def cut_off_bucket(seed: int, *, waits: bool = True) -> tuple[Record, ModelStream]:
    """Tell the story of a leader that reaches the stream, and for a while not the bucket; return its record.

    With *waits* false, its successor does not wait for a silent log: only to show that the check can fail.
    """
    rng = Random(seed)
    stream = ModelStream(Random(rng.random()), LogFaults(lost=0.01) if seed % 2 else LogFaults())
    managers, record = await _led(stream, KeyModel(), rng)
    for manager in managers:
        manager.waits = waits
    leader = next(each for each in managers if each.name == record.terms[0][0])
    leader.bucket.cut_off = True
    await asyncio.sleep(rng.uniform(0, 25))
    leader.bucket.cut_off = False
    await asyncio.sleep(15)
    _end(managers)
    return record, stream


async def election_of_the_bucket(seed: int, seconds: float) -> Record:
    """Tell the story of a leader and a standby whose bucket elects for so many *seconds*."""
    rng, keys = Random(seed), KeyModel()
    managers, record = await _led(ModelStream(Random(rng.random())), keys, rng)
    keys.electing = True
    await asyncio.sleep(seconds)
    keys.electing = False
    await asyncio.sleep(10)
    _end(managers)
    return record


async def _led(stream: ModelStream, keys: KeyModel, rng: Random) -> tuple[list[Manager], Record]:
    """Return two managers, of which one has led for a while, and their record."""
    record = Record()
    managers = [Manager(name, stream, keys, record, Random(rng.random())) for name in ("a", "b")]
    await _until(lambda: bool(record.terms))
    await asyncio.sleep(rng.uniform(4, 8))
    return managers, record


def _end(managers: list[Manager]) -> None:
    for manager in managers:
        manager.end()


async def _until(condition: Callable[[], bool], seconds: float = 120) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.05)


def terms_in(stream: ModelStream) -> list[int]:
    """Return the term of each message of the stream, in order."""
    return [parse_part(stream.messages[number]).origin.term for number in sorted(stream.messages)]
