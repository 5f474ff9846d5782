"""The peers of a simulation, each with a line to the manager: clients, workers, consumers, plain clients."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import ErrorInfo, NewChunk
from svc.domain.members import Member

if TYPE_CHECKING:
    from tests.support.simulation import World

ERROR = ErrorInfo("ValueError", "no")
RETRIES = 4


class Violation(AssertionError):
    """A promise was broken."""


class Line:
    """One connection, seen from both ends."""

    def __init__(self) -> None:
        self.member = Member()
        self.to_manager: deque[tuple[int, list[c.Command]]] = deque()
        self.to_peer: deque[tuple[int, list[r.Reply]]] = deque()
        #: The peer has gone; the manager notices that after the data that was sent before.
        self.given_up = False
        #: The manager has gone.
        self.broken = False

    def deliver(self, request: int) -> Callable[[list[r.Reply]], None]:
        """Count a request, and return the function that takes its replies."""
        self.member.outstanding += 1

        def answer(replies: list[r.Reply]) -> None:
            self.member.outstanding -= 1
            self.to_peer.append((request, replies))

        return answer


class Peer:
    """A process that calls the manager, and repeats a frame until it gets an answer."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.line: Line | None = None
        self.pending: list[c.Command] | None = None
        self.request = 0
        self.alive = True
        #: Whether the hello of this line has no answer yet.
        self.strange = False

    def hello(self) -> c.Hello | None:
        return c.Hello(1, "client")

    def step(self) -> None:
        line = self.line
        if line is None or (line.broken and not line.to_peer):
            self._connect()
        elif line.to_peer:
            self._read(*line.to_peer.popleft())
        elif self.pending is None and not self.strange:
            commands = self.act()
            if commands:
                self.pending = commands
                self._send()

    def act(self) -> list[c.Command]:
        """Return the next commands, if there are any."""
        return []

    def answered(self, commands: Sequence[c.Command], replies: Sequence[r.Reply]) -> None:
        """Handle the replies to *commands*."""

    def welcomed(self, welcome: r.Welcome) -> None:
        """Handle the answer to the hello."""

    def again(self) -> Sequence[c.Command]:
        """Return the commands to repeat on a new line, after the hello."""
        return ()

    def hands(self) -> Iterable[str]:
        """Return the jobs that this peer knows to hold."""
        return ()

    def give_up_line(self) -> None:
        if self.line is not None:
            self.line.given_up = True
            self.line = None

    def _connect(self) -> None:
        self.line = self.world.open()
        hello = self.hello()
        self.strange = hello is not None
        if hello is not None:
            self.line.to_manager.append((0, [hello, *self.again()]))
        elif self.pending is not None:
            self._send()

    def _send(self) -> None:
        if self.line is not None and self.pending is not None:
            self.request += 1
            self.line.to_manager.append((self.request, self.pending))

    def _read(self, request: int, replies: Sequence[r.Reply]) -> None:
        if request == 0:
            welcome = replies[0]
            if not isinstance(welcome, r.Welcome):
                raise Violation(f"{self.name} was not welcomed: {welcome}")
            self.strange = False
            self.welcomed(welcome)
            self._send()
        elif request == self.request and self.pending is not None:
            commands, self.pending = self.pending, None
            self.answered(commands, replies)


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


class Consumer(Peer):
    """Runs jobs one after the other; the hello of a new line names the jobs that it holds."""

    def __init__(self, world: World, name: str, supervisor: Supervisor) -> None:
        super().__init__(world, name)
        self.supervisor = supervisor
        self.jobs: deque[tuple[int, r.Delivery, int]] = deque()
        self.executing: tuple[int, r.Delivery, int] | None = None
        self.outcomes: list[c.Ack | c.Nack] = []
        self.unconfirmed: list[c.Ack | c.Nack] = []
        #: Outcomes that the manager has received and may not have recorded.
        self.unrecorded: list[c.Ack | c.Nack] = []
        self.origins: dict[int, str] = {}

    def hello(self) -> c.Hello:
        return c.Hello(1, "consumer", self.name, self.supervisor.worker, tasks=["m:f"], held=self._held())

    def again(self) -> Sequence[c.Command]:
        return self.unrecorded

    def hands(self) -> Iterable[str]:
        return (f"{held.origin}-{held.first + i}" for held in self._held() for i in range(held.count))

    def step(self) -> None:
        if self.executing is not None:
            if self.world.rng.random() < 0.2:
                self._finish(*self.executing)
        elif self.jobs and self.world.rng.random() < 0.7:
            self.executing = self.jobs.popleft()
            job = self._id(self.executing)
            self.world.began(job)
            if job in self.world.poison:
                self.world.kill_worker(self.supervisor)
        else:
            super().step()

    def act(self) -> list[c.Command]:
        if self.jobs:
            return []
        self.unconfirmed, self.outcomes = self.outcomes, []
        limit = self.world.rng.randint(1, 4)
        return [*self.unconfirmed, c.Lease(limit, 2.0, early=self.world.rng.random() < 0.7)]

    def answered(self, commands: Sequence[c.Command], replies: Sequence[r.Reply]) -> None:
        grant = replies[-1]
        early = isinstance(grant, r.Grant) and grant.early
        self.world.early += early
        self.unrecorded, self.unconfirmed = self.unconfirmed if early else [], []
        if not isinstance(grant, r.Grant):
            self.give_up_line()
        elif grant.pill:
            self.pending = None
            self.leave()
        else:
            for delivery in grant.deliveries:
                self.origins[delivery.token] = delivery.origin
                self.jobs.extend((delivery.token, delivery, i) for i in range(len(delivery.bodies)))

    def welcomed(self, welcome: r.Welcome) -> None:
        lost = set(welcome.lost)
        self.jobs = deque(job for job in self.jobs if job[0] not in lost)

    def leave(self) -> None:
        if self.line is not None:
            self.line.to_manager.append((-1, [c.Leave()]))
        self.give_up_line()
        self.alive = False

    def _finish(self, token: int, delivery: r.Delivery, index: int) -> None:
        self.executing = None
        job, number = f"{delivery.origin}-{delivery.first + index}", delivery.first + index
        if self.world.rng.random() < 0.85:
            self.outcomes.append(c.Ack(token, number, [self.world.result(job)], [0.1]))
        else:
            failures = delivery.failures + 1
            retry_in = None if failures > RETRIES else self.world.rng.choice([0.0, 0.5, None])
            self.world.failed(job)
            self.outcomes.append(c.Nack(token, number, ERROR, retry_in))

    def _id(self, job: tuple[int, r.Delivery, int]) -> str:
        return f"{job[1].origin}-{job[1].first + job[2]}"

    def _held(self) -> list[c.Held]:
        numbers: defaultdict[int, list[int]] = defaultdict(list)
        for token, delivery, index in self._all():
            numbers[token].append(delivery.first + index)
        for settlement in (*self.unrecorded, *self.unconfirmed, *self.outcomes):
            number = settlement.first if isinstance(settlement, c.Ack) else settlement.number
            numbers[settlement.token].append(number)
        return [c.Held(t, self.origins[t], min(some), len(some)) for t, some in numbers.items()]

    def _all(self) -> list[tuple[int, r.Delivery, int]]:
        return [*([self.executing] if self.executing else []), *self.jobs]


class Supervisor(Peer):
    """Renews the leases of its consumers, reports dead ones and replaces them."""

    def __init__(self, world: World, worker: str, size: int) -> None:
        super().__init__(world, f"{worker}-0")
        self.worker = worker
        self.size = size
        self.born = 0
        self.consumers: list[Consumer] = []
        self.reports: list[c.Lost] = []
        self.next_renewal = 0.0

    def hello(self) -> c.Hello:
        return c.Hello(1, "worker", self.name, self.worker)

    def act(self) -> list[c.Command]:
        self.consumers = [each for each in self.consumers if each.alive]
        if len(self.consumers) < self.size and not self.world.draining:
            self.born += 1
            child = Consumer(self.world, f"{self.worker}-{self.born}", self)
            self.consumers.append(child)
            self.world.peers.append(child)
        now = self.world.clock.now()
        if not self.reports and now < self.next_renewal:
            return []
        self.next_renewal = now + 3.0
        reports, self.reports = self.reports, []
        return [*reports, c.Extend(busy=len(self.consumers))]

    def kill(self, child: Consumer) -> None:
        """Kill a consumer; the supervisor notices that, and knows the job that it ran."""
        token, number = 0, 0
        if child.executing is not None:
            token, delivery, index = child.executing
            number = delivery.first + index
            self.world.crashed[f"{delivery.origin}-{number}"] += 1
        self.reports.append(c.Lost(child.name, ERROR, token, number))
        self.world.hit(child)
        child.alive = False
        child.give_up_line()


class Plain(Peer):
    """A stock client that gets and acknowledges; its jobs go back when its connection ends."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.delivery: r.Delivery | None = None

    def hello(self) -> None:
        return None

    def hands(self) -> Iterable[str]:
        return () if self.delivery is None else (f"{self.delivery.origin}-{self.delivery.first}",)

    def act(self) -> list[c.Command]:
        if self.delivery is None:
            return [c.Lease(1, 2.0)]
        job = f"{self.delivery.origin}-{self.delivery.first}"
        self.world.began(job)
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
