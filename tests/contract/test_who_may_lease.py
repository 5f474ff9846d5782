"""Leases are for consumers and plain clients only, and none outlives those who see to it."""

from __future__ import annotations

from typing import Any

import pytest

from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import RESULTS_QUEUE, ErrorInfo
from svc.domain.upkeep import SWEEP_SECONDS
from svc.errors import BadRequest, LeaseLost
from svc.wire import PROTOCOL_VERSION
from tests.support.asking import (
    NOW,
    ack_of,
    chunk,
    counts,
    lease,
    lease_one,
    nack_of,
    numbers,
    record,
    states,
    submit,
)

HELD = [c.Held(7, "o", 0, 5)]
ERROR = ErrorInfo("ConsumerDied", "it is gone")


def _hello(role: str, **said: Any) -> c.Hello:
    return c.Hello(PROTOCOL_VERSION, role, **said)


@pytest.mark.parametrize(
    "hello",
    [
        _hello("client", held=HELD),
        _hello("client", queues=["default"]),
        _hello("client", tasks=["m:f"]),
        _hello("client", worker="w"),
        _hello("worker", name="w", worker="w", held=HELD),
        _hello("consumer", name="", worker="w", held=HELD),
        _hello("consumer", name="w-1", worker="w", queues=[RESULTS_QUEUE]),
        _hello("consumer", name="w-1", worker="w", queues=["default", "#"]),
        _hello("consumer", name="w-1", worker="w", tasks=["#item"]),
        _hello("consumer", name="w-1", worker="w", tasks=["#pill", "m:f"]),
        _hello("consumer", name="w\n1", worker="w"),
        _hello("consumer", name="w-1", worker="\x1b[2J"),
        _hello("worker", name="w", worker="w", http="http://elsewhere/metrics"),
        _hello("worker", name="w", worker="w", http="host"),
        _hello("worker", name="w", worker="w", http="host:80/path"),
        _hello("worker", name="w", worker="w", http="a b:80"),
        _hello("worker", name="w", worker="w", http="host:65536"),
        _hello("boss"),
    ],
    ids=lambda hello: f"{hello!r:.60}",
)
def test_nobody_introduces_himself_with_what_is_not_his(engine, queue, hello):
    submit(queue, chunk(0, 5))

    with pytest.raises(BadRequest):
        queue._one(hello, r.Welcome)

    assert queue.members() == []
    assert numbers(lease(engine.consumer(), 9)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "held", [c.Held(0, "o", 0, 1), c.Held(7, "put1", 0, 1), c.Held(7, "o", 5, 1), c.Held(7, "x", 0, 1)]
)
def test_only_a_job_that_one_could_run_is_taken_up_again(engine, queue, held):
    submit(queue, chunk(0, 5), chunk(5, queue="other"))

    assert engine.consumer(held=[held]).welcome.lost == [held.token]
    assert counts(queue).leased == counts(queue, "other").leased == 0


def test_a_late_leave_of_a_supervisor_changes_nothing_of_the_next_one(engine, queue):
    submit(queue)
    stale = engine.supervisor()
    engine.supervisor().call([c.Leave()])
    engine.supervisor()
    consumer = engine.consumer()
    lease_one(consumer)

    stale.call([c.Leave()])

    assert [worker.name for worker in queue.members()] == ["w"]
    engine.cut(consumer)
    engine.advance(engine.limits.lease_seconds + SWEEP_SECONDS)

    assert states(queue, "o-0") == ["ready"]


def test_a_supervisor_that_another_has_followed_renews_nothing(engine):
    stale = engine.supervisor()
    engine.supervisor()

    with pytest.raises(BadRequest):
        record(stale, c.Extend())


@pytest.mark.parametrize("known", [[], ["w-2", "w-3"]])
def test_a_consumer_that_is_gone_and_not_its_supervisors_keeps_no_job(engine, queue, known):
    """The supervisor renews the leases of all consumers of its worker: also of one that it never heard of."""
    submit(queue)
    supervisor, consumer = engine.supervisor(), engine.consumer("w-1")
    lease_one(consumer)
    engine.cut(consumer)
    for _ in range(3):
        engine.advance(engine.limits.lease_seconds / 2)
        record(supervisor, c.Extend(consumers=known))

    engine.advance(0.2)

    assert states(queue, "o-0") == ["ready"]


def test_a_consumer_of_its_supervisor_keeps_its_job_over_a_broken_connection(engine, queue):
    submit(queue)
    supervisor, consumer = engine.supervisor(), engine.consumer("w-1")
    lease_one(consumer)
    engine.cut(consumer)
    for _ in range(4):
        engine.advance(engine.limits.lease_seconds / 2)
        record(supervisor, c.Extend(consumers=["w-1"]))

    assert states(queue, "o-0") == ["leased"]


def test_consumers_that_are_gone_and_hold_nothing_are_forgotten(engine, queue):
    supervisor = engine.supervisor()
    for number in range(5):
        engine.cut(engine.consumer(f"w-{number}"))
    for _ in range(3):
        engine.advance(engine.limits.lease_seconds / 2)
        record(supervisor, c.Extend())

    assert queue.stats().consumers == 0


@pytest.mark.parametrize("report", [ack_of, nack_of, lambda d: c.Release(d.token, d.first)])
@pytest.mark.parametrize("other", ["consumer of another worker", "supervisor of another worker", "client"])
def test_who_guesses_a_token_settles_nothing(engine, queue, report, other):
    submit(queue)
    consumer = engine.consumer()
    delivery = lease_one(consumer)
    stranger = {
        "consumer of another worker": lambda: engine.consumer("v-1", "v"),
        "supervisor of another worker": lambda: engine.supervisor("v"),
        "client": engine.client,
    }[other]()

    with pytest.raises(LeaseLost):
        stranger._one(report(delivery), r.Done)

    assert states(queue, "o-0") == ["leased"]
    record(consumer, ack_of(delivery))
    assert states(queue, "o-0") == ["succeeded"]


def test_a_supervisor_charges_nothing_to_a_job_of_another_worker(engine, queue):
    submit(queue)
    delivery = lease_one(engine.consumer())

    engine.supervisor("v").call([c.Lost("w-1", ERROR, delivery.token, delivery.first)])

    assert states(queue, "o-0") == ["leased"]
    assert engine.client().wait(["o-0"], NOW) == []
