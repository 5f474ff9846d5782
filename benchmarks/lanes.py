"""The manager's processor time for a grant of one job, by the number of lanes: queues, tasks and priorities.

The manager's host runs in this process, so that only its processor time for a grant is measured. The hosts
with few and with many lanes take turns, so that other load on the machine strikes all of them alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.domain import replies as r
from svc.domain.commands import Command, Extend, Hello, Lease, Submit
from svc.domain.job import NewChunk, Terms
from svc.domain.members import Member
from svc.wire import PROTOCOL_VERSION

#: The numbers of lanes to measure, up to the extent's number; the others are compared with the first.
COUNTS = (10, 1_000, 10_000, 100_000)
#: How many times each host has its turn, and how many grants, of one job each, are timed in it.
_TURNS = 20
_GRANTS = 50
#: Chunks of one submit.
_CALL = 1_000

#: The property that differs between the lanes, and a function from a lane's number to the terms of its jobs.
_KINDS: dict[str, Callable[[int], Terms]] = {
    "priorities": lambda number: Terms("m:f", priority=number),
    "tasks": lambda number: Terms(f"m:f{number}"),
    "queues": lambda number: Terms("m:f", queue=f"q{number}"),
}


@dataclass(frozen=True)
class Grants:
    """The figures of one run.

    Attributes:
        kind: the property that differs between the lanes.
        lanes: the number of lanes.
        seconds: processor time of the manager for each grant of one job.
    """

    kind: str
    lanes: int
    seconds: float


class _Bench:
    """A host whose jobs stand in a number of lanes, and a consumer of all of them."""

    def __init__(self, lanes: list[Terms]) -> None:
        self.seconds: list[float] = []
        self._host, self._consumer = QueueHost(MemoryJournal()), Member()
        _fill(self._host, lanes)
        queues, tasks = {each.queue for each in lanes}, {each.task for each in lanes}
        hello = Hello(PROTOCOL_VERSION, "consumer", "c", "w", tasks=sorted(tasks), queues=sorted(queues))
        _ask(self._host, self._consumer, hello)
        _ask(self._host, self._consumer, Lease(1))  # the first lease builds the index

    def run(self) -> None:
        """Time some grants."""
        _ask(self._host, self._consumer, Extend())  # the lease of its worker goes on
        started = time.process_time()
        grants = [_ask(self._host, self._consumer, Lease(1)) for _ in range(_GRANTS)]
        self.seconds.append((time.process_time() - started) / _GRANTS)
        if not all(isinstance(grant, r.Grant) and grant.deliveries for grant in grants):
            raise RuntimeError(f"a lease gave no job: {grants[-1]}")


def measure(most: int) -> Iterator[Grants]:
    """Yield the figures for each number of lanes up to *most*, for each kind of lanes."""
    for kind, terms in _KINDS.items():
        counts = [count for count in COUNTS if count <= most]
        benches = [_Bench([terms(number) for number in range(count)]) for count in counts]
        for _ in range(_TURNS):
            for bench in benches:
                bench.run()
        for count, bench in zip(counts, benches, strict=True):
            yield Grants(kind, count, statistics.median(bench.seconds))


def _fill(host: QueueHost, lanes: list[Terms]) -> None:
    """Submit jobs to the lanes in turn: one for each lane, and as many as will be leased."""
    client = Member()
    count = len(lanes) + _TURNS * _GRANTS + 1
    for first in range(0, count, _CALL):
        numbers = range(first, min(count, first + _CALL))
        chunks = [NewChunk(number, lanes[number % len(lanes)], [b"\x92\x90\x80"]) for number in numbers]
        _ask(host, client, Submit("o", chunks))


def _ask(host: QueueHost, member: Member, command: Command) -> r.Reply:
    """Return the answer. The index of very many lanes is made over several turns; a lease waits for it."""
    answers: list[list[r.Reply]] = []
    host.call([command], member, answers.append)
    while not answers:
        host.turn()
    return answers[0][0]
