"""Corners of the queue that the contract suite cannot look into."""

from __future__ import annotations

import pytest

from svc.broker.journal import MemoryJournal
from svc.domain import commands as c
from svc.domain import events as e
from svc.domain import outcomes, upkeep
from svc.domain import replies as r
from svc.domain.apply import apply
from svc.domain.chunk import BODY_OVERHEAD_BYTES
from svc.domain.job import ErrorInfo, NewChunk, Terms
from svc.domain.leases import SETTLED_KEPT
from svc.domain.ledger import LARGE_CHUNK_BYTES
from svc.domain.limits import Limits
from svc.domain.members import Member
from svc.domain.queue_state import QueueState
from tests.support.state_checks import about_jobs, check_journal, check_state

ERROR = ErrorInfo("E", "no")


@pytest.fixture
def journal() -> MemoryJournal:
    return MemoryJournal()


@pytest.fixture
def state(journal: MemoryJournal) -> QueueState:
    return QueueState(read=journal.read, limits=Limits(retention_seconds=10.0))


@pytest.fixture
def consumer(state: QueueState) -> Member:
    member = Member()
    apply(state, c.Hello(1, "consumer", "w-1", "w", tasks=["m:f"]), member, 0.0)
    return member


def submit(
    state: QueueState,
    count: int = 1,
    task: str = "m:f",
    first: int = 0,
    inside: bool = False,
    body: bytes = b"x",
) -> None:
    chunk = NewChunk(first, Terms(task, codec="item" if inside else "plain"), [body] * count)
    assert apply(state, c.Submit("o", [chunk]), Member(inside=inside), 0.0) == r.Accepted([])


def lease(state: QueueState, member: Member, limit: int = 1) -> r.Delivery:
    grant = apply(state, c.Lease(limit), member, 0.0)
    assert isinstance(grant, r.Grant)
    return grant.deliveries[0]


def ack(state: QueueState, member: Member, delivery: r.Delivery, at: float = 0.0) -> None:
    count = len(delivery.bodies)
    reply = apply(state, c.Ack(delivery.token, delivery.first, [b"r"] * count, [0.0] * count), member, at)
    assert reply == r.Done(1)


def commit(state: QueueState, journal: MemoryJournal) -> list[e.AnyEvent]:
    events, forgotten = state.take_events()
    journal.append(events, forgotten)
    check_state(state)
    check_journal(state, journal)
    return about_jobs(event for _, event in events)


def test_results_of_one_turn_share_an_event_as_long_as_nothing_comes_between(state, consumer, journal):
    submit(state, 5)
    commit(state, journal)
    deliveries = [lease(state, consumer) for _ in range(5)]
    commit(state, journal)
    ack(state, consumer, deliveries[0])
    ack(state, consumer, deliveries[1])
    apply(state, c.Nack(deliveries[2].token, 2, ERROR), consumer, 0.0)
    ack(state, consumer, deliveries[3])

    events = commit(state, journal)

    assert [type(event) for event in events] == [e.Succeeded, e.Failed, e.Succeeded]
    assert isinstance(events[0], e.Succeeded)
    assert len(events[0].ranges) == 2


def test_a_result_beside_a_forgotten_pill_stays_in_the_journal(state, consumer, journal):
    """The pill's end and the result share an event, which the forgotten pill must not take with it."""
    submit(state, 1)
    submit(state, 1, "#pill", first=1, inside=True)
    delivery = lease(state, consumer)
    commit(state, journal)

    grant = apply(state, c.Lease(1), consumer, 0.0)
    assert isinstance(grant, r.Grant)
    assert grant.pill == -1
    ack(state, consumer, delivery)

    assert len(commit(state, journal)) == 1
    assert len(about_jobs(event for _, event in journal.replay())) == 2


def test_cancelled_items_beside_a_cancelled_job_leave_its_outcome(state, journal):
    submit(state, 1, "#item", inside=True)
    submit(state, 1, first=1)
    commit(state, journal)

    assert apply(state, c.Cancel(["o-0", "o-1"]), Member(), 0.0) == r.Done(2)

    commit(state, journal)
    outcomes = apply(state, c.Await(["o-1"]), Member(), 0.0)
    assert isinstance(outcomes, r.Outcomes)
    assert len(outcomes.outcomes) == 1


def test_settled_leases_are_remembered_up_to_a_bound_whatever_settles_them(state, consumer):
    """Also if every single attempt fails."""
    submit(state, 1)
    for _ in range(SETTLED_KEPT + 50):
        apply(state, c.Nack(lease(state, consumer).token, 0, ERROR, 0.0), consumer, 0.0)
        state.take_events()

    assert len(state.ledger.settled.ranges) == SETTLED_KEPT


def test_arguments_beyond_the_window_are_read_from_the_journal(journal):
    state = QueueState(read=journal.read, limits=Limits(window_bytes=2 * (1 + BODY_OVERHEAD_BYTES)))
    submit(state, 2)
    submit(state, 2, first=3)
    commit(state, journal)
    assert [not chunk.in_memory for chunk in state.ledger.chunks.values()] == [False, True]

    assert lease(state, Member("plain"), 2).bodies == [b"x", b"x"]
    assert lease(state, Member("plain"), 2).bodies == [b"x", b"x"]


def test_large_arguments_leave_most_of_the_window_to_small_ones(journal):
    state = QueueState(read=journal.read, limits=Limits(window_bytes=6 * LARGE_CHUNK_BYTES))
    for first in (0, 10, 20):
        submit(state, 1, first=first, body=b"x" * (LARGE_CHUNK_BYTES + 1))
    submit(state, 1, first=30)
    commit(state, journal)

    assert [not chunk.in_memory for chunk in state.ledger.chunks.values()] == [False, True, True, False]


def test_a_grant_takes_no_more_bytes_than_its_bound_once_there_is_one_job(journal):
    state = QueueState(read=journal.read, limits=Limits(grant_bytes=3))
    submit(state, 9)
    commit(state, journal)

    assert len(lease(state, Member("plain"), 9).bodies) == 3


@pytest.mark.parametrize(("seconds", "granted"), [(0.000_004, 256), (0.000_01, 200), (0.000_1, 40)])
def test_as_many_jobs_as_run_in_two_milliseconds_are_granted_at_once(state, consumer, seconds, granted):
    """To another consumer they are worth less than a request; of longer ones a share is 4 ms."""
    for name in ("w-2", "w-3", "w-4"):
        apply(state, c.Hello(1, "consumer", name, "w", tasks=["m:f"]), Member(), 0.0)
    for _ in range(8):  # until the task is trusted with a whole grant
        state.run_times.ran("m:f", 1, seconds)
    submit(state, 300)

    grant = apply(state, c.Lease(256, 0.0, 0.02), consumer, 0.0)

    assert isinstance(grant, r.Grant)
    assert [len(each.bodies) for each in grant.deliveries] == [granted]


def test_a_job_with_a_history_is_delivered_alone(state, consumer):
    """The charges in a delivery are those of each of its jobs."""
    submit(state, 3)
    apply(state, c.Nack(lease(state, consumer).token, 0, ERROR, 0.0), consumer, 0.0)

    grant = apply(state, c.Lease(9), consumer, 0.0)

    assert isinstance(grant, r.Grant)
    assert [(each.first, len(each.bodies), each.failures) for each in grant.deliveries] == [
        (0, 1, 1),
        (1, 2, 0),
    ]


def test_a_tick_forgets_no_more_than_its_budget(state, consumer, journal, monkeypatch):
    monkeypatch.setattr(upkeep, "FORGET_CHUNKS_MAX", 2)
    for first in range(5):
        submit(state, 1, first=first)
        ack(state, consumer, lease(state, consumer))
    commit(state, journal)
    left = []
    for _ in range(3):
        upkeep.tick(state, 11.0)
        commit(state, journal)
        left.append(len(state.ledger.chunks))

    assert left == [3, 1, 0]


def test_a_forgotten_origin_takes_its_last_row_with_it(state, consumer, journal):
    submit(state)
    ack(state, consumer, lease(state, consumer))
    for now in (0.0, 11.0, 11.0 + upkeep.ORIGIN_KEPT_SECONDS):
        upkeep.tick(state, now)
        commit(state, journal)

    assert about_jobs(event for _, event in journal.replay()) == []
    assert list(state.ledger.origins) == []


def test_numbers_in_between_that_were_never_accepted_are_not_taken_for_known(state, consumer, journal):
    """A number that was refused once, and whose neighbours are forgotten, may still be submitted."""
    for first in (0, 2):
        submit(state, 1, first=first)
        ack(state, consumer, lease(state, consumer))
    upkeep.tick(state, 11.0)
    commit(state, journal)

    submit(state, 1, first=1)

    assert lease(state, consumer).first == 1


def test_a_command_of_the_host_is_refused_by_the_state():
    assert apply(QueueState(), c.Wake(), Member(), 0.0) == r.Refused("bad_request", "Wake is not served here")


def test_a_lost_lease_is_told_by_one_sentence():
    assert outcomes.LEASE_LOST.code == "lease_lost"
