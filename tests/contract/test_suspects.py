"""Jobs that take their workers down: who is a suspect, who is charged, and when that ends in a dead job."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from itertools import count

import pytest

from svc.broker.base import Broker
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import ErrorInfo, JobView
from svc.domain.limits import Limits
from svc.domain.suspicion import TOGETHER_SECONDS
from svc.errors import LeaseLost
from tests.support.asking import ack_of, chunk, lease, lease_one, nack_of, numbers, states, submit
from tests.support.engines import Engine

#: What the queue is given to find out that nobody of a worker is there any more, and to judge.
SOON = 0.6
JUDGED = SOON + TOGETHER_SECONDS
BUDGET = Limits().suspicion_budget
DIED = ErrorInfo("ConsumerDied", "it is gone")


@pytest.fixture
def names() -> Iterator[str]:
    """Names for workers, no two of them equal."""
    return (f"w{number}" for number in count(1))


def consumer_of(engine: Engine, worker: str, *, place: int = 1) -> Broker:
    return engine.consumer(f"{worker}-{place}", worker)


def lose(engine: Engine, *lost: Broker, wait: float = JUDGED) -> None:
    """Let consumers go without a word, and nobody of their workers be there."""
    for broker in lost:
        engine.cut(broker)
    engine.advance(SOON)
    engine.advance(wait - SOON)


def only(queue: Broker, job: str = "o-0") -> JobView:
    (view,) = queue.get([job])
    return view


def suspicions(queue: Broker, *jobs: str) -> list[int]:
    return [view.suspicions for view in queue.get(jobs)]


def suspect_each(engine: Engine, queue: Broker, names: Iterator[str], jobs: int) -> None:
    """Submit jobs, and make suspects of them all."""
    submit(queue, chunk(0, jobs))
    worker = consumer_of(engine, next(names))
    assert len(numbers(lease(worker, jobs))) == jobs
    lose(engine, worker)
    assert [view.suspect for view in queue.get([f"o-{number}" for number in range(jobs)])] == [True] * jobs


def test_all_that_a_lost_worker_held_is_granted_alone_from_then_on(engine, queue, names):
    suspect_each(engine, queue, names, 3)
    worker = consumer_of(engine, next(names))

    first = lease(worker, 9)
    worker.ack(ack_of(first[0]))

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
        other.ack(ack_of(delivery))

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
        lease_one(worker)
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
            worker.ack(ack_of(delivery))
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


def test_the_process_goes_on_with_its_job_if_it_is_back_before_the_verdict(engine, queue, names):
    suspect_each(engine, queue, names, 1)
    worker = consumer_of(engine, "p")
    delivery = lease_one(worker)
    lose(engine, worker, wait=SOON)

    held = c.Held(delivery.token, "o", 0, 1)
    again = engine.consumer("p-1", "p", held=[held])
    engine.advance(JUDGED)
    again.ack(ack_of(delivery))

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
    assert only(queue).suspect  # for what was lost before


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
        worker.ack(ack_of(delivery))

    assert suspicions(queue, "o-0") == [0]


def test_another_process_of_the_same_name_withdraws_nothing(engine, queue, names):
    suspect_each(engine, queue, names, 1)
    worker = consumer_of(engine, "p")
    lease_one(worker)
    lose(engine, worker)

    consumer_of(engine, "p")

    assert suspicions(queue, "o-0") == [1]


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
    engine.until(lambda host: host.waiting_lessees() == 1)
    engine.advance(SOON - 0.2)
    waiting.join(10)
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
    first.ack(ack_of(delivery))
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
    first.ack(ack_of(delivery))

    assert numbers(lease(consumer_of(engine, next(names)))) == [1]


def test_a_planned_stop_makes_no_suspects(engine, queue, names):
    submit(queue, chunk(0, 2))
    supervisor = engine.supervisor("p")
    worker = consumer_of(engine, "p")
    lease(worker, 2)
    supervisor.extend(c.Extend(stopping=True))

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
    supervisor.extend(c.Extend(consumers=["p-1"]))
    engine.advance(JUDGED)

    assert (only(queue).state, only(queue).suspicions) == ("ready", 1)


def test_a_process_may_begin_before_the_connections_of_the_lost_one_are_seen_to_end(engine, queue, names):
    suspect_each(engine, queue, names, 1)
    lost = [engine.supervisor("p", life=1), engine.consumer("p-1", "p", life=1)]
    lease(lost[1], 1)

    supervisor, _ = engine.supervisor("p", life=2), engine.consumer("p-2", "p", life=2)
    for broker in lost:
        engine.cut(broker)
    supervisor.extend(c.Extend(consumers=["p-2"]))
    engine.consumer("p-1", "p", life=2)
    supervisor.extend(c.Extend(consumers=["p-1", "p-2"]))
    engine.advance(JUDGED)

    assert (only(queue).state, only(queue).suspicions) == ("ready", 1)


def test_a_consumer_that_takes_the_name_of_a_lost_one_does_not_get_its_suspect(engine, queue, names):
    """The manager has not seen the end of the old connection: the new one takes its place."""
    suspect_each(engine, queue, names, 1)
    engine.supervisor("p", life=1)
    lease(engine.consumer("p-1", "p", life=1), 1)

    supervisor, _ = engine.supervisor("p", life=2), engine.consumer("p-1", "p", life=2)
    supervisor.extend(c.Extend(consumers=["p-1"]))
    engine.advance(JUDGED)

    assert (only(queue).state, only(queue).suspicions) == ("ready", 1)


def test_the_same_process_on_a_new_connection_makes_no_suspects(engine, queue):
    submit(queue)
    old = engine.consumer("p-1", "p", life=1)
    delivery = lease_one(old)
    engine.cut(old)

    engine.consumer("p-1", "p", life=1, held=[c.Held(delivery.token, "o", 0, 1)])

    assert (only(queue).state, only(queue).suspect) == ("leased", False)


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
    assert not engine.inside(lambda host: bool(host.state.ledger.losses))


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


def test_a_lost_attempt_has_the_time_that_it_ran(engine, queue, names):
    submit(queue)
    worker = consumer_of(engine, next(names))
    lease_one(worker)
    engine.advance(7)
    engine.cut(worker)
    engine.advance(SOON)

    (attempt,) = only(queue).attempts

    assert (attempt.number, attempt.how) == (1, "interrupted")
    assert 7.0 <= attempt.seconds < 7.0 + SOON


def test_old_attempts_that_are_no_longer_kept_count_in_the_numbers(engine, queue):
    submit(queue)
    worker = engine.consumer()
    for _ in range(25):
        worker.call([nack_of(lease_one(worker), retry_in=0.0)])

    assert [attempt.number for attempt in only(queue).attempts] == list(range(6, 26))
