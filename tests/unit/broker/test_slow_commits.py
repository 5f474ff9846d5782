"""A grant may wait for a commit: consumers read ahead for the usual time of one.

While a journal on its own disk commits, the manager answers nobody. Other hosts confirm a commit later.
"""

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
from tests.support.memory_journals import HeldJournal

RUN = 0.01
AHEAD = 0.022


class SlowJournal(CountingJournal):
    """Takes some seconds for each commit."""

    def __init__(self, clock: FakeClock, seconds: float) -> None:
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def confirm(self) -> None:
        """Do nothing: each commit is durable at once."""

    def append(self, records: Sequence[tuple[int, AnyEvent]], forget: Sequence[int] = ()) -> None:
        super().append(records, forget)
        self.clock.advance(self.seconds)


class RemoteJournal(HeldJournal):
    """Has each commit confirmed by other hosts, which takes some seconds."""

    def __init__(self, clock: FakeClock, seconds: float) -> None:
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def confirm(self) -> None:
        """Let the time pass that the hosts take, and confirm all commits."""
        if not self.tickets[-1].settled():
            self.clock.advance(self.seconds)
        for ticket in self.tickets:
            ticket.confirm()


class Service:
    """A queue whose commits take some seconds, and a consumer of jobs that take `RUN`."""

    def __init__(self, kind: type[SlowJournal | RemoteJournal], commit: float) -> None:
        self.clock = FakeClock()
        self.journal = kind(self.clock, commit)
        self.host = QueueHost(self.journal, clock=self.clock)
        self.consumer = Member()
        self.ask(Member(), c.Hello(PROTOCOL_VERSION, "worker", "w-0", "w"))
        self.ask(self.consumer, c.Hello(PROTOCOL_VERSION, "consumer", "w-1", "w", tasks=["m:f"]))
        for _ in range(50):
            self.host.state.run_times.ran("m:f", 100, 100 * RUN)
        for first in range(0, 5000, 100):  # the mean of so many commits is the usual time of one
            self.ask(Member(), c.Submit("o", [NewChunk(first, Terms("m:f"), [b""] * 100)]))

    def ask(self, member: Member, command: c.Command) -> r.Reply:
        """Return the reply to *command*, which comes once all commits are confirmed."""
        answers = ask(self.host, member, command)
        self.journal.confirm()
        self.host.turn()
        (reply,) = answers[0]
        return reply

    def granted(self) -> int:
        """Ask for jobs, also behind those that run; return how many come at once."""
        grant = self.ask(self.consumer, c.Lease(256, 0.0, AHEAD, running=True))
        assert isinstance(grant, r.Grant)
        return sum(len(each.bodies) for each in grant.deliveries)


@pytest.mark.parametrize("kind", [SlowJournal, RemoteJournal])
@pytest.mark.parametrize(("commit", "jobs"), [(0.0, 2), (0.005, 2), (0.02, 6), (0.05, 15)])
def test_a_grant_lasts_for_three_commits_if_these_take_long(
    kind: type[SlowJournal | RemoteJournal], commit: float, jobs: int
):
    assert Service(kind, commit).granted() == pytest.approx(jobs, abs=1 if commit else 0)


@pytest.mark.parametrize("kind", [SlowJournal, RemoteJournal])
@pytest.mark.parametrize(("commit", "jobs"), [(0.0, False), (0.02, True)])
def test_the_next_jobs_are_granted_two_commits_sooner(
    kind: type[SlowJournal | RemoteJournal], commit: float, jobs: bool
):
    service = Service(kind, commit)
    began = service.clock.time
    ends = began + service.granted() * RUN
    service.clock.time = ends - 0.03
    assert bool(service.granted()) is jobs
