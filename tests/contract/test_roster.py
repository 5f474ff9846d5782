"""After a restart jobs wait only for workers that may hold them, and only until these are back."""

from __future__ import annotations

import pytest

from svc.domain import commands as c
from svc.domain import events as e
from svc.domain.job import ErrorInfo
from svc.domain.roster import FEW_GRANTS
from tests.support.asking import ack_of, chunk, lease, lease_one, numbers, record, states, submit

QUEUES = ("mail", "default")


@pytest.fixture
def held_by_w(engine):
    """Leave one job with the only consumer of worker `w`, and one ready, when the manager restarts."""
    submit(engine.client(), chunk(0, 2))
    engine.supervisor()
    (delivery,) = lease(engine.consumer())
    engine.restart()
    return c.Held(delivery.token, delivery.origin, delivery.first, 1)


def renew(supervisor, *consumers: str) -> None:
    record(supervisor, c.Extend(consumers=list(consumers)))


def claim(supervisor, held: c.Held, consumer: str = "w-1") -> None:
    """Renew, and name the job that a consumer executes which cannot say hello."""
    claims = [c.ClaimedJob(consumer, held.token, held.origin, held.first)]
    record(supervisor, c.Extend(consumers=[consumer], claims=claims))


def given_up(engine) -> None:
    engine.advance(engine.limits.reconnect_seconds + 0.1)


def test_jobs_go_out_at_once_when_the_last_worker_is_back(engine, held_by_w):
    idle = engine.consumer("v-1", "v")
    back = engine.consumer(held=[held_by_w])
    assert lease(idle) == []

    renew(engine.supervisor(), "w-1")

    assert numbers(lease(idle, 9)) == [1]
    assert back.welcome.lost == []


def test_a_worker_is_not_back_before_each_consumer_that_it_names_is(engine, held_by_w):
    idle = engine.consumer("v-1", "v")
    renew(engine.supervisor(), "w-1")
    assert lease(idle) == []

    again = engine.consumer(held=[held_by_w])

    assert numbers(lease(idle, 9)) == [1]
    assert again.welcome.lost == []


def test_a_worker_is_not_back_before_its_supervisor_has_named_its_consumers(engine, held_by_w):
    """The supervisor of an older release names none."""
    idle = engine.consumer("v-1", "v")
    supervisor = engine.supervisor()
    engine.consumer(held=[held_by_w])
    record(supervisor, c.Extend())
    assert lease(idle) == []
    given_up(engine)
    assert numbers(lease(idle, 9)) == [1]


def test_a_consumer_that_cannot_say_hello_keeps_its_job_by_its_supervisor(engine, held_by_w):
    idle = engine.consumer("v-1", "v")

    claim(engine.supervisor(), held_by_w)

    assert lease(idle, 9) == [], "it may have read the other job ahead"
    given_up(engine)
    assert numbers(lease(idle, 9)) == [1]


def test_a_consumer_whose_job_its_supervisor_has_named_goes_on_with_it(engine, held_by_w):
    supervisor = engine.supervisor()
    claim(supervisor, held_by_w)
    claim(supervisor, held_by_w)

    back = engine.consumer(held=[held_by_w])

    assert back.welcome.lost == []
    record(back, c.Ack(held_by_w.token, 0, [b"r"], [0.0]))
    assert states(engine.client(), "o-0", "o-1") == ["succeeded", "ready"]


def test_the_job_that_a_supervisor_has_named_is_charged_if_its_consumer_dies(engine, held_by_w):
    supervisor = engine.supervisor()
    claim(supervisor, held_by_w)
    supervisor.report([c.Lost("w-1", ErrorInfo("ConsumerDied", "exit code 1"), held_by_w.token, 0)])
    (job,) = engine.client().get(["o-0"])
    assert (job.state, job.crashes, job.attempts[0].consumer) == ("ready", 1, "w-1")


def test_a_consumer_that_has_said_hello_speaks_for_itself(engine, held_by_w):
    idle, supervisor = engine.consumer("v-1", "v"), engine.supervisor()
    engine.consumer()
    claim(supervisor, held_by_w)
    assert lease_one(idle).first == 0


def test_nothing_is_claimed_for_a_consumer_that_has_ended_or_that_is_none_of_the_worker(engine, held_by_w):
    idle, supervisor = engine.consumer("v-1", "v"), engine.supervisor()
    supervisor.report([c.Lost("w-1", ErrorInfo("ConsumerDied", "exit code 1"))])
    claim(supervisor, held_by_w)
    named = c.ClaimedJob("w-2", held_by_w.token, held_by_w.origin, held_by_w.first)
    record(supervisor, c.Extend(consumers=["w-3"], claims=[named]))
    renew(supervisor)
    assert numbers(lease(idle, 9)) == [0, 1]


def test_a_job_that_another_consumer_has_meanwhile_is_not_taken_from_it(engine, held_by_w):
    given_up(engine)
    other = engine.consumer("v-1", "v")
    taken = lease_one(other)
    claim(engine.supervisor(), held_by_w)
    record(other, ack_of(taken))
    assert states(engine.client(), "o-0") == ["succeeded"]
    late = engine.consumer(held=[held_by_w])
    assert late.welcome.lost == [held_by_w.token]


def test_a_consumer_that_ended_meanwhile_is_not_waited_for(engine, held_by_w):
    idle, supervisor = engine.consumer("v-1", "v"), engine.supervisor()
    supervisor.report([c.Lost("w-1", ErrorInfo("ConsumerDied", "exit code 1"))])

    renew(supervisor)

    assert numbers(lease(idle, 9)) == [0, 1]


def test_a_worker_that_says_goodbye_is_not_waited_for(engine, held_by_w):
    idle, supervisor = engine.consumer("v-1", "v"), engine.supervisor()
    supervisor.leave([])
    assert numbers(lease(idle, 9)) == [0, 1]


def test_a_worker_that_left_before_the_restart_is_not_waited_for(engine):
    submit(engine.client(), chunk(0, 2))
    supervisor, consumer = engine.supervisor(), engine.consumer()
    record(consumer, ack_of(lease_one(consumer)))
    consumer.leave([])
    supervisor.leave([])
    engine.restart()
    assert numbers(lease(engine.consumer("v-1", "v"), 9)) == [1]


def test_jobs_accepted_since_the_restart_wait_for_nobody(engine, held_by_w):
    idle = engine.consumer("v-1", "v")
    submit(engine.client(), chunk(2, 2))
    submit(engine.client(), chunk(0), origin="p")
    assert [(each.origin, each.first) for each in lease(idle, 9)] == [("o", 2), ("p", 0)]
    given_up(engine)
    assert numbers(lease(idle, 9)) == [0, 1]


@pytest.mark.parametrize("other", [{"queue": "mail"}, {"task": "m:g"}, {"codec": "pickle"}])
def test_jobs_that_the_missing_worker_does_not_take_go_out_at_once(engine, other):
    client = engine.client()
    submit(client, chunk(0, 2), chunk(2, 1, **other))
    lease_one(engine.consumer(accept=["plain"]))
    engine.restart()

    idle = engine.consumer("v-1", "v", tasks=("m:f", "m:g"), queues=QUEUES)

    assert numbers(lease(idle, 9)) == [2]
    given_up(engine)
    assert numbers(lease(idle, 9)) == [0, 1]


def test_jobs_far_behind_the_granted_ones_go_out_at_once(engine):
    client = engine.client()
    for number in range(9):
        submit(client, chunk(0), origin=f"o{number}")
    lease_one(engine.consumer())
    engine.restart()

    idle = engine.consumer("v-1", "v")

    assert [each.origin for each in lease(idle, 9)] == [f"o{number}" for number in range(1, 9)]


def test_jobs_of_two_missing_workers_wait_for_both(engine):
    submit(engine.client(), chunk(0, 3))
    engine.supervisor("w"), engine.supervisor("v")
    lease(engine.consumer()), lease(engine.consumer("v-1", "v"))
    engine.restart()
    idle = engine.consumer("u-1", "u")
    renew(engine.supervisor("w"))
    assert lease(idle) == []
    renew(engine.supervisor("v"))
    assert numbers(lease(idle, 9)) == [0, 1, 2]


def test_a_second_restart_waits_for_the_same_workers(engine, held_by_w):
    engine.restart()
    idle = engine.consumer("v-1", "v")
    assert lease(idle) == []
    back = engine.consumer(held=[held_by_w])
    renew(engine.supervisor(), "w-1")
    assert back.welcome.lost == []
    assert numbers(lease(idle, 9)) == [1]


def test_a_worker_that_never_came_back_is_forgotten(engine, held_by_w):
    given_up(engine)
    engine.restart()
    assert numbers(lease(engine.consumer("v-1", "v"), 9)) == [0, 1]


def test_jobs_that_wait_for_somebody_can_be_cancelled(engine, held_by_w):
    idle = engine.consumer("v-1", "v")
    assert engine.client().cancel(["o-1"]) == 1
    given_up(engine)
    assert numbers(lease(idle, 9)) == [0]


def test_nobody_is_on_the_roster_of_an_older_journal_so_all_its_jobs_wait(engine):
    submit(engine.client(), chunk(0, 2))
    engine.inside(_forget_the_roster)
    engine.restart()
    idle = engine.consumer("v-1", "v")
    assert lease(idle) == []
    given_up(engine)
    assert numbers(lease(idle, 9)) == [0, 1]


def test_a_watermark_serves_many_grants(engine):
    client, consumer = engine.client(), engine.consumer()
    for number in range(100):
        submit(client, chunk(0), origin=f"o{number}")
        record(consumer, ack_of(lease_one(consumer)))
    (moved,) = engine.inside(
        lambda host: [row for row, event in host.journal.replay() if isinstance(event, e.WatermarkMoved)]
    )
    mark = engine.inside(lambda host: host.state.ledger.roster.watermarks["default"])
    assert mark.row == moved
    assert mark.ahead > FEW_GRANTS


def test_a_watermark_stays_close_if_a_chunk_serves_many_grants(engine):
    client, consumer = engine.client(), engine.consumer()
    for number in range(3):
        submit(client, chunk(0, FEW_GRANTS), origin=f"o{number}")
    for _ in range(FEW_GRANTS + 3):
        record(consumer, ack_of(lease_one(consumer)))
    engine.restart()
    assert {each.origin for each in lease(engine.consumer("v-1", "v"), 50)} == {"o2"}


def _forget_the_roster(host) -> None:
    host.journal.append([], list(host.state.ledger.roster.rows()))
