"""The clients of a simulation: those that submit, that read partial results, and plain ones."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.admission import PASSING
from svc.domain.job import NewChunk, Terms
from svc.domain.names import LARGE
from tests.support.inside import waiting_puts
from tests.support.simulated_peer import Peer, Violation
from tests.support.simulated_workers import Consumer

if TYPE_CHECKING:
    from tests.support.simulation import World

#: The large argument of a job, which comes in three pieces.
ARGUMENT = b"arg"
#: The queue of the jobs that putters put.
PUT_QUEUE = "puts"


class Client(Peer):
    """Submits its jobs, then reads their outcomes from the feed, each once."""

    def __init__(self, world: World, name: str, chunks: list[NewChunk]) -> None:
        super().__init__(world, name)
        self.chunks = deque(chunks)
        self.cursor = 0

    def act(self) -> list[c.Command]:
        if self.chunks:
            return [c.Submit(self.name, [self.chunks[0]])]
        return [c.Feed(self.name, self.cursor, limit=3)]

    def answered(self, commands: Sequence[c.Command], replies: Sequence[r.Reply]) -> None:
        (reply,) = replies
        if isinstance(reply, r.Accepted):
            if reply.notes:
                raise Violation(f"{self.name} has notes on a plain submit: {reply.notes}")
            chunk = self.chunks.popleft()
            self.world.accepted.update(f"{self.name}-{chunk.first + i}" for i in range(len(chunk.bodies)))
        elif isinstance(reply, r.Outcomes):
            self.cursor = reply.cursor
            for outcome in reply.outcomes:
                self.world.seen[outcome.id].append(outcome)


class LargeClient(Client):
    """Stores the large argument of each job before it submits the job; if that is lost, it begins anew."""

    def __init__(self, world: World, name: str, jobs: int) -> None:
        terms = Terms("m:f", codec=LARGE, large=True)
        chunks = [NewChunk(number, terms, [b"body"], large=[len(ARGUMENT)]) for number in range(jobs)]
        super().__init__(world, name, chunks)
        self.stored = 0

    def act(self) -> list[c.Command]:
        if not self.chunks or self.stored == len(ARGUMENT):
            return super().act()
        stop = self.world.rng.randint(self.stored, len(ARGUMENT) - 1) + 1
        return [
            c.StorePiece(self.name, self.chunks[0].first, 1, len(ARGUMENT), at, ARGUMENT[at : at + 1])
            for at in range(self.stored, stop)
        ]

    def answered(self, commands: Sequence[c.Command], replies: Sequence[r.Reply]) -> None:
        last = replies[-1]
        if isinstance(commands[0], c.StorePiece):
            if not isinstance(last, r.Done):
                raise Violation(f"{self.name} could not store a piece: {last}")
            self.stored = last.count
            return
        if isinstance(last, r.Accepted):
            self.stored = 0
            if any(note.code == "large_value_lost" for note in last.notes):
                self.world.values_lost += 1
                return
        super().answered(commands, replies)


class Reader(Peer):
    """Reads the partial results of one job after the other, and hears if another attempt gives them."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.begin()

    def begin(self) -> None:
        """Begin with a job, one that gives something now if there is one."""
        giving = [each.job for each in self.world.peers if isinstance(each, Consumer) and each.recorded]
        self.job = self.world.rng.choice(giving or sorted(self.world.submitted))
        self.token = 0
        self.seen: list[bytes] = []

    def act(self) -> list[c.Command]:
        wait = self.world.rng.choice([0.0, 2.0])
        return [c.ReadStream(self.job, len(self.seen), self.token, wait)]

    def answered(self, commands: Sequence[c.Command], replies: Sequence[r.Reply]) -> None:
        (part,) = replies
        if not isinstance(part, r.StreamPart):
            self.begin()
            return
        if self.token and part.token != self.token:
            self.world.streams_restarted += 1
            self.begin()
            return
        self.token = part.token
        self.seen += part.values
        self.world.values_read += len(part.values)
        self.world.check_stream(self.job, self.seen)
        if part.ended or self.world.rng.random() < 0.02:
            self.begin()


class Plain(Peer):
    """A stock client that gets and acknowledges; its jobs go back when its connection ends."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.delivery: r.Delivery | None = None

    def hello(self) -> None:
        return None

    def hands(self) -> Iterable[tuple[int, str]]:
        held = self.delivery
        return () if held is None else ((held.token, f"{held.origin}-{held.first}"),)

    def act(self) -> list[c.Command]:
        if self.delivery is None:
            return [c.Lease(1, 2.0)]
        job = f"{self.delivery.origin}-{self.delivery.first}"
        self.world.began(self.delivery.token, job)
        return [c.Ack(self.delivery.token, self.delivery.first, [self.world.result(job)], [0.0])]

    def answered(self, commands: Sequence[c.Command], replies: Sequence[r.Reply]) -> None:
        self.delivery = None
        if isinstance(replies[0], r.Grant) and replies[0].deliveries:
            (self.delivery,) = replies[0].deliveries

    def _connect(self) -> None:
        self.pending = self.delivery = None
        super()._connect()
        if self.line is not None:
            self.line.member.role = "plain"


class Putter(Peer):
    """A stock client that puts jobs with keys, and repeats each until it is accepted."""

    def __init__(self, world: World, name: str, count: int) -> None:
        super().__init__(world, name)
        self.count = count
        self.accepted = self.refused = 0

    def hello(self) -> None:
        return None

    def act(self) -> list[c.Command]:
        if self.accepted == self.count:
            return []
        key, wait = f"{self.name}-{self.accepted}", self.world.rng.choice([0.0, 0.3, 5.0, math.inf])
        return [c.Put(Terms("m:f", PUT_QUEUE), key.encode(), key=key, wait=wait)]

    def answered(self, commands: Sequence[c.Command], replies: Sequence[r.Reply]) -> None:
        (reply,) = replies
        if not isinstance(reply, r.Accepted) or (reply.notes[0].code and reply.notes[0].code not in PASSING):
            raise Violation(f"{self.name} could not put: {reply}")
        if reply.notes[0].code:
            self.refused += 1
        else:
            self.accepted += 1


class Taker(Plain):
    """A stock client that takes what the putters put, now and then."""

    def act(self) -> list[c.Command]:
        self.world.puts_waited = max(self.world.puts_waited, waiting_puts(self.world.host)[0])
        return super().act() if self.delivery is not None or self.world.rng.random() < 0.3 else []

    def _connect(self) -> None:
        super()._connect()
        if self.line is not None:
            self.line.member.subscription = (frozenset((PUT_QUEUE,)), None, None)
