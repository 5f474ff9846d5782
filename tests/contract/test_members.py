"""Who comes and goes: hello, reconnecting with leases in hand, drain and pills."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.members import DOUBLED_SECONDS
from svc.errors import BadRequest, LeaseLost, ProtocolMismatch
from svc.wire import PROTOCOL_VERSION
from tests.support.asking import NOW, ack_of, chunk, counts, lease, lease_one, numbers, record, states, submit
from tests.support.inside import waiting_lessees


def held(delivery: r.Delivery) -> c.Held:
    return c.Held(delivery.token, delivery.origin, delivery.first, len(delivery.bodies))


def test_the_welcome_names_the_limits(engine):
    welcome = engine.consumer().welcome

    assert (welcome.version, welcome.lost) == (PROTOCOL_VERSION, [])
    assert welcome.lease_seconds == engine.limits.lease_seconds
    assert welcome.max_job_bytes == engine.limits.max_job_bytes


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (c.Hello(PROTOCOL_VERSION + 1, "client"), ProtocolMismatch),
        (c.Hello(PROTOCOL_VERSION, "stranger"), BadRequest),
    ],
)
def test_a_wrong_hello_is_refused(engine, wrong, error):
    with pytest.raises(error):
        engine.join(wrong)


def test_one_connection_is_one_member(engine):
    consumer = engine.consumer("w-1")

    (again, other) = consumer.call(
        [c.Hello(PROTOCOL_VERSION, "consumer", "w-1", "w"), c.Hello(PROTOCOL_VERSION, "consumer", "w-2", "w")]
    )

    assert isinstance(again, r.Welcome)
    assert isinstance(other, r.Refused)


def test_a_consumer_that_comes_back_keeps_the_leases_it_names(engine, queue):
    submit(queue)
    engine.supervisor()
    consumer = engine.consumer()
    delivery = lease_one(consumer)
    engine.cut(consumer)

    again = engine.consumer(held=[held(delivery)])

    assert again.welcome.lost == []
    assert states(queue, "o-0") == ["leased"]
    record(again, ack_of(delivery))
    assert states(queue, "o-0") == ["succeeded"]


def test_jobs_whose_grant_never_arrived_go_back_when_the_consumer_does(engine, queue):
    submit(queue, chunk(0, 2))
    engine.supervisor()
    consumer = engine.consumer()
    known = lease_one(consumer)
    lease_one(consumer)
    engine.cut(consumer)

    engine.consumer(held=[held(known)])

    assert states(queue, "o-0", "o-1") == ["leased", "ready"]
    assert queue.get(["o-1"])[0].interruptions == 0


def test_what_waits_on_a_connection_that_was_replaced_gets_no_job(engine, queue):
    """Its answer would go to a socket that nobody reads."""
    engine.supervisor()
    old = engine.consumer()
    engine.consumer()
    submit(queue)

    with pytest.raises(BadRequest):
        lease(old)

    assert states(queue, "o-0") == ["ready"]


def test_a_lease_that_moved_on_meanwhile_is_told_as_lost(engine, queue):
    submit(queue)
    consumer = engine.consumer()
    delivery = lease_one(consumer)
    engine.advance(engine.limits.lease_seconds + 1)
    lease_one(engine.consumer("v-1", "v"))

    again = engine.consumer(held=[held(delivery)])

    assert again.welcome.lost == [delivery.token]
    with pytest.raises(LeaseLost):
        record(again, ack_of(delivery))


def test_held_leases_are_adopted_after_a_restart(engine):
    submit(engine.client(), chunk(0, 3))
    (delivery,) = lease(engine.consumer(), 2)
    engine.restart()

    again = engine.consumer(held=[held(delivery)])
    other = engine.consumer("v-1", "v")
    engine.advance(engine.limits.reconnect_seconds + 0.1)

    assert again.welcome.lost == []
    assert numbers(lease(other, 9)) == [2]
    record(again, ack_of(delivery))
    assert states(engine.client(), "o-0", "o-1") == ["succeeded", "succeeded"]


def test_a_lease_of_which_some_results_are_recorded_is_adopted_from_there_on(engine):
    """The answer to an ack may be lost with the manager: the consumer does not know that it was recorded."""
    submit(engine.client(), chunk(0, 3))
    consumer = engine.consumer()
    (delivery,) = lease(consumer, 3)
    record(consumer, c.Ack(delivery.token, 0, [b"a"], [0.1]))
    engine.restart()

    again = engine.consumer(held=[held(delivery)])
    record(again, ack_of(delivery, b"x"))

    assert again.welcome.lost == []
    outcomes = engine.client().wait(["o-0", "o-1", "o-2"], NOW)
    assert [outcome.result for outcome in outcomes] == [b"a", b"x", b"x"]


@pytest.mark.usefixtures("still")
def test_a_lease_of_a_delayed_job_is_adopted_too(engine):
    submit(engine.client(), chunk(0, delay=5.0))
    engine.advance(6)
    delivery = lease_one(engine.consumer())
    engine.restart()

    assert engine.consumer(held=[held(delivery)]).welcome.lost == []


def test_consumers_get_time_to_come_back_after_a_restart_before_their_jobs_are_handed_on(engine):
    submit(engine.client())
    lease_one(engine.consumer())
    engine.restart()
    other = engine.consumer("v-1", "v")

    assert lease(other) == []
    engine.advance(engine.limits.reconnect_seconds + 0.1)
    assert numbers(lease(other)) == [0]


@pytest.mark.parametrize(
    "made_up",
    [
        c.Held(99, "o", 0, 0),
        c.Held(99, "o", 0, 9),
        c.Held(99, "o", (1 << 53) - 1, (1 << 53) - 1),
        c.Held(99, "x", 0, 1),
        c.Held(1 << 60, "o", 0, 1),
    ],
)
def test_leases_that_never_were_are_lost(engine, queue, made_up):
    submit(queue)

    assert engine.consumer(held=[made_up]).welcome.lost == [made_up.token]
    assert states(queue, "o-0") == ["ready"]


def test_members_describes_the_workers(engine, queue):
    supervisor = engine.supervisor("w")
    submit(queue, chunk(0, 2))
    lease(engine.consumer("w-1"), 2)
    engine.consumer("w-2", tasks=["m:g"])
    record(supervisor, c.Extend(restarts=3, round_trip=0.02))

    (worker,) = queue.members()

    assert (worker.name, worker.consumers, worker.busy, worker.leased) == ("w", 2, 1, 2)
    assert (worker.round_trip, worker.read_ahead) == (0.02, 1)
    assert {"m:f", "m:g"} <= set(worker.tasks)
    assert (worker.restarts, worker.draining) == (3, False)
    totals = queue.stats()
    assert (totals.workers, totals.consumers, totals.busy) == (1, 2, 1)


def test_leave_ends_a_membership(engine, queue):
    engine.consumer().close()

    assert queue.members() == []
    assert queue.stats().consumers == 0


def test_a_drain_gives_a_pill_to_every_consumer_that_asks_until_resumed(engine, queue):
    submit(queue)
    first, second = engine.consumer("w-1"), engine.consumer("w-2")

    queue.drain()
    pills = [consumer.lease(limit=1, wait=NOW).grant for consumer in (first, second, first)]

    assert all(grant.pill > 0 and not grant.deliveries for grant in pills)
    assert queue.stats().drain == pills[0].pill
    queue.resume()
    assert queue.stats().drain == 0
    assert numbers(lease(first)) == [0]


def test_a_drain_reaches_a_consumer_that_waits_already(engine, queue):
    consumer, got = engine.consumer(), []
    thread = threading.Thread(
        target=lambda: got.append(consumer.lease(limit=1, wait=timedelta(seconds=30)).grant.pill)
    )
    thread.start()
    engine.until(lambda host: waiting_lessees(host) == 1)

    queue.drain()
    thread.join(30)

    assert got[0] > 0


def test_a_drain_is_durable_and_so_is_its_end(engine):
    engine.client().drain()
    engine.restart()
    assert engine.consumer().lease(limit=1, wait=NOW).grant.pill > 0
    engine.client().resume()
    engine.restart()

    assert engine.consumer().lease(limit=1, wait=NOW).grant.pill == 0


def test_a_second_drain_changes_nothing(engine, queue):
    queue.drain()
    epoch = queue.stats().drain

    queue.drain()

    assert queue.stats().drain == epoch


def test_one_worker_can_be_drained_alone(engine, queue):
    queue.drain(worker="w")

    assert engine.consumer("w-1", "w").lease(limit=1, wait=NOW).grant.pill > 0
    assert engine.consumer("v-1", "v").lease(limit=1, wait=NOW).grant.pill == 0
    assert queue.stats().drained_workers == ["w"]
    queue.resume(worker="w")
    assert engine.consumer("w-1", "w").lease(limit=1, wait=NOW).grant.pill == 0


def test_outcomes_are_taken_during_a_drain(engine, queue):
    submit(queue)
    consumer = engine.consumer()
    delivery = lease_one(consumer)
    queue.drain(refuse=True)

    record(consumer, ack_of(delivery))

    assert states(queue, "o-0") == ["succeeded"]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_refusing_drain_refuses_new_jobs_until_resumed(engine, restarted):
    engine.client().drain(refuse=True)
    if restarted:
        engine.restart()
    queue = engine.client()

    (note,) = submit(queue)
    assert note.code == "draining"
    queue.resume()

    assert submit(queue) == []


@pytest.mark.parametrize("restarted", [False, True])
def test_new_jobs_are_taken_again_when_the_one_worker_whose_drain_refuses_them_is_resumed(engine, restarted):
    queue = engine.client()
    queue.drain(worker="w", refuse=True)
    queue.drain(worker="v")
    queue.resume(worker="v")
    assert [note.code for note in submit(queue)] == ["draining"]

    queue.resume(worker="w")
    if restarted:
        engine.restart()

    assert submit(engine.client()) == []


def test_resume_is_harmless_where_nothing_drains(queue):
    queue.resume()
    queue.resume(worker="w")

    assert queue.stats().drain == 0


def test_a_drain_alone_still_accepts_jobs(queue):
    queue.drain()

    assert submit(queue) == []
    assert counts(queue).ready == 1
    assert "drain" in queue.get(["o-0"])[0].reason


def test_a_name_that_two_processes_have_is_shown_until_one_is_not_heard_of_for_a_minute(engine, queue):
    first = engine.supervisor(life=1)
    shown = [queue.members()[0].doubled]
    second = engine.supervisor(life=2)
    shown.append(queue.members()[0].doubled)
    for _ in range(2):  # the place of the first is taken, and it goes on
        engine.advance(DOUBLED_SECONDS - 1.0)
        assert isinstance(first.call([c.Extend()])[0], r.Refused)
        second.call([c.Extend()])
        shown.append(queue.members()[0].doubled)
    engine.advance(DOUBLED_SECONDS)
    second.call([c.Extend()])
    shown.append(queue.members()[0].doubled)

    assert shown == [False, True, True, True, False]


def test_a_supervisor_that_comes_back_on_another_connection_is_not_shown_as_two(engine, queue):
    first = engine.supervisor(life=1)
    engine.supervisor(life=1)

    assert isinstance(first.call([c.Extend()])[0], r.Refused)
    assert not queue.members()[0].doubled
