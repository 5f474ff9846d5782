"""The workers of a simulation: supervisors and their consumers."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import ErrorInfo
from svc.domain.names import LARGE
from tests.support.simulated_peer import Peer

if TYPE_CHECKING:
    from tests.support.simulation import World

ERROR = ErrorInfo("ValueError", "no")
RETRIES = 4
ACCEPT = ["plain", LARGE]
#: What a consumer reports of a job: its outcome, after the pieces of a large result.
Report = c.Ack | c.Nack | c.StoreResultPiece | c.Release
#: The token of a job, the lease that it came with, and its place in that.
Job = tuple[int, r.Delivery, int]


def has_large_result(job: str) -> bool:
    """Return whether the result of a job is stored in pieces."""
    name, _, number = job.rpartition("-")
    return name == "large" and int(number) % 5 > 0


class Consumer(Peer):
    """Runs jobs one after the other; the hello of a new line names the jobs that it holds.

    A job may give partial results, all of which are recorded before its result is reported.
    """

    #: The run time that it reports.
    SECONDS = 0.1

    def __init__(self, world: World, name: str, supervisor: Supervisor) -> None:
        super().__init__(world, name)
        self.supervisor = supervisor
        self.jobs: deque[Job] = deque()
        self.executing: Job | None = None
        self.outcomes: list[Report] = []
        self.unconfirmed: list[Report] = []
        #: Outcomes that the manager has received and may not have recorded.
        self.unrecorded: list[Report] = []
        self.origins: dict[int, str] = {}
        #: What identifies the execution that goes on.
        self.execution = b""
        #: Its partial results, how many of them are recorded, and whether one was refused: then it fails.
        self.given: list[bytes] = []
        self.recorded = 0
        self.superseded = False
        self.__post_init__()

    def __post_init__(self) -> None:
        """Begin what a subclass has."""

    @property
    def reads_ahead(self) -> bool:
        """Whether there are jobs behind the one that runs."""
        return bool(self.jobs)

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing to run or to report."""
        return self.executing is None and not (self.jobs or self.outcomes)

    def taken_back(self, running: int) -> tuple[int, bool]:
        """Lose the jobs behind the one that runs, whose token is given.

        Return the last lease among them, and whether others may be on their way.
        """
        last = self.jobs[-1][0] if self.jobs else running
        self.jobs.clear()
        return last, False

    def claim(self) -> c.ClaimedJob | None:
        """Return the job that it executes, which its supervisor sees, unless others come behind it."""
        if self.executing is None or self.reads_ahead:
            return None
        token, delivery, index = self.executing
        return c.ClaimedJob(self.name, token, delivery.origin, delivery.first + index)

    def hello(self) -> c.Hello:
        return c.Hello(
            1,
            "consumer",
            self.name,
            self.supervisor.worker,
            tasks=["m:f"],
            queues=self.supervisor.queues,
            held=self._held(),
            accept=ACCEPT,
        )

    def again(self) -> Sequence[c.Command]:
        return self.unrecorded

    @property
    def job(self) -> str:
        """The job that runs, or ran last."""
        return self.execution.decode().rpartition("/")[0]

    def hands(self) -> Iterable[tuple[int, str]]:
        return [
            (held.token, f"{held.origin}-{held.first + i}")
            for held in self._held()
            for i in range(held.count)
        ]

    def unread(self) -> Iterable[tuple[int, str]]:
        """Return the jobs in grants that have arrived, each with its token."""
        arrived = self.line.to_peer if self.line is not None else ()
        grants = [each for _, replies in arrived for each in replies if isinstance(each, r.Grant)]
        return [
            (delivery.token, f"{delivery.origin}-{delivery.first + i}")
            for grant in grants
            for delivery in grant.deliveries
            for i in range(len(delivery.bodies))
        ]

    def step(self) -> None:
        if self.executing is not None:
            if self.reads_ahead and self.world.rng.random() < 0.05:
                self.supervisor.take_back(self)
            chance = self.world.rng.random()
            sends = self.pending is not None or self.recorded < len(self.given)
            if chance < 0.2 and (self.superseded or not sends):
                self._finish(*self.executing)
            elif chance < 0.3 and not self.superseded:
                self.given.append(b"%s/%d" % (self.execution, len(self.given)))
            elif sends and not self.superseded:
                super().step()
        elif self.jobs and self.world.rng.random() < 0.7:
            self.executing = self.jobs.popleft()
            job = self._id(self.executing)
            self.world.began(self.executing[0], job)
            self.execution = self.world.execution(job)
            self.given, self.recorded, self.superseded = [], 0, False
            if job in self.world.poison:
                self.world.kill_worker(self.supervisor)
        else:
            super().step()

    def act(self) -> list[c.Command]:
        if self.executing is not None:
            token, delivery, index = self.executing
            first = self.world.rng.randint(0, self.recorded)
            return [c.Yield(token, delivery.first + index, first, self.given[first:])]
        if self.jobs:
            return []
        self.unconfirmed, self.outcomes = self.outcomes, []
        limit = self.world.rng.randint(1, 4)
        return [*self.unconfirmed, self.lease(limit)]

    def lease(self, limit: int) -> c.Lease:
        """Return a request for some jobs."""
        return c.Lease(limit, 2.0, early=self.world.rng.random() < 0.7)

    def answered(self, commands: Sequence[c.Command], replies: Sequence[r.Reply]) -> None:
        sent = commands[0]
        if isinstance(sent, c.Yield):
            self.superseded = isinstance(replies[0], r.Refused)
            self.recorded = sent.first + len(sent.values)
            return
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
            self.jobs.extend(self._taken_from(grant))

    def _taken_from(self, grant: r.Grant) -> list[Job]:
        for delivery in grant.deliveries:
            self.origins[delivery.token] = delivery.origin
        return [(each.token, each, i) for each in grant.deliveries for i in range(len(each.bodies))]

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
        if self.world.rng.random() < 0.85 and not self.superseded:
            self.world.results[job].add(self.execution)
            self.world.given[self.execution] = self.given
            large, result = has_large_result(job), self.execution
            if large:
                self.outcomes += [
                    c.StoreResultPiece(token, number, len(result), at, result[at : at + 1])
                    for at in range(len(result))
                ]
            self.outcomes.append(c.Ack(token, number, [result], [self.SECONDS], [number] if large else []))
        else:
            failures = delivery.failures + 1
            retry_in = None if failures > RETRIES else self.world.rng.choice([0.0, 0.5, None])
            self.world.failed(job)
            self.outcomes.append(c.Nack(token, number, ERROR, retry_in))

    def _id(self, job: Job) -> str:
        return f"{job[1].origin}-{job[1].first + job[2]}"

    def _held(self) -> list[c.Held]:
        numbers: defaultdict[int, list[int]] = defaultdict(list)
        for token, delivery, index in self._all():
            numbers[token].append(delivery.first + index)
        for settlement in self._reports():
            if isinstance(settlement, c.StoreResultPiece | c.Release):
                continue
            number = settlement.first if isinstance(settlement, c.Ack) else settlement.number
            numbers[settlement.token].append(number)
        return [c.Held(t, self.origins[t], min(some), len(some)) for t, some in numbers.items()]

    def _reports(self) -> list[Report]:
        return [*self.unrecorded, *self.unconfirmed, *self.outcomes]

    def _all(self) -> list[Job]:
        return [*([self.executing] if self.executing else []), *self.jobs]


class Supervisor(Peer):
    """Renews the leases of its consumers, reports dead ones and replaces them."""

    def __init__(self, world: World, worker: str, size: int, queues: list[str]) -> None:
        super().__init__(world, f"{worker}-0")
        self.queues = queues
        self.worker = worker
        self.size = size
        self.born = 0
        self.consumers: list[Consumer] = []
        self.reports: list[c.Lost | c.Recall] = []
        #: Orders to take jobs back that it has not obeyed yet.
        self.orders: list[r.TakeBack] = []
        self.next_renewal = 0.0
        #: Whether its renewal waits at the manager.
        self.waits = False
        #: The consumers that the newest renewal names.
        self.naming: list[Consumer] = []
        #: Those that the newest one named that was answered over this line; None if there was none.
        self.named: list[Consumer] | None = None

    def hello(self) -> c.Hello:
        self.next_renewal, self.named, self.waits = 0.0, None, False
        return c.Hello(1, "worker", self.name, self.worker)

    def step(self) -> None:
        if self.orders and self.world.rng.random() < 0.5:
            self._obey(self.orders.pop())
        elif self.waits and self.reports and self.line is not None:
            # The end of its wait brings recalls along, which it reports again.
            self.waits = False
            recalls = [each for each in self.reports if isinstance(each, c.Recall)]
            self.line.to_manager.append((-2, [c.Wake(), *recalls]))
        else:
            super().step()

    def act(self) -> list[c.Command]:
        self.consumers = [each for each in self.consumers if each.alive]
        if len(self.consumers) < self.size and not self.world.draining:
            self.born += 1
            child = self.world.consumer(self.world, f"{self.worker}-{self.born}", self)
            self.consumers.append(child)
            self.world.peers.append(child)
        now = self.world.clock.now()
        if not self.reports and now < self.next_renewal:
            return []
        self.next_renewal = now + 3.0
        reports, self.reports = self.reports, []
        self.naming = list(self.consumers)
        names = [each.name for each in self.naming]
        claims = [claim for each in self.naming if (claim := each.claim()) is not None]
        self.waits = not reports
        renewal = c.Extend(
            busy=len(names),
            consumers=names,
            told=True,
            wait=2.0 if self.waits else 0.0,
            claims=claims,
            takes_back=True,
        )
        return [*reports, renewal]

    def answered(self, commands: Sequence[c.Command], replies: Sequence[r.Reply]) -> None:
        self.named, self.waits = self.naming, False
        for reply in replies:
            if isinstance(reply, r.Extended):
                # Each may be obeyed late; some are lost, and some obeyed twice.
                self.orders += [each for each in reply.take_back for _ in range(self.world.rng.randint(0, 2))]

    def _obey(self, order: r.TakeBack) -> None:
        """Take back the jobs of a consumer, if it runs another one that it was granted before the order."""
        for child in self.consumers:
            running = child.executing
            if child.name == order.consumer and running is not None and running[0] <= order.last:
                self.world.ordered += child.reads_ahead
                self.take_back(child)

    def take_back(self, child: Consumer) -> None:
        """Take back the jobs behind the one that a consumer runs, in the memory that both share."""
        if child.executing is not None:
            token, delivery, index = child.executing
            self.world.recalled += len(child.jobs)
            last, unread = child.taken_back(token)
            self.reports.append(c.Recall(child.name, token, delivery.first + index, last, unread))

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
