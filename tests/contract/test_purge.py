"""A purge removes jobs that have ended, and nothing else, on every engine and across a restart."""

from __future__ import annotations

import pytest

from svc.domain import commands as c
from svc.domain import replies as r
from svc.errors import BadRequest, UnknownJob
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
from tests.support.engines import Engine
from tests.support.state_checks import portrait
from tests.support.suspects import consumer_of, lose

IDS = [f"o-{number}" for number in range(6)]


@pytest.fixture
def mixed(engine: Engine) -> Engine:
    """Jobs 0 … 5 of one chunk: succeeded, dead, cancelled, leased, dead, ready."""
    queue, consumer = engine.client(), engine.consumer()
    submit(queue, chunk(0, 6))
    record(consumer, ack_of(lease_one(consumer), b"first"))
    record(consumer, nack_of(lease_one(consumer)))
    queue.cancel(["o-2"])
    lease_one(consumer)
    record(consumer, nack_of(lease_one(consumer)))
    assert states(queue, *IDS) == ["succeeded", "dead", "cancelled", "leased", "dead", "ready"]
    return engine


def left(engine: Engine) -> dict[str, str]:
    return {view.id: view.state for view in engine.client().get(IDS)}


@pytest.mark.parametrize(
    ("command", "gone"),
    [
        (c.Purge(every=True), {0, 1, 2, 4}),
        (c.Purge(states=["dead"]), {1, 4}),
        (c.Purge(states=["succeeded", "cancelled"]), {0, 2}),
        (c.Purge(queue="default"), {0, 1, 2, 4}),
        (c.Purge(queue="other"), set()),
        (c.Purge(task="m:f", states=["succeeded"]), {0}),
        (c.Purge(task="m:g"), set()),
        (c.Purge(["o-1", "o-3", "o-5", "o-1", "x-9", "nonsense"]), {1}),
    ],
)
def test_a_purge_removes_what_matches_and_no_job_that_waits_or_runs(mixed, command, gone):
    before = left(mixed)

    assert mixed.client().purge(command) == len(gone)

    expected = {job: state for job, state in before.items() if int(job[2:]) not in gone}
    assert left(mixed) == expected
    mixed.restart()
    again = {job: "ready" if state == "leased" else state for job, state in expected.items()}
    assert left(mixed) == again
    assert counts(mixed.client()).dead == list(expected.values()).count("dead")
    assert [view.id for view in reversed(mixed.client().find(c.List(limit=9)))] == list(expected)


def test_a_dry_purge_counts_and_removes_nothing(mixed):
    before = left(mixed)

    assert mixed.client().purge(c.Purge(states=["dead"], dry=True)) == 2
    assert left(mixed) == before


@pytest.mark.parametrize(
    "command",
    [
        c.Purge(),
        c.Purge(["o-0"], every=True),
        c.Purge(["o-0"], states=["dead"]),
        c.Purge(states=["dead"], every=True),
        c.Purge(states=["ready"]),
        c.Purge(states=["no such state"]),
        c.Purge(older=-1.0),
        c.Purge(older=float("nan")),
        c.Purge(states=["dead"] * 17),
    ],
)
def test_a_purge_out_of_bounds_or_without_a_condition_is_refused(mixed, command):
    before = left(mixed)

    with pytest.raises(BadRequest):
        mixed.client().purge(command)

    assert left(mixed) == before


def test_a_purged_job_is_unknown_as_a_forgotten_one(mixed):
    queue = mixed.client()
    queue.purge(c.Purge(states=["succeeded"]))

    for verb in (queue.cancel, queue.requeue, lambda ids: queue.wait(ids, NOW), queue.progress):
        with pytest.raises(UnknownJob, match="there is no job o-0, or its retention time has passed"):
            verb(["o-0"])
    assert queue.requeue() == 2, "the dead jobs are still there"


@pytest.mark.parametrize("restart", [False, True])
def test_a_repeated_submit_of_purged_jobs_runs_none_of_them_again(mixed, restart):
    mixed.client().purge(c.Purge(every=True))
    if restart:
        mixed.restart()
    queue = mixed.client()
    before = counts(queue)

    submit(queue, chunk(0, 6))

    after = counts(queue)
    assert (after.submitted, after.ready, after.leased) == (before.submitted, before.ready, before.leased)


def test_only_jobs_that_ended_long_ago_match_an_age(engine):
    queue, consumer = engine.client(), engine.consumer()
    submit(queue, chunk(0, 4))
    submit(queue, chunk(0), origin="p")
    for _ in range(2):
        record(consumer, ack_of(lease_one(consumer)))
    engine.advance(30.0)
    consumer = engine.consumer("w-2")
    record(consumer, nack_of(lease_one(consumer)))
    record(consumer, ack_of(lease_one(consumer)))
    record(consumer, ack_of(lease_one(consumer)))

    assert queue.purge(c.Purge(older=20.0, states=["dead"])) == 0
    assert queue.purge(c.Purge(older=20.0, dry=True)) == 2
    assert queue.purge(c.Purge(older=20.0)) == 2
    assert queue.purge(c.Purge(older=20.0)) == 0

    assert states(queue, "o-0", "o-1", "o-2", "o-3", "p-0") == ["dead", "succeeded", "succeeded"]


def test_feeds_tell_only_of_jobs_that_are_left(engine):
    queue, consumer = engine.client(), engine.consumer()
    submit(queue, chunk(0, 5))
    (delivery,) = lease(consumer, 5)
    record(consumer, ack_of(delivery, b"v"))
    queue.purge(c.Purge(["o-0", "o-3"]))

    for _ in range(2):
        queue = engine.client()
        for feed in (c.Feed("o"), c.Feed()):
            (page,) = queue.call([feed])
            assert isinstance(page, r.Outcomes)
            assert [each.id for each in page.outcomes] == ["o-1", "o-2", "o-4"]
        (folded,) = queue.call([c.Feed("o", folded=True)])
        assert isinstance(folded, r.Outcomes)
        assert [(span.first, len(span.results)) for span in folded.spans] == [(1, 2), (4, 1)]
        engine.restart()


def test_the_key_of_a_purged_job_is_free(engine):
    queue, consumer = engine.client(), engine.consumer()
    submit(queue, chunk(0, key="k"))
    submit(queue, chunk(1, key="other"))
    record(consumer, ack_of(lease_one(consumer)))
    queue.purge(c.Purge(["o-0"]))

    for number in (2, 3):
        notes = submit(queue, chunk(number, key="k"))
        if number == 2:
            assert notes == [], "it is a new job"
        else:
            assert [note.code for note in notes] == ["conflict"]
    engine.restart()
    engine.advance(engine.limits.reconnect_seconds + 1)

    assert numbers(lease(engine.consumer("w-2"), 9)) == [1, 2]


def test_the_rest_of_a_chunk_goes_on_after_a_purge_and_a_restart(mixed):
    mixed.client().purge(c.Purge(every=True))
    mixed.restart()
    mixed.advance(mixed.limits.reconnect_seconds + 1)
    consumer = mixed.consumer("w-3")
    for delivery in lease(consumer, 9):
        record(consumer, ack_of(delivery))
    assert left(mixed) == {"o-3": "succeeded", "o-5": "succeeded"}

    assert mixed.client().purge(c.Purge(every=True)) == 2
    assert left(mixed) == {}
    mixed.restart()
    assert left(mixed) == {}
    assert counts(mixed.client()).submitted in (0, 6)


def test_a_chunk_of_which_some_jobs_were_purged_is_forgotten_in_time(mixed):
    mixed.client().cancel(["o-3", "o-5"], running=True)
    mixed.client().purge(c.Purge(["o-0", "o-5"]))
    mixed.restart()

    mixed.advance(mixed.limits.retention_seconds + 1)
    assert left(mixed) == {"o-1": "dead", "o-2": "cancelled", "o-3": "cancelled", "o-4": "dead"}
    mixed.client().purge(c.Purge(states=["dead"]))
    mixed.advance(mixed.limits.dead_retention_seconds + 1)
    assert left(mixed) == {}


def test_the_answer_of_a_purged_job_leaves_the_results_queue(engine):
    queue, consumer = engine.client(), engine.consumer()
    submit(queue, chunk(0, 3, answer=True))
    (delivery,) = lease(consumer, 3)
    record(consumer, ack_of(delivery))
    queue.purge(c.Purge(["o-1"]))
    engine.restart()

    assert engine.inside(lambda host: [index for _, index in host.state.ledger.answers]) == [0, 2]


@pytest.mark.usefixtures("still")
def test_the_time_of_a_purged_job_passes_by(engine, queue):
    """Jobs of one submit with delays of their own share a chunk, which keeps when each is due."""
    submit(queue, chunk(0, delay=2.0), chunk(1, delay=3.0))
    queue.cancel(["o-0"])
    assert queue.purge(c.Purge(["o-0"])) == 1

    engine.advance(4.0)

    assert numbers(lease(engine.consumer(), 9)) == [1]


def test_a_purged_suspect_is_none_after_a_restart(engine, names):
    """The event that ended it has gone by then, so the purge alone can tell that."""
    queue, worker = engine.client(), consumer_of(engine, next(names))
    submit(queue, chunk(0, 2))
    lease(worker, 2)
    lose(engine, worker)
    queue.cancel(["o-1"])
    before = engine.inside(lambda host: portrait(host.state.ledger)["suspects"])

    assert queue.purge(c.Purge(["o-1"])) == 1

    engine.restart()
    assert engine.inside(lambda host: portrait(host.state.ledger)["suspects"]) == before
    assert [len(losses) for losses in before.values()] == [1]
