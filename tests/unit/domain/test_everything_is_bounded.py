"""Whatever clients do, each container of the queue has a bound: it is listed here, and the floods try it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain import upkeep
from svc.domain.apply import apply
from svc.domain.drains import Drains
from svc.domain.job import ErrorInfo, NewChunk, Terms
from svc.domain.large_values import LargeValues
from svc.domain.leases import Leases, Settled
from svc.domain.ledger import Ledger
from svc.domain.limits import Limits
from svc.domain.members import Member, Worker
from svc.domain.operations import DRAINS_MAX
from svc.domain.origins import FORGOTTEN_RANGES_MAX, Origin
from svc.domain.queue_state import QueueState
from svc.domain.roster import WorkerRoster
from svc.domain.scheduling.kinds import Kinds
from svc.domain.scheduling.read_ahead import Imbalance
from svc.domain.tables import OrderedTable, Table
from svc.domain.upkeep import ORIGIN_KEPT_SECONDS
from tests.unit.domain.test_grown_chunks import Queue

#: Every container, and its bound.
BOUNDS = {
    Ledger: {
        "ended_items": "empty once a replay is over",
        "chunks": "max_jobs to be done, retention_jobs finished, and as many beside dead ones",
        "grown": "the chunks; each leaves after merge_seconds",
        "counts": "max_queues; a queue without jobs is dropped",
        "dead": "retention_jobs twice",
        "answers": "the finished jobs",
        "terms": "TERMS_MAX",
        "outcome_order": "twice the references, and 1,000",
        "references": "the kept jobs",
        "finished": "retention_jobs",
        "kept_dead": "retention_jobs",
        "emptied": "max_origins: each is in it once",
        "forgotten": "one turn: the commit takes it",
    },
    QueueState: {
        "leases": "all_leases, and FEW_LEASES for each connection",
        "holders": "the connections",
        "workers": "the connections, and those that ended within the grace",
        "run_times": "1,024 tasks",
        "progressed": "one turn",
        "yielded": "one turn",
        "stopped": "one turn",
        "notices": "one turn",
        "_events": "one turn: the commit takes it",
        "result_bytes": "one turn: the commit takes it",
    },
    Origin: {
        "blocks": "the kept jobs",
        "chunks": "the kept jobs",
        "forgotten": "FORGOTTEN_RANGES_MAX",
        "forgotten_by": "one for each commit of Forgotten, which replaces those before",
    },
    Drains: {
        "in_force": "DRAINS_MAX",
        "refusing": "those in force",
    },
    Settled: {
        "ranges": "SETTLED_KEPT",
    },
    Member: {
        "leases": "member_leases",
        "stops": "STOPS_MAX at a hello or a lease; ALL_STOPS_MAX and ORDERS_UNSEEN for all but a few of each",
    },
    LargeValues: {
        "unclaimed": "UNCLAIMED_MAX twice",
        "by_origin": "VALUES_MIN, or one value for each BYTES_OF_VALUE of all_values_bytes",
        "_results": "those",
    },
    WorkerRoster: {
        "workers": "the connections, and those that are expected back",
        "watermarks": "the queues",
    },
    Kinds: {
        "_known": "KINDS_BYTES, and SMALL_BYTES for each connection",
    },
    Worker: {
        "consumers": "the connections",
        "ended": "ENDED_KEPT, and ALL_ENDED_KEPT for all but a few of each worker",
        "take_back": "UNTOLD_MAX",
    },
    Imbalance: {
        "idle": "the double of the consumers, and some more",
        "holders": "the double of the members with leases, and some more",
    },
}
_CONTAINERS = (dict, list, set, deque, Table, OrderedTable, Leases)


@pytest.mark.parametrize(
    "made",
    [
        *(Ledger(), QueueState(), Origin("o"), Drains(), Settled(), Worker("w")),
        *(Member(), LargeValues(), WorkerRoster(), Kinds(), Imbalance()),
    ],
    ids=lambda made: type(made).__name__,
)
def test_each_container_has_a_bound_on_record(made):
    """One that is added needs a bound, and its line here."""
    names = getattr(type(made), "__slots__", ()) or vars(made)
    found = {name for name in names if isinstance(getattr(made, name), _CONTAINERS)}

    assert found == set(BOUNDS[type(made)])


def make(**bounds: Any) -> Queue:
    return Queue(Limits(**{"retention_seconds": 10.0, **bounds}))


def submit(queue: Queue, *chunks: NewChunk, origin: str = "o", inside: bool = False) -> list[r.Note]:
    reply = apply(queue.state, c.Submit(origin, list(chunks)), Member(inside=inside), queue.now)
    assert isinstance(reply, r.Accepted)
    return reply.notes


def one(
    number: int, queue: str = "default", key: str = "", delay: float = 0.0, task: str = "m:f"
) -> NewChunk:
    return NewChunk(number, Terms(task, queue=queue), [b"%d" % number], delay, key)


BOUND = 3
#: For each bound the setting that moves it, and the origin and the chunk number *n* of a flood that meets it.
FLOODS: dict[str, tuple[str, Callable[[int], tuple[str, NewChunk]]]] = {
    "max_jobs": ("--max-jobs", lambda n: ("o", one(n, f"queue-{n}"))),
    "max_queue_jobs": ("--max-queue", lambda n: ("o", one(n, delay=9.0))),
    "max_queues": ("--max-queues", lambda n: ("o", one(n, f"queue-{n}"))),
    "max_keys": ("--max-keys", lambda n: ("o", one(n, key=f"key-{n}"))),
    "max_origins": ("--max-origins", lambda n: (f"origin-{n}", one(0))),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_meets_a_bound_that_names_its_setting_and_changes_nothing_else(name):
    setting, made = FLOODS[name]
    queue = make(**{name: BOUND})
    for number in range(BOUND):
        origin, chunk = made(number)
        assert submit(queue, chunk, origin=origin) == []
    queue.commit()
    before = len(list(queue.journal.replay()))

    origin, chunk = made(BOUND)
    (note,) = submit(queue, chunk, origin=origin)
    queue.commit()

    assert note.code == "queue_full"
    assert f"svc manager {setting}" in note.message
    assert len(list(queue.journal.replay())) == before
    assert len(queue.state.ledger.counts) <= BOUND


@pytest.mark.parametrize("name", [name for name in FLOODS if name != "max_origins"])
def test_a_flood_in_one_command_meets_the_same_bound(name):
    _, made = FLOODS[name]
    queue = make(**{name: BOUND})

    notes = submit(queue, *(made(number)[1] for number in range(2 * BOUND)))
    queue.commit()

    assert [(note.chunk, note.code) for note in notes] == [(n, "queue_full") for n in range(BOUND, 2 * BOUND)]


@pytest.mark.parametrize("name", ["max_queue_jobs", "max_jobs"])
@pytest.mark.parametrize("apart", [True, False], ids=["as chunks of one", "as one chunk"])
def test_the_first_jobs_of_a_new_queue_are_bounded_too(name, apart):
    queue = make(**{name: BOUND})
    bodies = [b"x"] * (BOUND + 1)
    whole = NewChunk(0, Terms("m:f", queue="new"), bodies)
    chunks = [one(number, "new") for number in range(BOUND + 1)] if apart else [whole]

    notes = submit(queue, *chunks)

    assert [note.code for note in notes] == ["queue_full"]
    assert queue.state.ledger.unfinished == (BOUND if apart else 0)


def test_the_queue_of_all_who_name_none_is_there_though_the_names_are_used_up():
    queue = make(max_queues=BOUND)
    for number in range(BOUND):
        submit(queue, one(number, f"queue-{number}"))

    assert submit(queue, one(BOUND)) == []


def finish(queue: Queue) -> None:
    """Run all jobs that are ready, whatever their queue, and let their retention pass."""
    names = frozenset(queue.state.ledger.counts)
    member = Member("plain")
    member.subscription = names, None, None
    while True:
        grant = apply(queue.state, c.Lease(100), member, queue.now)
        if not isinstance(grant, r.Grant) or not grant.deliveries:
            break
        queue.finish(grant.deliveries)
    queue.now += queue.state.limits.retention_seconds
    upkeep.tick(queue.state, queue.now)
    queue.commit()


def test_the_names_of_queues_that_hold_nothing_are_forgotten():
    queue = make(max_queues=BOUND)
    for round_ in range(3):
        for number in range(BOUND):
            assert submit(queue, one(round_ * BOUND + number, f"queue-{round_}-{number}")) == []
        finish(queue)
        assert queue.state.ledger.counts == {}


def test_keys_of_forgotten_jobs_make_room_for_others():
    queue = make(max_keys=BOUND)
    for number in range(BOUND):
        submit(queue, one(number, key=f"key-{number}"))
    finish(queue)

    assert len(queue.state.ledger.keys) == 0
    assert submit(queue, one(BOUND, key="key-0")) == []


def test_clients_that_were_forgotten_make_room_for_others():
    queue = make(max_origins=BOUND)
    for number in range(BOUND):
        submit(queue, one(0), origin=f"origin-{number}")
    finish(queue)
    assert [note.code for note in submit(queue, one(0), origin="new")] == ["queue_full"]
    queue.now += ORIGIN_KEPT_SECONDS
    upkeep.tick(queue.state, queue.now)

    assert submit(queue, one(0), origin="new") == []


def test_jobs_that_plain_clients_put_are_taken_though_the_clients_are_too_many():
    queue = make(max_origins=1)
    submit(queue, one(0))

    assert submit(queue, one(0), origin="put1", inside=True) == []


def test_a_client_that_comes_and_goes_waits_once_to_be_forgotten():
    queue = make()
    for number in range(BOUND):
        submit(queue, one(number))
        finish(queue)
    assert len(queue.state.ledger.emptied) == 1
    first_lost = queue.state.ledger.emptied[0][0]

    queue.now = first_lost + ORIGIN_KEPT_SECONDS
    upkeep.tick(queue.state, queue.now)
    assert len(queue.state.ledger.origins) == 1, "it had jobs later than that"
    queue.now += ORIGIN_KEPT_SECONDS
    upkeep.tick(queue.state, queue.now)
    queue.commit()
    assert len(queue.state.ledger.origins) == 0


def test_numbers_with_gaps_are_known_apart_up_to_a_bound_and_then_used_up():
    queue = make()
    count = FORGOTTEN_RANGES_MAX + 10
    for start in range(0, count, 50):
        for number in range(start, min(count, start + 50)):
            submit(queue, one(2 * number))
        finish(queue)
    origin = queue.state.ledger.origins.get("o")
    assert origin is not None
    assert len(origin.forgotten) == FORGOTTEN_RANGES_MAX

    (lost,) = submit(queue, one(1))
    assert lost.code == "conflict", "it is not taken for a job that was accepted"
    assert submit(queue, one(2 * count - 3)) == [], "a gap that is known is free"
    assert submit(queue, one(2 * count - 2)) == [], "and so is what comes after"
    assert submit(queue, one(2 * count - 4)) == [], "a repeat changes nothing"
    queue.commit()


def test_dead_jobs_that_outlive_their_retention_are_bounded_in_number():
    queue = make(retention_jobs=BOUND)
    for number in range(4 * BOUND):
        submit(queue, one(2 * number))
        (delivery,) = queue.lease(1)
        nack = c.Nack(delivery.token, delivery.first, ErrorInfo("E", "no"))
        assert apply(queue.state, nack, Member("plain"), queue.now) == r.Done(1)
    finish(queue)

    assert len(queue.state.ledger.dead) == BOUND


def test_drains_of_workers_are_bounded_and_one_of_all_is_not_refused(monkeypatch):
    monkeypatch.setattr("svc.domain.operations.DRAINS_MAX", BOUND)
    assert DRAINS_MAX > BOUND
    queue = make()
    for number in range(BOUND):
        assert isinstance(apply(queue.state, c.Drain(f"w{number}"), Member(), 0.0), r.Done)

    assert isinstance(apply(queue.state, c.Drain("more"), Member(), 0.0), r.Refused)
    assert isinstance(apply(queue.state, c.Drain("w0"), Member(), 0.0), r.Done)
    assert isinstance(apply(queue.state, c.Drain(), Member(), 0.0), r.Done)


def test_questions_about_queues_that_are_not_there_leave_nothing():
    queue = make()
    for number in range(BOUND):
        apply(queue.state, c.Join(f"queue-{number}"), Member(), 0.0)
        apply(queue.state, c.List(queue=f"queue-{number}"), Member(), 0.0)
        apply(queue.state, c.Requeue(queue=f"queue-{number}"), Member(), 0.0)

    assert queue.state.ledger.counts == {}
