"""No sequence of hellos, leaves and broken connections keeps a job from others beyond a lease time."""

from __future__ import annotations

import random

import pytest

from svc.broker.host import QueueHost
from svc.broker.journal import Journal, MemoryJournal
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain import returns
from svc.domain.job import DEFAULT_QUEUE, ErrorInfo, NewChunk, Terms
from svc.domain.lifecycle import JobState
from svc.domain.limits import Limits
from svc.domain.members import Member
from svc.domain.upkeep import SWEEP_SECONDS
from svc.wire import as_received
from tests.support.clock import FakeClock
from tests.support.simulated_journals import AwaitedStreams
from tests.support.state_checks import check_state

JOBS = 200
ERROR = ErrorInfo("ConsumerDied", "it is gone")
NAMES = ("w", "w-1", "w-2", "v", "v-1")


class Members:
    """Connections with one key for work, whose hellos are arbitrary."""

    def __init__(self, seed: int, journal: Journal) -> None:
        self.rng = random.Random(seed)
        self.clock = FakeClock()
        self.host = QueueHost(journal, clock=self.clock, limits=Limits(lease_seconds=5.0))
        self.members: list[Member] = []
        self.told = [0]
        self.ask(self.connect(), c.Submit("o", [NewChunk(0, Terms("m:f"), [b""] * JOBS)]))

    def connect(self) -> Member:
        member = Member()
        self.host.state.arrived(member)
        self.members.append(member)
        return member

    def ask(self, member: Member, *commands: c.Command) -> list[r.Reply]:
        answers: list[list[r.Reply]] = []
        self.host.call(as_received(commands), member, answers.append)
        self.host.turn()
        return answers[0]

    def step(self) -> None:
        rng = self.rng
        if not self.members or (rng.random() < 0.15 and len(self.members) < 8):
            self.connect()
        member = rng.choice(self.members)
        match rng.randrange(8):
            case 0 | 1:
                self.ask(member, self.hello())
            case 2 | 3:
                self.lease(member)
            case 4:
                self.ask(member, rng.choice((c.Leave(), self.extend())))
            case 5:
                name, token = rng.choice(NAMES), rng.choice(self.told)
                self.ask(
                    member,
                    rng.choice((c.Lost(name, ERROR), c.Release(token, 0), c.Recall(name, token, 0, token))),
                )
            case 6:
                self.members.remove(member)
                self.host.disconnected(member)
            case 7:
                self.clock.advance(rng.choice((0.1, 0.6, 1.1, 6.0)))
                self.host.turn()

    def hello(self) -> c.Hello:
        rng = self.rng
        token = rng.choice((*self.told, 7))
        held = [c.Held(token, "o", rng.randrange(JOBS), rng.randint(1, 5))] if rng.random() < 0.5 else []
        role = rng.choice(("client", "worker", "consumer", "consumer"))
        return c.Hello(1, role, rng.choice(NAMES), rng.choice(("w", "v", "")), tasks=["m:f"], held=held)

    def extend(self) -> c.Extend:
        return c.Extend(consumers=self.rng.choice((None, [], ["w-1"])))

    def lease(self, member: Member) -> None:
        if self.rng.random() < 0.3 and member.role == "client":
            member.role = "plain"
        reply = self.ask(member, c.Lease(3))[0]
        if isinstance(reply, r.Grant):
            self.told += [each.token for each in reply.deliveries]

    def quiet(self) -> None:
        """Run turns while there is work at once."""
        self.host.turn()
        while self.host.seconds_to_next() == 0.0:
            self.host.turn()

    def rest(self) -> None:
        """Let all be quiet: the connections that are left say nothing, or are gone."""
        for member in list(self.members):
            if self.rng.random() < 0.5 or member.role == "plain":
                self.members.remove(member)
                self.host.disconnected(member)
        for _ in range(3):
            self.clock.advance(self.host.state.limits.lease_seconds + SWEEP_SECONDS)
            self.quiet()


def check_that_all_leases_end(seed: int, journal: Journal) -> None:
    members = Members(seed, journal)
    for _ in range(60):
        members.step()
        check_state(members.host.state)

    members.rest()

    assert not members.host.state.leases
    assert not members.host.state.holders
    assert members.host.state.ledger.counts[DEFAULT_QUEUE][JobState.LEASED] == 0


@pytest.mark.parametrize("seed", range(150))
@pytest.mark.parametrize("returned", [1, returns.RETURNED_MAX])
def test_whoever_leased_it_in_the_end_no_job_stays_leased(seed, returned, monkeypatch):
    monkeypatch.setattr(returns, "RETURNED_MAX", returned)
    check_that_all_leases_end(seed, MemoryJournal())


@pytest.mark.parametrize("seed", range(15))
def test_no_job_stays_leased_with_the_journal_in_a_stream_that_loses_answers(seed):
    journals = AwaitedStreams()
    check_that_all_leases_end(seed, journals.new(random.Random(seed)))
    journals.close()
