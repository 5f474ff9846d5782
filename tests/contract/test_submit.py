"""Submit: accepted once, durable, in order, within bounds."""

from __future__ import annotations

import pytest

from svc.domain.job import NewChunk
from svc.errors import BadRequest
from tests.support.asking import ack_of, chunk, counts, lease, lease_one, numbers, record, states, submit


def test_a_submitted_job_is_ready_and_is_delivered_as_it_was(engine, queue):
    notes = submit(queue, chunk(0, 2, retries=1, timeout=2.5, priority=3))

    assert notes == []
    delivery = lease_one(engine.consumer())
    assert (delivery.origin, delivery.first, delivery.bodies) == ("o", 0, [b"0"])
    assert (delivery.terms.retries, delivery.terms.timeout, delivery.terms.priority) == (1, 2.5, 3)
    assert (delivery.failures, delivery.crashes, delivery.interruptions) == (0, 0, 0)


def test_submitting_the_same_jobs_again_changes_nothing(engine, queue):
    submit(queue, chunk(0, 3))

    assert submit(queue, chunk(0, 3)) == []

    assert counts(queue).submitted == 3
    assert sorted(numbers(lease(engine.consumer(), 9))) == [0, 1, 2]


def test_submitting_again_changes_nothing_after_a_restart_either(engine):
    submit(engine.client(), chunk(0, 3))
    engine.restart()

    queue = engine.client()
    submit(queue, chunk(0, 3))

    assert counts(queue).submitted == 3


def test_finished_jobs_are_not_run_again_by_a_repeated_submit(engine, queue):
    submit(queue)
    consumer = engine.consumer()
    record(consumer, ack_of(lease_one(consumer)))

    submit(queue)

    assert lease(consumer) == []


def test_a_chunk_of_which_only_some_jobs_are_known_is_a_conflict(queue):
    """Neither silence nor a second copy would be right."""
    submit(queue, chunk(0, 3))

    (note,) = submit(queue, chunk(2, 2))

    assert note.code == "conflict"
    assert counts(queue).submitted == 3


def test_the_same_number_of_another_origin_is_another_job(queue):
    submit(queue, origin="a")
    submit(queue, origin="b")

    assert counts(queue).ready == 2


def test_a_known_key_gives_the_known_id(queue):
    submit(queue, chunk(0, key="k"), origin="a")

    (note,) = queue.submit("b", [NewChunk(0, chunk().terms, [b"0"], 0.0, "k")])

    assert (note.chunk, note.id, note.code) == (0, "a-0", "")
    assert counts(queue).submitted == 1


@pytest.mark.parametrize("other", [{"task": "m:g"}, {}], ids=["task", "body"])
def test_a_known_key_with_other_content_is_a_conflict(queue, other):
    submit(queue, chunk(0, key="k"), origin="a")
    number = 0 if other else 1

    (note,) = submit(queue, chunk(number, key="k", **other), origin="b")

    assert (note.id, note.code) == ("a-0", "conflict")
    assert counts(queue).submitted == 1


def test_a_known_key_is_answered_though_nothing_new_is_accepted(engine, queue):
    """A caller that asks again must learn that its job is there, not that the queue is closed."""
    submit(queue, chunk(0, key="k"), origin="a")
    queue.drain(refuse=True)

    (note,) = submit(queue, chunk(0, key="k"), origin="b")

    assert (note.id, note.code) == ("a-0", "")


def test_a_key_is_known_after_a_restart(engine):
    submit(engine.client(), chunk(0, key="k"), origin="a")
    engine.restart()

    (note,) = submit(engine.client(), chunk(0, key="k"), origin="b")

    assert (note.id, note.code) == ("a-0", "")


def test_a_full_queue_refuses_what_does_not_fit_and_nothing_else_suffers(engine, queue):
    bound = engine.limits.max_queue_jobs
    submit(queue, chunk(0, bound))

    notes = submit(queue, chunk(bound), chunk(0, queue="other"), origin="p")

    assert [(note.chunk, note.code) for note in notes] == [(0, "queue_full")]
    assert (counts(queue).ready, counts(queue, "other").ready) == (bound, 1)


def test_a_full_queue_accepts_again_when_a_job_has_ended(engine, queue):
    bound = engine.limits.max_queue_jobs
    submit(queue, chunk(0, bound))
    consumer = engine.consumer()
    record(consumer, ack_of(lease_one(consumer)))

    assert submit(queue, chunk(bound)) == []


def test_a_job_over_the_size_limit_is_refused_with_the_limit_in_the_message(engine, queue):
    limit = engine.limits.max_job_bytes
    large = NewChunk(0, chunk().terms, [b"x" * (limit + 1)])

    (note,) = queue.submit("o", [large])

    assert note.code == "job_too_large"
    assert str(limit) in note.message
    assert queue.submit("o", [NewChunk(1, chunk().terms, [b"x" * limit])]) == []


def test_strict_refuses_a_task_that_no_connected_worker_knows(engine, queue):
    engine.consumer(tasks=["m:f"])

    (note,) = queue.submit("o", [chunk(0), chunk(1, task="m:g")], strict=True)

    assert (note.chunk, note.code) == (1, "unknown_task")
    assert counts(queue).ready == 1


def test_without_strict_a_job_of_an_unknown_task_waits_and_says_why(engine, queue):
    engine.consumer(tasks=["m:f"])
    submit(queue, chunk(0, task="m:g"))

    (view,) = queue.get(["o-0"])

    assert view.state == "ready"
    assert "m:g" in view.reason
    assert counts(queue).unknown == ["m:g"]
    assert numbers(lease(engine.consumer("w-2", tasks=["m:g"]))) == [0]


@pytest.mark.parametrize(
    "terms", [{"task": "#pill"}, {"task": "#item"}, {"queue": "#results"}, {"codec": "item"}]
)
def test_reserved_names_are_refused(queue, terms):
    (note,) = submit(queue, chunk(0, **terms))

    assert note.code == "bad_request"
    assert queue.stats().queues == []


@pytest.mark.parametrize(
    "wrong",
    [
        chunk(0, task=""),
        chunk(0, queue=""),
        chunk(0, queue="q" * 201),
        chunk(0, task="m:\n"),
        chunk(0, key="k" * 201),
        chunk(0, 2, key="k"),
        chunk(0, priority=1 << 60),
        NewChunk(1 << 60, chunk().terms, [b""]),
        NewChunk(-1, chunk().terms, [b""]),
        NewChunk(0, chunk().terms, []),
    ],
)
def test_a_chunk_that_makes_no_sense_is_refused(queue, wrong):
    (note,) = submit(queue, wrong)

    assert note.code == "bad_request"
    assert queue.stats().queues == []


@pytest.mark.parametrize("origin", ["", "x" * 201, "a\0b"])
def test_an_origin_needs_a_name(queue, origin):
    with pytest.raises(BadRequest, match="origin"):
        submit(queue, origin=origin)


def test_a_refused_chunk_takes_no_other_with_it(queue):
    notes = submit(queue, chunk(0), chunk(1, task=""), chunk(2))

    assert [(note.chunk, note.code) for note in notes] == [(1, "bad_request")]
    assert states(queue, "o-0", "o-1", "o-2") == ["ready", "ready"]


def test_accepted_jobs_survive_a_restart_as_they_were(engine):
    queue = engine.client()
    submit(queue, chunk(0, 2, retries=1), chunk(2, queue="other"), chunk(3, delay=60.0))
    before = queue.get([f"o-{number}" for number in range(4)])
    engine.restart()

    after = engine.client().get([f"o-{number}" for number in range(4)])

    assert [(view.id, view.state, view.due_at, view.submitted_at, view.retries) for view in after] == [
        (view.id, view.state, view.due_at, view.submitted_at, view.retries) for view in before
    ]
