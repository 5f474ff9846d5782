"""Suspects and the processes of a worker: planned stops, dead consumers, and names that are taken over."""

from __future__ import annotations

import pytest

from svc.domain import commands as c
from tests.support.asking import chunk, lease, lease_one, numbers, record, states, submit
from tests.support.suspects import (
    BUDGET,
    DIED,
    JUDGED,
    consumer_of,
    lose,
    only,
    suspect_each,
)


def test_a_planned_stop_makes_no_suspects(engine, queue, names):
    submit(queue, chunk(0, 2))
    supervisor = engine.supervisor("p")
    worker = consumer_of(engine, "p")
    lease(worker, 2)
    record(supervisor, c.Extend(stopping=True))

    engine.cut(supervisor)
    lose(engine, worker)

    assert [view.suspect for view in queue.get(["o-0", "o-1"])] == [False, False]


def test_jobs_that_a_supervisor_gives_back_are_no_suspects(engine, queue):
    submit(queue, chunk(0, 3))
    supervisor = engine.supervisor("p")
    (delivery,) = lease(consumer_of(engine, "p"), 3)

    supervisor.call([c.Release(delivery.token, 0, started=True, seconds=2.5), c.Lost("p-1", DIED)])

    assert [view.suspect for view in queue.get(["o-0", "o-1", "o-2"])] == [False] * 3
    assert [attempt.seconds for attempt in only(queue).attempts] == [2.5]


def test_a_consumer_that_dies_with_unsent_outcomes_makes_suspects_and_then_charges(engine, queue):
    submit(queue, chunk(0, 2))
    supervisor = engine.supervisor("p")
    lease(consumer_of(engine, "p"), 2)
    supervisor.call([c.Lost("p-1", DIED, suspect=True)])
    assert [(view.suspect, view.suspicions) for view in queue.get(["o-0", "o-1"])] == [(True, 0)] * 2

    queue.cancel(["o-1"])
    for place in range(2, 2 + BUDGET):
        lease_one(consumer_of(engine, "p", place=place))
        supervisor.call([c.Lost(f"p-{place}", DIED, suspect=True)])

    assert (only(queue).state, only(queue).suspicions) == ("dead", BUDGET)


def test_a_job_ran_until_its_supervisor_told_that_its_consumer_has_died(engine, queue):
    submit(queue)
    supervisor = engine.supervisor("p")
    lease_one(consumer_of(engine, "p"))
    for _ in range(2):
        engine.advance(4.0)
        supervisor.call([c.Lost("p-1", DIED, suspect=True)])
        lease(consumer_of(engine, "p"), 1)
    times = [(attempt.how, int(attempt.seconds)) for attempt in only(queue).attempts]
    assert times == [("interrupted", 4), ("suspected", 4)]


def test_a_job_that_had_begun_is_charged_at_once(engine, queue):
    submit(queue, chunk(0, 3))
    supervisor = engine.supervisor("p")
    (delivery,) = lease(consumer_of(engine, "p"), 3)

    supervisor.call([c.Release(delivery.token, 0, started=True, seconds=1.5, suspect=True)])

    assert [(view.suspect, view.suspicions) for view in queue.get(["o-0", "o-1", "o-2"])] == [
        (True, 1),
        (False, 0),
        (False, 0),
    ]
    assert [(attempt.how, attempt.seconds) for attempt in only(queue).attempts] == [("suspected", 1.5)]


def test_a_process_that_takes_the_name_of_a_lost_one_does_not_hide_the_loss(engine, queue):
    """A container starts again within the time that a worker has to come back."""
    submit(queue, chunk(0, 2))
    old = engine.consumer("p-1", "p", life=1)
    lease(old, 2)
    engine.cut(old)

    new = engine.consumer("p-1", "p", life=2)

    assert [view.suspect for view in queue.get(["o-0", "o-1"])] == [True, True]
    assert numbers(lease(new, 9)) == [0]


def test_a_supervisor_of_another_life_finds_the_jobs_of_the_last_one_given_back(engine, queue):
    submit(queue, chunk(0, 2))
    engine.supervisor("p", life=1)
    old = engine.consumer("p-1", "p", life=1)
    lease(old, 2)
    engine.cut(old)

    engine.supervisor("p", life=2)

    assert states(queue, "o-0", "o-1") == ["ready", "ready"]


@pytest.mark.parametrize("others", [0, 1, 2])
def test_a_process_that_takes_the_name_of_a_lost_one_does_not_get_its_suspect(engine, queue, names, others):
    """The new supervisor reports before the trial is over; the lease must not pass to its consumer."""
    suspect_each(engine, queue, names, 1)
    lost = [engine.supervisor("p", life=1), engine.consumer("p-1", "p", life=1)]
    rest = [engine.consumer(f"p-{place}", "p", life=1) for place in range(2, 2 + others)]
    lease(lost[1], 1)
    for broker in lost:
        engine.cut(broker)

    supervisor, _ = engine.supervisor("p", life=2), engine.consumer("p-1", "p", life=2)
    for broker in rest:
        engine.cut(broker)
    record(supervisor, c.Extend(consumers=["p-1"]))
    engine.advance(JUDGED)

    assert (only(queue).state, only(queue).suspicions) == ("ready", 1)


def test_a_process_may_begin_before_the_connections_of_the_lost_one_are_seen_to_end(engine, queue, names):
    suspect_each(engine, queue, names, 1)
    lost = [engine.supervisor("p", life=1), engine.consumer("p-1", "p", life=1)]
    lease(lost[1], 1)

    supervisor, _ = engine.supervisor("p", life=2), engine.consumer("p-2", "p", life=2)
    for broker in lost:
        engine.cut(broker)
    record(supervisor, c.Extend(consumers=["p-2"]))
    engine.consumer("p-1", "p", life=2)
    record(supervisor, c.Extend(consumers=["p-1", "p-2"]))
    engine.advance(JUDGED)

    assert (only(queue).state, only(queue).suspicions) == ("ready", 1)


def test_a_consumer_that_takes_the_name_of_a_lost_one_does_not_get_its_suspect(engine, queue, names):
    """The manager has not seen the end of the old connection: the new one takes its place."""
    suspect_each(engine, queue, names, 1)
    engine.supervisor("p", life=1)
    lease(engine.consumer("p-1", "p", life=1), 1)

    supervisor, _ = engine.supervisor("p", life=2), engine.consumer("p-1", "p", life=2)
    record(supervisor, c.Extend(consumers=["p-1"]))
    engine.advance(JUDGED)

    assert (only(queue).state, only(queue).suspicions) == ("ready", 1)


def test_the_same_process_on_a_new_connection_makes_no_suspects(engine, queue):
    submit(queue)
    old = engine.consumer("p-1", "p", life=1)
    delivery = lease_one(old)
    engine.cut(old)

    engine.consumer("p-1", "p", life=1, held=[c.Held(delivery.token, "o", 0, 1)])

    assert (only(queue).state, only(queue).suspect) == ("leased", False)
