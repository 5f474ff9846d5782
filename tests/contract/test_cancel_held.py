"""Cancel of jobs that consumers hold: what is recorded, what goes back, and what their worker hears."""

from __future__ import annotations

from datetime import timedelta

import pytest

from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.limits import CANCEL_GRACE_SECONDS
from svc.errors import LeaseLost
from tests.support.asking import (
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

NO_TIME = timedelta(0)


def stops(supervisor) -> list[tuple[str, int, int, float]]:
    """Renew the leases of a worker; return the attempts that it has to end."""
    (told,) = supervisor.report([c.Extend(told=True)])
    assert isinstance(told, r.Extended)
    return [(each.consumer, each.token, each.number, each.grace) for each in told.stops]


def taken(consumer) -> list[int]:
    """Take all jobs, grant by grant."""
    found: list[int] = []
    while some := numbers(lease(consumer, 9)):
        found += some
    return found


def test_a_held_job_is_cancelled_only_if_asked_for_and_once(engine, queue):
    submit(queue)
    lease_one(engine.consumer())
    assert queue.cancel(["o-0"]) == 0
    assert queue.cancel(["o-0"], running=True) == 1
    assert queue.cancel(["o-0"], running=True) == 0
    assert states(queue, "o-0") == ["cancelled"]
    assert (counts(queue).leased, counts(queue).cancelled) == (0, 1)


def test_the_attempt_that_a_cancel_ended_is_told_also_after_a_restart(engine, queue):
    submit(queue)
    consumer = engine.consumer(code="3f2a91c07b54")
    record(consumer, nack_of(lease_one(consumer), 0.0))
    lease_one(consumer)
    engine.advance(4.0)
    queue.cancel(["o-0"], running=True)
    for _ in range(2):
        (job,) = queue.get(["o-0"])
        failed, cut = job.attempts
        assert (failed.how, failed.number, job.failures, job.interruptions) == ("failed", 1, 1, 0)
        assert (cut.how, cut.number, cut.consumer, cut.at) == ("cancelled", 2, "w-1", job.finished_at)
        assert (cut.code, job.code) == ("3f2a91c07b54", "3f2a91c07b54")
        assert 4.0 <= cut.seconds < 10.0
        assert (job.seconds, job.consumer, job.started_at) == (cut.seconds, "w-1", cut.at - cut.seconds)
        engine.restart()
        queue = engine.client()


def test_jobs_that_waited_or_were_read_ahead_when_they_were_cancelled_have_no_attempt(engine, queue):
    submit(queue, chunk(0, 4))
    lease(engine.consumer(), 3)
    names = [f"o-{n}" for n in range(4)]
    assert queue.cancel(names, running=True) == 4
    found = queue.get(names)
    assert [[each.how for each in job.attempts] for job in found] == [["cancelled"], [], [], []]
    assert [job.started_at is None for job in found] == [False, True, True, True]


@pytest.mark.parametrize("settle", [ack_of, nack_of])
def test_a_later_outcome_is_refused(settle, engine, queue):
    submit(queue)
    consumer = engine.consumer()
    delivery = lease_one(consumer)
    queue.cancel(["o-0"], running=True)
    with pytest.raises(LeaseLost):
        record(consumer, settle(delivery))
    assert states(queue, "o-0") == ["cancelled"]


def test_the_worker_hears_of_it_until_its_consumer_asks_for_jobs(engine, queue):
    submit(queue)
    supervisor, consumer = engine.supervisor(), engine.consumer()
    token = lease_one(consumer).token
    assert stops(supervisor) == []
    queue.cancel(["o-0"], running=True, grace=2.5)
    assert stops(supervisor) == stops(supervisor) == [("w-1", token, 0, 2.5)]
    lease(consumer, 1)
    assert stops(supervisor) == []


def test_the_worker_hears_of_it_although_its_consumer_asks_for_jobs_to_run_beside(engine, queue):
    submit(queue, chunk(0, 2), chunk(2))
    supervisor, consumer = engine.supervisor(), engine.consumer()
    tokens = [each.token for each in consumer.lease(limit=2, wait=NO_TIME, beside="m:f").grant.deliveries]
    queue.cancel(["o-0"], running=True, grace=2.5)
    assert numbers(consumer.lease(limit=1, wait=NO_TIME, beside="m:f").grant.deliveries) == [2]
    assert stops(supervisor) == [("w-1", tokens[0], 0, 2.5)]
    lease(consumer, 1)
    assert stops(supervisor) == []


def test_jobs_behind_a_cancelled_one_go_back_and_those_before_it_stay(engine, queue):
    submit(queue, chunk(0, 5))
    consumer, other = engine.consumer(), engine.consumer("w-2")
    delivery = lease(consumer, 5)[0]
    assert queue.cancel(["o-2"], running=True) == 1
    assert states(queue, *(f"o-{n}" for n in range(5))) == ["leased", "leased", "cancelled", "ready", "ready"]
    (refused,) = consumer.settle([c.Ack(delivery.token, 0, [b"r"] * 5, [0.0] * 5)])
    assert refused.code == "lease_lost"
    assert taken(other) == [3, 4]
    assert states(queue, "o-0", "o-1", "o-2") == ["succeeded", "succeeded", "cancelled"]


def test_several_jobs_of_one_lease_are_cancelled_together(engine, queue):
    submit(queue, chunk(0, 6))
    lease(engine.consumer(), 6)
    assert queue.cancel(["o-4", "o-0", "o-2"], running=True) == 3
    found = states(queue, *(f"o-{n}" for n in range(6)))
    assert found == ["cancelled", "ready", "cancelled", "ready", "cancelled", "ready"]
    assert taken(engine.consumer("w-2")) == [1, 3, 5]


def test_a_cancelled_job_stays_that_when_its_worker_is_lost(engine, queue):
    submit(queue, chunk(0, 2))
    consumer = engine.consumer()
    lease(consumer, 2)
    queue.cancel(["o-0"], running=True)
    engine.cut(consumer)
    engine.advance(100.0)
    assert states(queue, "o-0", "o-1") == ["cancelled", "ready"]


def test_a_consumer_that_comes_back_after_a_restart_is_stopped(engine, queue):
    submit(queue, chunk(0, 3))
    delivery = lease(engine.consumer(), 3)[0]
    queue.cancel(["o-1"], running=True)
    engine.restart()
    held = c.Held(delivery.token, "o", 0, 3)
    consumer, supervisor = engine.consumer(held=[held]), engine.supervisor()
    (told,) = supervisor.report([c.Extend(told=True, wait=60.0)])
    assert told.stops_made == 1, "a renewal does not wait while there is an order that it has not heard of"
    assert stops(supervisor) == [("w-1", delivery.token, 1, CANCEL_GRACE_SECONDS)]
    record(consumer, c.Ack(delivery.token, 0, [b"r"], [0.0]))
    assert states(engine.client(), "o-0", "o-1", "o-2") == ["succeeded", "cancelled", "ready"]


def test_a_consumer_that_cannot_say_hello_after_a_restart_is_stopped(engine, queue):
    """Its task keeps the interpreter's lock, and its supervisor names the job that it executes."""
    submit(queue)
    token = lease_one(engine.consumer()).token
    queue.cancel(["o-0"], running=True)
    engine.restart()
    supervisor = engine.supervisor()
    claims = [c.ClaimedJob("w-1", token, "o", 0)]
    for _ in range(2):
        (told,) = supervisor.report([c.Extend(told=True, consumers=["w-1"], claims=claims)])
        assert told.stops == [r.Stop("w-1", token, 0, CANCEL_GRACE_SECONDS)]
    assert told.stops_made == 1
    assert stops(supervisor) == [("w-1", token, 0, CANCEL_GRACE_SECONDS)]
    assert states(engine.client(), "o-0") == ["cancelled"]


def test_a_job_of_a_plain_client_is_left_alone(engine, queue):
    submit(queue)
    consumer = engine.consumer()
    lease_one(consumer)

    def as_plain(host):
        for each in host.state.holders:
            each.role = "plain"

    engine.inside(as_plain)
    assert queue.cancel(["o-0"], running=True) == 0


def test_who_comes_back_again_and_again_for_a_cancelled_job_is_told_once_to_stop(engine, queue):
    """Each hello of a consumer that named 1,024 such leases kept 1,024 orders more, and told all of them."""
    submit(queue, chunk(0, 2))
    queue.cancel(["o-0", "o-1"])
    supervisor = engine.supervisor()
    held = [c.Held(token, "o", token % 2, 1) for token in (1, 2)] * 8
    for _ in range(3):
        engine.consumer(held=held)
    assert stops(supervisor) == [("w-1", token, token % 2, CANCEL_GRACE_SECONDS) for token in (1, 2)]
