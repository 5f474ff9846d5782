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
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.domain import commands as c
from svc.domain.job import NewChunk, Outcome, Terms
from svc.domain.limits import Limits
from svc.domain.members import LeaseRecord, Member
from svc.errors import JournalError
from tests.support.clock import FakeClock
from tests.support.journals import reopened
from tests.support.simulated_peers import Client, Consumer, Line, Peer, Plain, Supervisor, Violation
from tests.support.state_checks import check_journal, check_state

LIMITS = Limits(window_bytes=400, merge_seconds=0.5, reconnect_seconds=1.0)


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
        self.journal = reopened(self.journal)
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
