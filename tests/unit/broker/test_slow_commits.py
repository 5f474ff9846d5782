"""While a commit lasts, the manager answers nobody: consumers read ahead for the usual time of one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from svc.broker.host import QueueHost
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.events import AnyEvent
from svc.domain.job import NewChunk, Terms
from svc.domain.members import Member
from svc.wire import PROTOCOL_VERSION
from tests.support.clock import FakeClock
from tests.support.hosts import CountingJournal, ask

RUN = 0.01
AHEAD = 0.022


class SlowJournal(CountingJournal):
    """Takes some seconds for each commit."""

    def __init__(self, clock: FakeClock, seconds: float) -> None:
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def append(self, records: Sequence[tuple[int, AnyEvent]], forget: Sequence[int] = ()) -> None:
        super().append(records, forget)
        self.clock.advance(self.seconds)


class Service:
    """A queue whose commits take some seconds, and a consumer of jobs that take `RUN`."""

    def __init__(self, commit: float) -> None:
        self.clock = FakeClock()
        self.host = QueueHost(SlowJournal(self.clock, commit), clock=self.clock)
        self.consumer = Member()
        ask(self.host, Member(), c.Hello(PROTOCOL_VERSION, "worker", "w-0", "w"))
        ask(self.host, self.consumer, c.Hello(PROTOCOL_VERSION, "consumer", "w-1", "w", tasks=["m:f"]))
        for _ in range(50):
            self.host.state.run_times.ran("m:f", 100, 100 * RUN)
        for first in range(0, 5000, 100):  # the mean of so many commits is the usual time of one
            self.submit(first, 100)

    def submit(self, first: int, count: int) -> None:
        ask(self.host, Member(), c.Submit("o", [NewChunk(first, Terms("m:f"), [b""] * count)]))

    def granted(self) -> int:
        """Ask for jobs, also behind those that run; return how many come at once."""
        answers = ask(self.host, self.consumer, c.Lease(256, 0.0, AHEAD, running=True))
        (grant,) = answers[0]
        assert isinstance(grant, r.Grant)
        return sum(len(each.bodies) for each in grant.deliveries)


@pytest.mark.parametrize(("commit", "jobs"), [(0.0, 2), (0.005, 2), (0.02, 6), (0.05, 15)])
def test_a_grant_lasts_for_three_commits_if_these_take_long(commit: float, jobs: int):
    assert Service(commit).granted() == pytest.approx(jobs, abs=1 if commit else 0)


@pytest.mark.parametrize(("commit", "jobs"), [(0.0, False), (0.02, True)])
def test_the_next_jobs_are_granted_two_commits_sooner(commit: float, jobs: bool):
    service = Service(commit)
    held = service.granted()
    service.clock.advance(held * RUN - 0.03)
    assert bool(service.granted()) is jobs
