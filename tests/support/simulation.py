"""A service in one thread without clock, network and chance: a seed decides everything.

The queue host and its journal are the real ones. Around them clients, supervisors, consumers and plain
clients exchange frames over lines. A scheduler delays and cuts these lines, and reports their end late;
processes are killed, the manager too; the time jumps. A line is FIFO like TCP, but frames of a line that its
peer has given up may still arrive after those of the next line. At the end all faults stop, and the promises
are checked.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace

from svc.broker.host import QueueHost
from svc.domain import commands as c
from svc.domain.apply import apply
from svc.domain.job import DEFAULT_QUEUE, NewChunk, Outcome, Terms
from svc.domain.limits import Limits
from svc.domain.members import LeaseRecord, Member
from svc.domain.replies import Piece, StreamPart
from tests.support.clock import FakeClock
from tests.support.simulated_clients import PUT_QUEUE, Client, LargeClient, Plain, Putter, Reader, Taker
from tests.support.simulated_journals import Journals, MemoryJournals
from tests.support.simulated_peer import Line, Peer, Violation, jobs_of
from tests.support.simulated_restarts import Restarts
from tests.support.simulated_workers import Consumer, Supervisor, has_large_result
from tests.support.state_checks import check_journal, check_state

LIMITS = Limits(
    window_bytes=400, merge_seconds=0.5, reconnect_seconds=1.0, piece_bytes=1, unclaimed_seconds=20.0
)
#: Waiting jobs of one queue in a world with stock clients that put: they have more, the others fewer.
QUEUE_JOBS = 10
PUTS = 15


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
        large: bool = False,
        calm: bool = False,
        puts: bool = False,
        consumer: type[Consumer] = Consumer,
        journals: Journals | None = None,
    ) -> None:
        """Begin; in a *calm* world faults are a tenth as frequent, and most of them restart the manager."""
        self.seed, self.rng = seed, random.Random(seed)
        self.putters: list[Putter] = []
        #: The most puts that have waited at once.
        self.puts_waited = 0
        self.clock = FakeClock()
        self.make_host = host
        self.calm = calm
        # Whoever lives has time to come back.
        self.limits = replace(LIMITS, reconnect_seconds=3.0) if calm else LIMITS
        if puts:
            self.limits = replace(self.limits, max_queue_jobs=QUEUE_JOBS)
        self.journals = journals or MemoryJournals()
        self.journal = self.journals.new(self.rng)
        self.host = self.new_host()
        self.lines: list[Line] = []
        self.peers: list[Peer] = []
        self.supervisors: list[Supervisor] = []
        self.draining = False
        self.restarts = Restarts(self)
        self.workers_born = 0
        #: Jobs that were taken back from a consumer that ran another one, and orders to do that.
        self.recalled = self.ordered = 0
        self.consumer = consumer
        #: Requests that were sent while a job ran, and grants that were read while one did.
        self.asked = self.behind = 0
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
        #: How often a fault met a job, and how many of its executions may be followed by another one for it.
        self.hits: Counter[str] = Counter()
        self.repeatable: Counter[str] = Counter()
        #: The tokens that a fault met: an execution that begins under one of them later may be repeated, too.
        self.met: set[int] = set()
        #: The partial results of the executions that came to their end, by their result.
        self.given: dict[bytes, list[bytes]] = {}
        self.values_read = self.streams_restarted = 0
        self.results: defaultdict[str, set[bytes]] = defaultdict(set)
        self.values_lost = 0  # large arguments, before their job was submitted
        self._people(jobs, plain=plain)
        if large:
            self._add_large(jobs // 4)
        if puts:
            self.putters = [Putter(self, name, PUTS) for name in ("p", "q")]
            self.peers += [*self.putters, Taker(self, "taker")]

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
        finally:
            self.journals.close()

    def _people(self, jobs: int, *, plain: bool) -> None:
        for name in ("a", "b"):
            chunks, first = [], 0
            queue = "mail" if name == "b" and not self.poison else DEFAULT_QUEUE
            while first < jobs // 2:
                count = self.rng.randint(1, 5)
                terms = Terms("m:f", queue, priority=self.rng.choice([0, 0, 1]))
                bodies = [b"body%d" % number for number in range(first, first + count)]
                chunks.append(NewChunk(first, terms, bodies, self.rng.choice([0.0, 0.0, 1.0])))
                self.submitted.update(f"{name}-{number}" for number in range(first, first + count))
                first += count
            self.peers.append(Client(self, name, chunks))
        self.peers.append(Reader(self, "reader"))
        if plain:
            self.peers.append(Plain(self, "plain"))
        for queues in ([DEFAULT_QUEUE, "mail"], [DEFAULT_QUEUE]):
            self._hire(queues)

    def _add_large(self, jobs: int) -> None:
        """Add a client whose jobs have a large argument each, and mostly a large result."""
        self.peers.append(LargeClient(self, "large", jobs))
        self.submitted.update(f"large-{number}" for number in range(jobs))

    def _hire(self, queues: list[str]) -> None:
        self.workers_born += 1
        supervisor = Supervisor(self, f"w{self.workers_born}", 2, queues)
        self.supervisors.append(supervisor)
        self.peers.append(supervisor)

    def _step(self, *, faults: bool) -> None:
        chance = self.rng.random()
        if faults and chance < (0.004 if self.calm else 0.04):
            self.rng.choice(self._faults())()
        elif faults and self.draining and chance > 0.97:
            self._turn_drain()
        elif chance < 0.40:
            peer = self.rng.choice(self.peers)
            if not self.restarts.is_away(peer):
                peer.step()
            self.peers = [peer for peer in self.peers if peer.alive]
        elif chance < 0.75:
            self._carry()
        elif chance < 0.80:
            self.host.hand_out()
        elif chance < 0.90:
            self.host.turn()
            self.restarts.check()
            self.journals.go_on()
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
        self.restarts.give_up()

    def _hit_expired(self) -> None:
        for worker in self.host.state.workers.values():
            if self.clock.now() >= worker.expires:
                for member in worker.consumers.values():
                    self._hit_leases(member.leases.values())

    # --- faults -------------------------------------------------------------------------------------

    def _faults(self) -> list[Callable[[], None]]:
        kills = [self.restarts.kill, self.restarts.kill_in_commit]
        if self.calm:
            return [*kills, *kills, self._cut, self._kill_consumer, self._kill_worker]
        kills += [self._kill_consumer, self._kill_consumer, self._kill_worker]
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
        """Let all processes of a worker die at once; another one comes for it."""
        for peer in [*(each for each in supervisor.consumers if each.alive), supervisor]:
            self.hit(peer)
            peer.alive = False
            peer.give_up_line()
        self.peers = [peer for peer in self.peers if peer.alive]
        self.supervisors.remove(supervisor)
        self._hire(supervisor.queues)

    def _leap(self) -> None:
        self._pass(self.rng.choice([1.0, 16.0]))

    def _stall(self) -> None:
        """Stop the manager for longer than a lease: no member loses a lease by that alone."""
        seconds = 16.0
        self.clock.advance(seconds)
        self.host.pause(seconds)
        self._hit_expired()
        self.restarts.give_up()

    def _turn_drain(self) -> None:
        self._order(c.Resume() if self.draining else c.Drain())
        self.draining = not self.draining

    def _order(self, command: c.Command) -> None:
        """Give an order like an operator."""
        self.host.call([command], Member(), lambda replies: None)
        self.host.turn()

    def new_host(self) -> QueueHost:
        return self.make_host(self.journal, clock=self.clock, limits=self.limits)

    def stream(self, job: str) -> StreamPart:
        """Return the stream of a job from its beginning on."""
        part = apply(self.host.state, c.ReadStream(job), Member(), self.clock.now())
        if not isinstance(part, StreamPart):
            raise Violation(f"the stream of {job} cannot be read: {part}")
        return part

    # --- records ------------------------------------------------------------------------------------

    def open(self) -> Line:
        line = Line()
        self.host.state.arrived(line.member)
        self.lines.append(line)
        return line

    def began(self, token: int, job: str) -> None:
        self.executions[job] += 1
        self.repeatable[job] += token in self.met
        self.restarts.beyond += bool(self.host.state.absentees)

    def failed(self, job: str) -> None:
        self.failures[job] += 1
        self._meet(job)

    def result(self, job: str) -> bytes:
        """Return a result that identifies its execution."""
        result = self.execution(job)
        self.results[job].add(result)
        return result

    def execution(self, job: str) -> bytes:
        """Return what identifies the last execution of a job."""
        return f"{job}/{self.executions[job]}".encode()

    def check_stream(self, job: str, seen: list[bytes]) -> None:
        """Check partial results that were read under one token: a prefix of what one execution gave.

        Raises:
            Violation: they are not.
        """
        execution = seen[0].rpartition(b"/")[0] if seen else b""
        if seen != [b"%s/%d" % (execution, place) for place in range(len(seen))]:
            raise Violation(f"{job} has a stream that no execution gave: {seen}")

    def hit(self, peer: Peer) -> None:
        """Note the jobs that may run once more because of a fault: those that *peer* holds."""
        held = set(peer.hands())
        for lease in self.host.state.leases.values():
            mine = peer.line is not None and lease.holder is peer.line.member
            if mine or (isinstance(peer, Consumer) and lease.holder.name == peer.name):
                held.update(jobs_of(lease))
        self.meet(held)

    def meet(self, held: Iterable[tuple[int, str]]) -> None:
        """Note that a fault meets jobs, each under a token."""
        for token, job in sorted(set(held)):
            self.met.add(token)
            self._meet(job)

    def _meet(self, job: str) -> None:
        self.hits[job] += 1
        self.repeatable[job] = min(self.repeatable[job] + 1, self.executions[job])

    def _hit_leases(self, leases: Iterable[LeaseRecord]) -> None:
        self.meet(held for lease in leases for held in jobs_of(lease))

    # --- the end ------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Let all jobs finish."""
        self.journals.end_faults()
        self._order(c.Resume())
        self.draining = False
        for _ in range(400):
            if self.submitted <= self.seen.keys() and all(each.accepted == PUTS for each in self.putters):
                return
            for _ in range(100):
                self._step(faults=False)
            self._pass(0.3)
        missing = sorted(self.submitted - self.seen.keys())
        states = [(job, self.state_of(job)) for job in missing]
        raise Violation(f"these never had an outcome: {states}")

    def state_of(self, job: str) -> str:
        place = self.host.state.ledger.find(job)
        return "unknown" if place is None else place[0].state(place[1]).word

    def _check(self) -> None:
        self.host.turn()
        self.host.settle()
        check_state(self.host.state)
        check_journal(self.host.state, self.journal)
        chunks = self.host.state.ledger.chunks.values()
        put = sum(chunk.known for chunk in chunks if chunk.terms.queue == PUT_QUEUE)
        if put != PUTS * len(self.putters):
            raise Violation(f"{PUTS * len(self.putters)} jobs were put, and there are {put}")
        if self.seen.keys() - self.submitted:
            raise Violation("an outcome of a job that nobody submitted")
        for job in sorted(self.submitted):
            self._check_job(job)

    def _check_large(self, outcome: Outcome) -> None:
        """Read the large result of a job, and see that it is that of the execution which was recorded."""
        asked = [c.FetchResult(outcome.id, at) for at in range(len(outcome.result))]
        replies = [apply(self.host.state, each, Member(), self.clock.now()) for each in asked]
        found = b"".join(reply.data for reply in replies if isinstance(reply, Piece))
        if found != outcome.result:
            raise Violation(f"{outcome.id} has the large result {found!r}, not {outcome.result!r}")

    def _check_job(self, job: str) -> None:
        outcomes = self.seen[job]
        if len(outcomes) != 1:
            raise Violation(f"{job} has {len(outcomes)} outcomes: {outcomes}")
        (outcome,) = outcomes
        if outcome.state.word == "succeeded" and outcome.result not in self.results[job]:
            raise Violation(f"{job} has a result that no execution gave: {outcome.result!r}")
        if outcome.state.word == "succeeded" and has_large_result(job):
            self._check_large(outcome)
        stream = self.stream(job)
        self.check_stream(job, stream.values)
        if outcome.state.word == "succeeded" and stream.values != self.given.get(outcome.result, []):
            raise Violation(f"{job} succeeded with {outcome.result!r} and has the stream {stream.values}")
        if outcome.state.word != self.state_of(job):
            raise Violation(f"{job} ended as {outcome.state.word} and is now {self.state_of(job)}")
        if self.executions[job] > 1 + self.repeatable[job]:
            raise Violation(f"{job} ran {self.executions[job]} times, {self.repeatable[job]} of them in vain")
        place = self.host.state.ledger.find(job)
        record = place[0].records.get(place[1]) if place is not None else None
        if record is None:
            return
        charged = (record.failures, record.crashes, record.interruptions)
        allowed = (self.failures[job], self.crashed[job], self.hits[job])
        if any(is_charged > may_be for is_charged, may_be in zip(charged, allowed, strict=True)):
            raise Violation(f"{job} is charged {charged} where only {allowed} happened to it")
