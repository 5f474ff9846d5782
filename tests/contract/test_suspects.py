"""Jobs that take their workers down: who is a suspect, who is charged, and when that ends in a dead job."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.suspicion import TOGETHER_SECONDS
from svc.errors import LeaseLost
from tests.support.asking import ack_of, chunk, lease, lease_one, nack_of, numbers, record, states, submit
from tests.support.inside import waiting_lessees
from tests.support.suspects import (
    BUDGET,
    JUDGED,
    SOON,
    consumer_of,
    lose,
    only,
    suspect_each,
    suspicions,
)


def test_all_that_a_lost_worker_held_is_granted_alone_from_then_on(engine, queue, names):
    suspect_each(engine, queue, names, 3)
    worker = consumer_of(engine, next(names))

    first = lease(worker, 9)
    record(worker, ack_of(first[0]))

    assert numbers(first) == [0]
    assert numbers(lease(worker, 9)) == [1]
    assert suspicions(queue, "o-0", "o-1", "o-2") == [0, 0, 0]


def test_suspects_stand_at_the_back_of_their_lane(engine, queue, names):
    submit(queue, chunk(0, 2))
    worker = consumer_of(engine, next(names))
    lease_one(worker)
    submit(queue, chunk(2, 2))

    lose(engine, worker)
    submit(queue, chunk(4, 1))
    other = consumer_of(engine, next(names))
    order = []
    for _ in range(5):
        delivery = lease_one(other)
        order += numbers([delivery])
        record(other, ack_of(delivery))

    assert order == [1, 2, 3, 0, 4]


def test_a_higher_priority_goes_before_a_suspect_and_a_lower_one_behind(engine, queue, names):
    suspect_each(engine, queue, names, 1)
    submit(queue, chunk(1, 1, priority=1), chunk(2, 1, priority=-1))
    worker = consumer_of(engine, next(names))

    assert [numbers([lease_one(consumer_of(engine, next(names)))])[0] for _ in range(3)] == [1, 0, 2]
    assert lease(worker) == []


def test_only_a_job_that_was_granted_alone_is_charged(engine, queue, names):
    """The job to blame may be any of a grant: the first one is as likely as the last."""
    submit(queue, chunk(0, 3))
    worker = consumer_of(engine, next(names))
    lease(worker, 3)

    lose(engine, worker)

    assert suspicions(queue, "o-0", "o-1", "o-2") == [0, 0, 0]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_job_that_loses_a_worker_again_and_again_is_dead_with_that_cause(engine, names, restarted):
    suspect_each(engine, engine.client(), names, 1)
    for lost in range(1, BUDGET + 1):
        if restarted:
            engine.restart()
            engine.advance(engine.limits.reconnect_seconds + 0.1)
        assert states(engine.client(), "o-0") == ["ready"]
        worker = consumer_of(engine, next(names))
        assert lease_one(worker).suspicions == lost - 1
        lose(engine, worker)
        assert suspicions(engine.client(), "o-0") == [lost]

    view = only(engine.client())

    assert (view.state, view.suspect) == ("dead", False)
    assert [attempt.how for attempt in view.attempts] == ["interrupted"] + ["suspected"] * BUDGET
    assert [attempt.number for attempt in view.attempts] == list(range(1, BUDGET + 2))
    assert "WorkerLost" in view.attempts[-1].error.type


def test_a_job_behind_a_poison_job_is_done_and_never_charged(engine, queue, names):
    suspect_each(engine, queue, names, 3)
    ended = []
    while only(queue).state != "dead":
        worker = consumer_of(engine, next(names))
        delivery = lease_one(worker)
        if numbers([delivery]) == [0]:
            lose(engine, worker)
        else:
            record(worker, ack_of(delivery))
            ended += numbers([delivery])
        assert len(ended) < 3

    assert ended == [1, 2]
    assert suspicions(queue, "o-1", "o-2") == [0, 0]


def test_a_requeued_job_is_no_suspect_and_has_a_fresh_budget(engine, queue, names):
    suspect_each(engine, queue, names, 1)
    for _ in range(BUDGET):
        worker = consumer_of(engine, next(names))
        lease_one(worker)
        lose(engine, worker)

    queue.requeue(["o-0"])

    view = only(queue)
    assert (view.state, view.suspicions, view.suspect) == ("ready", 0, False)


def test_the_process_goes_on_with_its_job_if_it_is_back_before_the_judgement(engine, queue, names):
    suspect_each(engine, queue, names, 1)
    worker = consumer_of(engine, "p")
    delivery = lease_one(worker)
    lose(engine, worker, wait=SOON)

    held = c.Held(delivery.token, "o", 0, 1)
    again = engine.consumer("p-1", "p", held=[held])
    engine.advance(JUDGED)
    record(again, ack_of(delivery))

    assert again.welcome.lost == []
    assert (only(queue).state, only(queue).suspicions) == ("succeeded", 0)


def test_a_suspicion_is_withdrawn_if_the_process_comes_back_later(engine, queue, names):
    suspect_each(engine, queue, names, 1)
    worker = consumer_of(engine, "p")
    delivery = lease_one(worker)
    lose(engine, worker)
    assert suspicions(queue, "o-0") == [1]

    again = engine.consumer("p-1", "p", held=[c.Held(delivery.token, "o", 0, 1)])

    assert again.welcome.lost == [delivery.token]
    assert suspicions(queue, "o-0") == [0]
    assert only(queue).suspect  # for the worker that it lost before


@pytest.mark.parametrize("restarted", [False, True])
def test_jobs_are_no_suspects_any_more_if_the_process_comes_back(engine, names, restarted):
    submit(engine.client(), chunk(0, 3))
    worker = consumer_of(engine, "p")
    (delivery,) = lease(worker, 3)
    lose(engine, worker)
    assert only(engine.client()).suspect
    if restarted:
        engine.restart()
        engine.advance(engine.limits.reconnect_seconds + 0.1)
        lease_one(consumer_of(engine, next(names)))  # so that it cannot be restored

    engine.consumer("p-1", "p", held=[c.Held(delivery.token, "o", 0, 3)])

    assert [view.suspect for view in engine.client().get(["o-0", "o-1", "o-2"])] == [False] * 3
    assert numbers(lease(consumer_of(engine, next(names)), 48)) == ([1, 2] if restarted else [0, 1, 2])


def test_a_late_outcome_withdraws_a_suspicion_too(engine, queue, names):
    """A process that was frozen has the same connection as before."""
    suspect_each(engine, queue, names, 1)
    engine.supervisor("p")
    worker = consumer_of(engine, "p")
    delivery = lease_one(worker)
    engine.advance(engine.limits.lease_seconds + 1)
    engine.advance(TOGETHER_SECONDS)
    assert suspicions(queue, "o-0") == [1]

    with pytest.raises(LeaseLost):
        record(worker, ack_of(delivery))

    assert suspicions(queue, "o-0") == [0]


@pytest.mark.parametrize("how", ["ack", "nack", "release", "checkpoint", "yield"])
def test_a_report_before_the_judgement_counts_although_the_worker_was_silent(engine, queue, names, how):
    """Otherwise the job would stay with a consumer that has already reported it."""
    suspect_each(engine, queue, names, 1)
    supervisor = engine.supervisor("p")
    worker = consumer_of(engine, "p")
    delivery = lease_one(worker)
    engine.advance(engine.limits.lease_seconds + 1)
    token = delivery.token
    reports: dict[str, c.Ack | c.Nack | c.Release | c.Checkpoint | c.Yield] = {
        "ack": ack_of(delivery),
        "nack": nack_of(delivery),
        "release": c.Release(token, 0),
        "checkpoint": c.Checkpoint(token, 0, b"data"),
        "yield": c.Yield(token, 0, 0, [b"value"]),
    }

    assert record(worker, reports[how]) == 1
    record(supervisor, c.Extend())
    engine.advance(JUDGED)

    state = {"ack": "succeeded", "nack": "dead", "release": "ready"}.get(how, "leased")
    assert (only(queue).state, only(queue).suspicions) == (state, 0)


def test_another_process_of_the_same_name_withdraws_nothing(engine, queue, names):
    suspect_each(engine, queue, names, 1)
    worker = consumer_of(engine, "p")
    lease_one(worker)
    lose(engine, worker)

    consumer_of(engine, "p")

    assert suspicions(queue, "o-0") == [1]


@pytest.mark.usefixtures("still")
def test_workers_that_are_lost_together_charge_nobody(engine, queue, names):
    suspect_each(engine, queue, names, 1)
    suspect, other = consumer_of(engine, next(names)), consumer_of(engine, next(names))
    lease_one(suspect)
    engine.cut(suspect)
    engine.advance(SOON)
    engine.cut(other)

    engine.advance(TOGETHER_SECONDS - 0.1)
    engine.advance(SOON)

    view = only(queue)
    assert (view.suspicions, view.state, view.suspect) == (0, "ready", True)
    assert view.interruptions == 2


def test_workers_that_are_lost_one_after_the_other_do_charge(engine, queue, names):
    suspect_each(engine, queue, names, 1)
    suspect, other = consumer_of(engine, next(names)), consumer_of(engine, next(names))
    lease_one(suspect)

    lose(engine, suspect)
    lose(engine, other)

    assert suspicions(queue, "o-0") == [1]


@pytest.mark.usefixtures("still")
def test_a_suspect_that_ends_two_workers_in_a_row_is_charged_for_the_second(engine, queue, names):
    """It is handed out at once when the first one is found to be lost, and the second is lost soon after."""
    submit(queue)
    name = next(names)
    first, beside = consumer_of(engine, name), consumer_of(engine, name, place=2)
    second = consumer_of(engine, next(names))
    lease_one(first)
    engine.cut(first)
    engine.advance(0.2)
    engine.cut(beside)
    # It waits, and gets the job in the very turn in which the first worker is found to be lost.
    waiting = threading.Thread(target=lease, args=(second, 1, timedelta(seconds=30)))
    waiting.start()
    engine.until(lambda host: waiting_lessees(host) == 1)
    engine.advance(SOON - 0.2)
    waiting.join(30)
    engine.advance(0.1)

    lose(engine, second)

    assert suspicions(queue, "o-0") == [1]


def test_suspects_run_on_one_worker_at_a_time(engine, queue, names):
    suspect_each(engine, queue, names, 3)
    first, second = next(names), next(names)
    held = [lease_one(consumer_of(engine, first, place=place)) for place in (1, 2)]

    other = consumer_of(engine, second)

    assert numbers(held) == [0, 1]
    assert lease(other) == []


def test_one_that_lost_a_worker_as_a_suspect_runs_while_no_other_does(engine, queue, names):
    suspect_each(engine, queue, names, 2)
    worker = consumer_of(engine, next(names))
    lease_one(worker)
    lose(engine, worker)
    assert suspicions(queue, "o-0", "o-1") == [1, 0]

    name = next(names)
    first, second = consumer_of(engine, name), consumer_of(engine, name, place=2)
    delivery = lease_one(first)

    assert numbers([delivery]) == [1]
    assert lease(second) == []
    record(first, ack_of(delivery))
    assert numbers(lease(second)) == [0]


def test_the_suspects_of_another_queue_may_run_on_another_worker(engine, queue, names):
    submit(queue, chunk(0, 1, queue="a"), chunk(1, 1, queue="b"))
    workers = [engine.consumer(f"{name}-1", name, queues=[q]) for name, q in (("u", "a"), ("v", "b"))]
    for worker in workers:
        lease_one(worker)
    lose(engine, *workers)

    again = [engine.consumer(f"{name}-1", name, queues=[q]) for name, q in (("x", "a"), ("y", "b"))]

    assert [numbers(lease(worker)) for worker in again] == [[0], [1]]


def test_a_waiting_consumer_gets_a_suspect_once_the_one_before_has_ended(engine, queue, names):
    suspect_each(engine, queue, names, 2)
    first = consumer_of(engine, next(names))
    delivery = lease_one(first)
    record(first, ack_of(delivery))

    assert numbers(lease(consumer_of(engine, next(names)))) == [1]


@pytest.mark.parametrize("how", ["ack", "cancel", "dead"])
def test_a_suspect_is_none_once_it_has_ended(engine, queue, names, how):
    suspect_each(engine, queue, names, 1)
    worker = consumer_of(engine, next(names))
    if how == "cancel":
        queue.cancel(["o-0"])
    else:
        delivery = lease_one(worker)
        worker.call([ack_of(delivery) if how == "ack" else nack_of(delivery)])

    assert not only(queue).suspect
    assert not engine.inside(lambda host: bool(host.state.ledger.losses.by_event))


@pytest.mark.usefixtures("still")
def test_a_suspect_that_fails_is_one_still_when_it_is_tried_again(engine, queue, names):
    suspect_each(engine, queue, names, 2)
    worker = consumer_of(engine, next(names))
    delivery = lease_one(worker)
    worker.call([nack_of(delivery, retry_in=5.0)])
    engine.supervisor(worker="z")

    engine.advance(5.1)
    again = consumer_of(engine, next(names))

    assert only(queue).suspect
    assert numbers(lease(again, 9)) == [0]  # it has become one before job 1: both by one event
    assert isinstance(delivery, r.Delivery)


@pytest.mark.usefixtures("still")
def test_a_lost_attempt_has_the_time_that_it_ran(engine, queue, names):
    submit(queue)
    worker = consumer_of(engine, next(names))
    lease_one(worker)
    engine.advance(7)
    engine.cut(worker)
    engine.advance(SOON)

    (attempt,) = only(queue).attempts

    assert (attempt.number, attempt.how) == (1, "interrupted")
    assert 6.999 <= attempt.seconds <= 7.0 + SOON


def test_old_attempts_that_are_no_longer_kept_count_in_the_numbers(engine, queue):
    submit(queue)
    worker = engine.consumer()
    for _ in range(25):
        worker.call([nack_of(lease_one(worker), retry_in=0.0)])

    assert [attempt.number for attempt in only(queue).attempts] == list(range(6, 26))
