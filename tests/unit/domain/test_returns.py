"""However many leases end at once, a turn gives back and grants a bounded number of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal, Ticket
from svc.domain import commands as c
from svc.domain import events as e
from svc.domain import replies as r
from svc.domain import returns, upkeep
from svc.domain.handlers import GRANT_WORK, REPLY_WORK
from svc.domain.job import DEFAULT_QUEUE, ErrorInfo
from svc.domain.job_records import NO_RECORD
from svc.domain.lifecycle import JobState
from svc.domain.limits import Limits
from svc.domain.members import Member
from svc.wire import PROTOCOL_VERSION
from tests.support.asking import chunk
from tests.support.clock import FakeClock
from tests.support.state_checks import check_state

#: Leases that go back at a look, and the leases of each consumer.
RETURNED = 5
HELD = 23
GRANT = 30
DIED = ErrorInfo("ConsumerDied", "it is gone")


class Scene:
    """A host, and consumers of one worker that hold a lease for each of their jobs."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        limits = Limits(grant_leases=GRANT, member_leases=GRANT)
        self.host = QueueHost(MemoryJournal(), clock=self.clock, limits=limits)
        self.state = self.host.state

    def join(self, name: str = "w-1", role: str = "consumer", life: int = 1, *held: c.Held) -> Member:
        member = Member()
        self.state.arrived(member)
        self.ask(
            member, c.Hello(PROTOCOL_VERSION, role, name, "w", tasks=["m:f"], held=list(held), life=life)
        )
        return member

    def ask(self, member: Member, *commands: c.Command) -> list[r.Reply]:
        told: list[list[r.Reply]] = []
        self.host.call(commands, member, told.append)
        self.host.turn()
        return told[0]

    def submit(self, jobs: int, origin: str = "o", *, delay: float = 0.0) -> None:
        """Submit jobs that each take a lease of their own, as each has a priority of its own."""
        self.ask(Member(), c.Submit(origin, [chunk(n, delay=delay, priority=n) for n in range(jobs)]))

    def holder(self, name: str = "w-1") -> Member:
        """Return a consumer with `HELD` leases."""
        self.submit(HELD, name)
        member = self.join(name)
        self.ask(member, c.Lease(HELD))
        assert len(member.leases) == HELD
        return member

    def plain_holder(self) -> Member:
        self.submit(HELD)
        member = Member("plain")
        self.state.arrived(member)
        self.ask(member, c.Lease(HELD))
        assert len(member.leases) == HELD
        return member

    def turns(self) -> list[int]:
        """Run turns while there is work at once; return how many leases each of them gave back."""
        counts = []
        while self.host.seconds_to_next() == 0.0:
            before = len(self.state.leases)
            self.host.turn()
            check_state(self.state)
            counts.append(before - len(self.state.leases))
        return counts

    def charged(self) -> int:
        """Return how many interruptions are on record."""
        chunks = self.state.ledger.chunks.values()
        return sum(chunk.records.get(0, NO_RECORD).interruptions for chunk in chunks)


@pytest.fixture
def scene(monkeypatch):
    monkeypatch.setattr(returns, "RETURNED_MAX", RETURNED)
    return Scene()


def leaves(scene: Scene) -> int:
    member = scene.holder()
    assert scene.ask(member, c.Leave()) == [r.Done(HELD)]
    return HELD


def knows_nothing_of_its_leases(scene: Scene) -> int:
    member = scene.holder()
    scene.ask(member, c.Hello(PROTOCOL_VERSION, "consumer", "w-1", "w", tasks=["m:f"], life=1))
    return HELD


def is_a_plain_client_that_is_gone(scene: Scene) -> int:
    scene.host.disconnected(scene.plain_holder())
    scene.host.turn()
    return HELD


def is_lost_with_its_worker(scene: Scene) -> int:
    for name in ("w-1", "w-2", "w-3"):
        scene.host.disconnected(scene.holder(name))
    scene.host.turn()
    scene.clock.advance(1.0)
    scene.host.turn()
    return 3 * HELD


def falls_silent(scene: Scene) -> int:
    scene.holder()
    scene.clock.advance(100.0)
    scene.host.turn()
    return HELD


def is_replaced_by_another_process(scene: Scene) -> int:
    for name in ("w-1", "w-2", "w-3"):
        scene.host.disconnected(scene.holder(name))
    scene.join("w-4", life=2)
    return 3 * HELD


def has_died(scene: Scene) -> int:
    scene.holder()
    scene.ask(scene.join("w-0", "worker"), c.Lost("w-1", DIED))
    return HELD


def has_died_with_unsent_outcomes(scene: Scene) -> int:
    scene.holder()
    scene.ask(scene.join("w-0", "worker"), c.Lost("w-1", DIED, suspect=True))
    return HELD


def is_to_give_back_what_it_read_ahead(scene: Scene) -> int:
    member = scene.holder()
    first, *_, last = member.leases
    recall = c.Recall("w-1", first, member.leases[first].chunk.first, last)
    assert scene.ask(scene.join("w-0", "worker"), recall) == [r.Done(HELD - 1)]
    scene.ask(member, c.Ack(first, member.leases[first].chunk.first, [b""], [0.0]))
    return HELD


ENDS = [
    leaves,
    knows_nothing_of_its_leases,
    is_a_plain_client_that_is_gone,
    is_lost_with_its_worker,
    falls_silent,
    is_replaced_by_another_process,
    has_died,
    has_died_with_unsent_outcomes,
    is_to_give_back_what_it_read_ahead,
]


@pytest.mark.parametrize("ends", ENDS)
def test_of_a_consumer_that(scene, monkeypatch, ends: Callable[[Scene], int]):
    """A turn gives back as many leases as one look, and as many as may go at once; all go in the end."""
    events: list[int] = []
    append = scene.host.journal.append

    def appending(rows: Sequence[tuple[int, e.AnyEvent]], gone: Sequence[int] = ()) -> Ticket | None:
        events.append(len(rows))
        ticket: Ticket | None = append(rows, gone)
        return ticket

    monkeypatch.setattr(scene.host.journal, "append", appending)
    held = ends(scene)
    left = len(scene.state.leases)
    assert held - left <= 4 * RETURNED, "within the first two turns"
    assert left
    events.clear()

    given_back = scene.turns()

    assert sum(given_back) == left
    assert max(given_back) <= 2 * RETURNED
    # What tells of a lease is two events at most, and a few rows tell of members and queues.
    assert max(events, default=0) <= 4 * RETURNED + 2
    assert not scene.state.leases
    assert not scene.state.holders
    assert scene.state.ledger.counts[DEFAULT_QUEUE][JobState.LEASED] == 0


def test_members_whose_leases_wait_are_a_bounded_number_at_each_look(scene, monkeypatch):
    monkeypatch.setattr(upkeep, "REAPED_MAX", 2)
    members = [scene.holder(f"w-{number}") for number in range(6)]
    for each in members:
        scene.host.disconnected(each)
    scene.clock.advance(1.0)
    scene.host.turn()

    assert sum(1 for each in members if not each.leases) <= 3
    assert sum(scene.turns()) > 0
    assert not scene.state.leases


@pytest.mark.parametrize(("end", "charged"), [(falls_silent, 1), (is_a_plain_client_that_is_gone, HELD)])
def test_only_jobs_that_ran_are_charged_an_interruption_wherever_a_turn_ends(scene, end, charged):
    end(scene)
    scene.turns()

    assert scene.charged() == charged


def test_a_consumer_that_comes_back_has_the_leases_again_that_have_not_gone_back(scene):
    member = scene.holder()
    tokens = dict(member.leases)
    scene.host.disconnected(member)
    scene.clock.advance(1.0)
    scene.host.turn()
    waiting = [token for token in tokens if token in scene.state.leases]
    assert 0 < len(waiting) < HELD

    held = [c.Held(token, "w-1", lease.chunk.first, 1) for token, lease in tokens.items()]
    back = scene.join("w-1", "consumer", 1, *held)

    assert set(back.leases) == set(waiting)
    scene.turns()
    token, lease = next(iter(back.leases.items()))
    assert scene.ask(back, c.Ack(token, lease.chunk.first, [b""], [0.0])) == [r.Done(1)]


def test_another_process_under_its_name_does_not_get_them(scene):
    member = scene.holder()
    tokens = list(member.leases)
    scene.host.disconnected(member)
    held = [c.Held(token, "w-1", 0, 1) for token in tokens]
    other = scene.join("w-1", "consumer", 2, *held)

    assert not other.leases
    scene.turns()
    assert not scene.state.leases


def test_an_outcome_of_a_lease_that_waits_is_recorded(scene):
    member = scene.holder()
    scene.clock.advance(100.0)
    scene.host.turn()
    token = list(scene.state.leases)[-1]
    lease = scene.state.leases[token]
    assert lease.holder is not member

    assert scene.ask(member, c.Ack(token, lease.chunk.first, [b""], [0.0])) == [r.Done(1)]
    scene.turns()
    assert lease.chunk.state(0) is JobState.SUCCEEDED


# --- grants ------------------------------------------------------------------------------------------------


def test_requests_that_waited_are_granted_a_bounded_number_of_leases_in_a_turn():
    scene, jobs = Scene(), 40 * GRANT
    consumers = [scene.join(f"w-{number}") for number in range(60)]
    grants: list[int] = []

    def granted(replies: list[r.Reply]) -> None:
        (grant,) = replies
        assert isinstance(grant, r.Grant)
        grants.append(len(grant.deliveries))

    for each in consumers:
        scene.host.call([c.Lease(GRANT, 60.0)], each, granted)
        scene.host.turn()
    scene.submit(jobs, delay=1.0)
    scene.clock.advance(1.0)
    in_turns = []
    before = 0
    while sum(grants) < jobs:
        assert scene.host.seconds_to_next() == 0.0
        scene.host.turn()
        in_turns.append(sum(grants) - before)
        before = sum(grants)

    assert max(in_turns) <= REPLY_WORK / GRANT_WORK + GRANT
    assert len(scene.state.leases) == jobs


def test_a_frame_of_many_requests_for_jobs_is_granted_a_bounded_number_of_leases():
    scene = Scene()
    scene.host = QueueHost(MemoryJournal(), clock=scene.clock, limits=Limits(grant_leases=GRANT))
    scene.state = scene.host.state
    scene.submit(20 * GRANT)
    member = scene.join()

    replies = scene.ask(member, *[c.Lease(GRANT)] * 20)

    assert all(isinstance(each, r.Grant) for each in replies)
    assert len(member.leases) <= REPLY_WORK / GRANT_WORK + GRANT
    assert replies[-1] == r.Grant()
