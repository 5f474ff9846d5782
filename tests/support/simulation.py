"""A service in one thread without clock, network and chance: a seed decides everything.

The queue host and its journal are the real ones. Around them clients, supervisors, consumers and plain
clients exchange frames over lines. A scheduler delays and cuts these lines, and reports their end late;
processes are killed, the manager too; the time jumps. A line is FIFO like TCP, but frames of a line that its
peer has given up may still arrive after those of the next line. At the end all faults stop, and the promises
are checked.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence

from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import ErrorInfo, NewChunk, Outcome, Terms
from svc.domain.limits import Limits
from svc.domain.members import LeaseRecord, Member
from svc.errors import JournalError
from tests.support.clock import FakeClock
from tests.support.ledgers import check_journal, check_state

ERROR = ErrorInfo("ValueError", "no")
LIMITS = Limits(window_bytes=400, merge_seconds=0.5, reconnect_seconds=1.0)
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


class World:
    """All peers and the manager, and the scheduler."""

    def __init__(
        self,
        seed: int,
        host: type[QueueHost] = QueueHost,
        jobs: int = 40,
        poison: Iterable[str] = (),
        *,
        plain: bool = True,
    ) -> None:
        self.rng = random.Random(seed)
        self.clock = FakeClock()
        self.make_host = host
        self.journal = MemoryJournal()
        self.host = self._new_host()
        self.lines: list[Line] = []
        self.peers: list[Peer] = []
        self.supervisors: list[Supervisor] = []
        self.draining = False
        self.workers_born = 0
        #: Grants that came before the outcomes in their request were recorded.
        self.early = 0
        #: Jobs that end the worker that runs one of them.
        self.poison = frozenset(poison)
        self.submitted: set[str] = set()
        self.accepted: set[str] = set()
        self.seen: defaultdict[str, list[Outcome]] = defaultdict(list)
        self.executions: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.crashed: Counter[str] = Counter()
        self.hits: Counter[str] = Counter()
        self.results: defaultdict[str, set[bytes]] = defaultdict(set)
        self._people(jobs, plain=plain)

    # --- the course ---------------------------------------------------------------------------------

    def run(self, steps: int = 900) -> None:
        """Run *steps* with faults, let everything finish, and check.

        Raises:
            Violation: a promise was broken.
        """
        try:
            for _ in range(steps):
                self._step(faults=True)
            self._settle()
            self._check()
        except Violation:
            raise
        except Exception as error:
            raise Violation(f"the queue broke: {type(error).__name__}: {error}") from error

    def _people(self, jobs: int, *, plain: bool) -> None:
        for name in ("a", "b"):
            chunks, first = [], 0
            while first < jobs // 2:
                count = self.rng.randint(1, 5)
                terms = Terms("m:f", priority=self.rng.choice([0, 0, 1]))
                bodies = [b"body%d" % number for number in range(first, first + count)]
                chunks.append(NewChunk(first, terms, bodies, self.rng.choice([0.0, 0.0, 1.0])))
                self.submitted.update(f"{name}-{number}" for number in range(first, first + count))
                first += count
            self.peers.append(Client(self, name, chunks))
        if plain:
            self.peers.append(Plain(self, "plain"))
        for _ in range(2):
            self._hire()

    def _hire(self) -> None:
        self.workers_born += 1
        supervisor = Supervisor(self, f"w{self.workers_born}", 2)
        self.supervisors.append(supervisor)
        self.peers.append(supervisor)

    def _step(self, *, faults: bool) -> None:
        chance = self.rng.random()
        if faults and chance < 0.04:
            self.rng.choice(self._faults())()
        elif faults and self.draining and chance > 0.97:
            self._turn_drain()
        elif chance < 0.40:
            self.rng.choice(self.peers).step()
            self.peers = [peer for peer in self.peers if peer.alive]
        elif chance < 0.75:
            self._carry()
        elif chance < 0.80:
            self.host.hand_out()
        elif chance < 0.90:
            self.host.turn()
        else:
            self._pass(self.rng.choice([0.01, 0.05, 0.2]))

    def _carry(self) -> None:
        """Let the manager read one frame, or the end, of a random line."""
        if not self.lines:
            return
        line = self.rng.choice(self.lines)
        if line.to_manager:
            request, commands = line.to_manager.popleft()
            if line.given_up and isinstance(commands[0], c.Hello):
                # A late hello, after that of a newer line, takes the consumer's leases over, and back.
                leases = self.host.state.leases.values()
                self._hit_leases([each for each in leases if each.holder.name == commands[0].name])
            self.host.call(commands, line.member, line.deliver(request))
        elif line.given_up:
            self.lines.remove(line)
            # Grants after the peer had gone count too: the manager cannot know that they never arrived.
            self._hit_leases(line.member.leases.values())
            self.host.disconnected(line.member)

    def _pass(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self._hit_expired()

    def _hit_expired(self) -> None:
        for worker in self.host.state.workers.values():
            if self.clock.now() >= worker.expires:
                for member in worker.consumers.values():
                    self._hit_leases(member.leases.values())

    # --- faults -------------------------------------------------------------------------------------

    def _faults(self) -> list[Callable[[], None]]:
        kills = [self._kill_consumer, self._kill_consumer, self._kill_worker]
        kills += [self._restart, self._break_in_commit]
        return [*kills, self._cut, self._cut, self._leap, self._stall, self._turn_drain]

    def _cut(self) -> None:
        peer = self.rng.choice(self.peers)
        self.hit(peer)
        peer.give_up_line()

    def _kill_consumer(self) -> None:
        consumers = [each for each in self.peers if isinstance(each, Consumer)]
        if consumers:
            child = self.rng.choice([each for each in consumers if each.executing] or consumers)
            child.supervisor.kill(child)
            self.peers.remove(child)

    def _kill_worker(self) -> None:
        self.kill_worker(self.rng.choice(self.supervisors))

    def kill_worker(self, supervisor: Supervisor) -> None:
        """Let all processes of a worker die at once; another worker comes for it."""
        for peer in [*(each for each in supervisor.consumers if each.alive), supervisor]:
            self.hit(peer)
            peer.alive = False
            peer.give_up_line()
        self.peers = [peer for peer in self.peers if peer.alive]
        self.supervisors.remove(supervisor)
        self._hire()

    def _restart(self) -> None:
        """Kill the manager: uncommitted changes are lost; messages on their way may arrive or not."""
        for peer in self.peers:
            self.hit(peer)
        self._hit_leases(self.host.state.leases.values())
        for line in self.lines:
            line.broken = True
            if self.rng.random() < 0.5:
                line.to_peer.clear()
        self.lines.clear()
        self.journal = self.journal.reopened()
        self.host = self._new_host()
        check_journal(self.host.state, self.journal)

    def _break_in_commit(self) -> None:
        """Kill the manager within a turn: its grants have been sent, the commit has not come."""

        def fail(records: object, forget: object = ()) -> None:
            raise JournalError("killed")

        setattr(self.journal, "append", fail)  # noqa: B010  # a method of this journal alone
        with contextlib.suppress(JournalError):
            self.host.turn()
        self._restart()

    def _leap(self) -> None:
        self._pass(self.rng.choice([1.0, 16.0]))

    def _stall(self) -> None:
        """Stop the manager for longer than a lease: no member loses a lease by that alone."""
        seconds = 16.0
        self.clock.advance(seconds)
        self.host.pause(seconds)
        self._hit_expired()

    def _turn_drain(self) -> None:
        self._order(c.Resume() if self.draining else c.Drain())
        self.draining = not self.draining

    def _order(self, command: c.Command) -> None:
        """Give an order like an operator."""
        self.host.call([command], Member(), lambda replies: None)
        self.host.turn()

    def _new_host(self) -> QueueHost:
        return self.make_host(self.journal, clock=self.clock, limits=LIMITS)

    # --- records ------------------------------------------------------------------------------------

    def open(self) -> Line:
        line = Line()
        self.host.state.arrived(line.member)
        self.lines.append(line)
        return line

    def began(self, job: str) -> None:
        self.executions[job] += 1

    def failed(self, job: str) -> None:
        self.failures[job] += 1
        self.hits[job] += 1

    def result(self, job: str) -> bytes:
        """Return a result that identifies its execution."""
        result = f"{job}/{self.executions[job]}".encode()
        self.results[job].add(result)
        return result

    def hit(self, peer: Peer) -> None:
        """Note the jobs that may run once more because of a fault: those that *peer* holds."""
        jobs = set(peer.hands())
        for lease in self.host.state.leases.values():
            mine = peer.line is not None and lease.holder is peer.line.member
            if mine or (isinstance(peer, Consumer) and lease.holder.name == peer.name):
                jobs.update(_jobs_of(lease))
        self.hits.update(jobs)

    def _hit_leases(self, leases: Iterable[LeaseRecord]) -> None:
        self.hits.update({job for lease in leases for job in _jobs_of(lease)})

    # --- the end ------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Let all jobs finish."""
        self._order(c.Resume())
        self.draining = False
        for _ in range(400):
            if self.submitted <= self.seen.keys():
                return
            for _ in range(100):
                self._step(faults=False)
            self._pass(0.3)
        missing = sorted(self.submitted - self.seen.keys())
        states = [(job, self._state(job)) for job in missing]
        raise Violation(f"these never had an outcome: {states}")

    def _state(self, job: str) -> str:
        place = self.host.state.ledger.find(job)
        return "unknown" if place is None else place[0].state(place[1]).word

    def _check(self) -> None:
        self.host.turn()
        check_state(self.host.state)
        check_journal(self.host.state, self.journal)
        if self.seen.keys() - self.submitted:
            raise Violation("an outcome of a job that nobody submitted")
        for job in sorted(self.submitted):
            self._check_job(job)

    def _check_job(self, job: str) -> None:
        outcomes = self.seen[job]
        if len(outcomes) != 1:
            raise Violation(f"{job} has {len(outcomes)} outcomes: {outcomes}")
        (outcome,) = outcomes
        if outcome.state.word == "succeeded" and outcome.result not in self.results[job]:
            raise Violation(f"{job} has a result that no execution gave: {outcome.result!r}")
        if outcome.state.word != self._state(job):
            raise Violation(f"{job} ended as {outcome.state.word} and is now {self._state(job)}")
        if self.executions[job] > 1 + self.hits[job]:
            raise Violation(f"{job} ran {self.executions[job]} times with {self.hits[job]} faults")
        place = self.host.state.ledger.find(job)
        record = place[0].records.get(place[1]) if place is not None else None
        if record is None:
            return
        charged = (record.failures, record.crashes, record.interruptions)
        allowed = (self.failures[job], self.crashed[job], self.hits[job])
        if any(is_charged > may_be for is_charged, may_be in zip(charged, allowed, strict=True)):
            raise Violation(f"{job} is charged {charged} where only {allowed} happened to it")


def _jobs_of(lease: LeaseRecord) -> list[str]:
    return [lease.chunk.id(index) for index in range(lease.start, lease.stop)]
