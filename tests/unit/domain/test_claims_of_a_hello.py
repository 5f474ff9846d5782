"""What one hello claims, and what is remembered of consumers that have ended, has a bounded cost (T7)."""

from __future__ import annotations

import msgspec
import pytest

from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.domain import commands as c
from svc.domain import members, queries, stops
from svc.domain import replies as r
from svc.domain.handlers import Room
from svc.domain.job import ErrorInfo
from svc.domain.limits import GRANT_JOBS, Limits
from svc.domain.members import Member
from svc.domain.scheduling import grants
from svc.wire import PROTOCOL_VERSION
from tests.support.asking import chunk
from tests.support.hosts import answers
from tests.support.memory_journals import reopened
from tests.support.work import instructions_of

JOBS = 5000


def greeting(name: str, *held: c.Held, worker: str = "w") -> c.Hello:
    return c.Hello(PROTOCOL_VERSION, "consumer", name, worker, tasks=["m:f"], held=list(held))


def ended(host: QueueHost) -> None:
    """Let all jobs end."""
    consumer = Member()
    answers(host, consumer, greeting("runs"))
    while isinstance(grant := answers(host, consumer, c.Lease(GRANT_JOBS))[0], r.Grant) and grant.deliveries:
        for each in grant.deliveries:
            count = len(each.bodies)
            answers(host, consumer, c.Ack(each.token, each.first, [b""] * count, [0.0] * count))


def noted(host: QueueHost) -> None:
    """Let one job keep a checkpoint, and all wait."""
    consumer = Member()
    (_, grant) = answers(host, consumer, greeting("runs"), c.Lease(1))
    assert isinstance(grant, r.Grant)
    answers(host, consumer, c.Checkpoint(grant.deliveries[0].token, 0, b"half"))


def cancelled(host: QueueHost) -> None:
    """Cancel the last job."""
    answers(host, Member(), c.Cancel([f"o-{JOBS - 1}"]))


def nothing(host: QueueHost) -> None:
    """Let all jobs wait."""


@pytest.mark.parametrize("happened", [ended, noted, cancelled, nothing])
@pytest.mark.parametrize("count", [JOBS, JOBS + 1, 1 << 50])
def test_a_hello_that_claims_many_jobs_costs_no_look_at_each(happened, count):
    """1,024 claims of 5,000 jobs that had ended, in 20 KB, took 1.3 s of the manager's loop."""
    host = QueueHost(MemoryJournal())
    answers(host, Member(), c.Submit("o", [chunk(0, JOBS)]))
    happened(host)
    claims = [c.Held(number, "o", 0, count) for number in range(1, 1025)]
    told: list[r.Reply] = []
    steps = instructions_of(lambda: told.extend(answers(host, Member(), greeting("claims", *claims))))
    assert isinstance(told[0], r.Welcome)
    assert steps < 1_500_000


def test_a_consumer_that_held_its_last_three_grants_has_them_again():
    journal = MemoryJournal()
    host = QueueHost(journal)
    answers(host, Member(), c.Submit("o", [chunk(0, JOBS)]))
    consumer = Member()
    answers(host, consumer, greeting("runs"))
    held = []
    for _ in range(3):
        (grant,) = answers(host, consumer, c.Lease(GRANT_JOBS))
        assert isinstance(grant, r.Grant)
        held += [c.Held(each.token, each.origin, each.first, len(each.bodies)) for each in grant.deliveries]
    again = QueueHost(reopened(journal))
    (welcome,) = answers(again, Member(), greeting("runs", *held))
    assert isinstance(welcome, r.Welcome)
    assert welcome.lost == []


def test_orders_to_end_attempts_are_bounded_over_all_consumers(monkeypatch):
    """4,000 connections that claimed a cancelled job under 1,024 tokens each took 400 MB."""
    monkeypatch.setattr(stops, "ALL_STOPS_MAX", 100)
    host = QueueHost(MemoryJournal())
    answers(host, Member(), c.Submit("o", [chunk(0, 1)]), c.Cancel(["o-0"]))
    claims = [c.Held(number, "o", 0, 1) for number in range(1, 61)]
    consumers = [Member() for _ in range(20)]
    for number, member in enumerate(consumers):
        answers(host, member, greeting(f"c-{number}", *claims, worker=f"w-{number % 3}"))
    kept = [len(member.stops) for member in consumers]
    assert kept[0] == len(claims)
    assert sum(kept) <= 100 + stops.FEW_STOPS * len(consumers)
    assert all(kept)


def test_orders_to_end_cancelled_attempts_are_bounded_over_all_consumers(monkeypatch):
    """20,000 consumers whose 2,048 leases each were cancelled took 4 GB."""
    monkeypatch.setattr(stops, "ALL_STOPS_MAX", 100)
    monkeypatch.setattr(stops, "ORDERS_UNSEEN", 10)
    host = QueueHost(MemoryJournal())
    answers(host, Member(), c.Submit("o", [chunk(0, 800)]))
    consumers = [Member() for _ in range(20)]
    for number, member in enumerate(consumers):
        answers(host, member, greeting(f"c-{number}", worker=f"w-{number % 3}"))
        answers(host, member, *[c.Lease(1)] * 40)
    for start in range(0, 800, 20):
        (done,) = answers(
            host, Member(), c.Cancel([f"o-{number}" for number in range(start, start + 20)], running=True)
        )
        assert done == r.Done(20)
    kept = [len(member.stops) for member in consumers]
    assert sum(kept) <= 100 + 10 + stops.FEW_STOPS * len(consumers)
    assert all(kept)


def test_the_names_of_ended_consumers_are_bounded_over_all_workers(monkeypatch):
    """4,000 connections that reported 256 dead consumers with long names took 1.1 GB."""
    monkeypatch.setattr(members, "ALL_ENDED_KEPT", 100)
    host = QueueHost(MemoryJournal())
    for number in range(20):
        supervisor = Member()
        answers(host, supervisor, c.Hello(PROTOCOL_VERSION, "worker", f"w-{number}", f"w-{number}"))
        for consumer in range(60):
            answers(host, supervisor, c.Lost(f"c-{consumer}", ErrorInfo("E", "died")))
    kept = [worker.ended for worker in host.state.workers.values()]
    assert len(kept[0]) == 60
    assert sum(map(len, kept)) <= 100 + members.ENDED_FEW * len(kept) + 60
    assert all("c-59" in each for each in kept)


def test_leases_are_bounded_over_all_members(monkeypatch):
    """8 million leases, of 4,000 connections, took 2 GB."""
    monkeypatch.setattr(grants, "FEW_LEASES", 3)
    host = QueueHost(MemoryJournal(), limits=Limits(all_leases=10))
    answers(host, Member(), c.Submit("o", [chunk(0, 100)]))
    greedy, modest = Member(), Member("plain")
    answers(host, greedy, greeting("greedy"))
    answers(host, greedy, *[c.Lease(1)] * 20)
    answers(host, modest, *[c.Lease(1)] * 20)
    assert (len(greedy.leases), len(modest.leases)) == (10, 3)
    token, lease = next(iter(greedy.leases.items()))
    (_, refused) = answers(host, greedy, c.Release(token, lease.start), c.Lease(2))
    assert isinstance(refused, r.Refused)  # there are still as many as may be
    for token, lease in list(greedy.leases.items())[:4]:
        answers(host, greedy, c.Release(token, lease.start))
    (granted,) = answers(host, greedy, c.Lease(1))
    assert isinstance(granted, r.Grant)
    assert granted.deliveries


def test_a_description_of_workers_counts_the_work_of_their_leases():
    """One of 200 consumers with 2,048 leases each took 49 ms."""
    host = QueueHost(MemoryJournal())
    answers(host, Member(), c.Submit("o", [chunk(0, 400)]))
    consumer = Member()
    answers(host, consumer, greeting("runs"))
    answers(host, consumer, *[c.Lease(1)] * 200)
    room = Room()
    roster = queries.members(host.state, c.Members(paged=True), room, 0.0)
    assert isinstance(roster, r.Roster)
    assert (roster.workers[0].leased, roster.workers[0].read_ahead) == (200, 0)
    assert Room().work - room.work >= 200 * queries.LEASED_WORK
    (view,) = host.workers() or []
    assert view.leased == 0  # no key is needed to ask for those


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("queues", [1, 20])
@pytest.mark.parametrize("task", ["t-0", "t-7", "m:nobody"])
def test_a_strict_submit_to_many_queues_looks_at_no_kind_of_consumers(strict, queues, task):
    """1,024 jobs for queues that 140 kinds of consumers serve took 137 ms of the manager's loop."""
    host = QueueHost(MemoryJournal())
    for number in range(100):
        hello = c.Hello(PROTOCOL_VERSION, "consumer", f"c-{number}", f"w-{number}", tasks=[f"t-{number}"])
        served = [f"q-{each}" for each in range(queues)]
        answers(host, Member(), msgspec.structs.replace(hello, queues=served))
    host.state.known_tasks.has("q-0", task)  # the consumers are looked at once
    chunks = [chunk(2 * number, task=task, queue=f"q-{number % queues}") for number in range(200)]
    told: list[r.Reply] = []
    command = c.Submit("o", chunks, strict=strict)
    steps = instructions_of(lambda: told.extend(answers(host, Member(), command)))
    (accepted,) = told
    assert isinstance(accepted, r.Accepted)
    refused = strict and task == "m:nobody"
    assert {note.code for note in accepted.notes} == ({"unknown_task"} if refused else set())
    assert steps < 3500 * len(chunks)
