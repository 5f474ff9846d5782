"""Every engine refuses a command that is out of bounds, and nothing of it stays behind."""

from __future__ import annotations

import math

import pytest

from svc.broker.base import Broker
from svc.domain import commands as c
from svc.domain import field_bounds as bounds
from svc.domain import names
from svc.domain import replies as r
from svc.domain.job import ErrorInfo, NewChunk, Terms
from svc.domain.limits import SECONDS_MAX
from svc.errors import BadRequest, UnknownJob
from tests.support.asking import ack_of, chunk, lease, lease_one, nack_of, numbers, record, states, submit

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    "wrong",
    [
        chunk(0, retries=-1),
        chunk(0, retries=bounds.NUMBER_MAX + 1),
        chunk(0, retries=-(1 << 63)),
        chunk(0, priority=bounds.NUMBER_MAX + 1),
        chunk(0, priority=-(1 << 63)),
        chunk(0, backoff=NAN),
        chunk(0, backoff=-1.0),
        chunk(0, timeout=INF),
        chunk(0, timeout=-0.5),
        chunk(0, codec="c" * (names.LABEL_MAX + 1)),
        chunk(0, codec="\x1b[2J"),
        chunk(0, key="a\nb"),
        chunk(0, delay=NAN),
        chunk(0, label="m" * (names.NAME_MAX + 1)),
        chunk(0, label="two\nlines"),
        chunk(0, delay=INF),
        chunk(0, delay=SECONDS_MAX * 2),
        NewChunk(bounds.NUMBER_MAX, Terms("m:f"), [b""]),
        NewChunk(0, Terms("m:f"), [b"", b""], headers=[b"", b"h" * (bounds.HEADER_MAX + 1)]),
        NewChunk(0, Terms("m:f"), [b"", b""], headers=[b"h"]),
    ],
)
def test_a_chunk_out_of_bounds_is_refused_alone(queue, wrong):
    notes = submit(queue, wrong, chunk(1))

    assert [(note.chunk, note.code) for note in notes] == [(0, "bad_request")]
    assert [(each.name, each.submitted) for each in queue.stats().queues] == [("default", 1)]


@pytest.mark.parametrize("delay", [-5.0, -0.0])
def test_a_delay_that_has_passed_is_none(queue, delay):
    submit(queue, chunk(0, delay=delay))

    assert states(queue, "o-0") == ["ready"]


@pytest.mark.parametrize("seconds", [NAN, INF, 1.7e308, -1.0])
def test_a_run_time_out_of_bounds_is_refused(engine, queue, seconds):
    submit(queue)
    consumer = engine.consumer()
    delivery = lease_one(consumer)

    with pytest.raises(BadRequest):
        record(consumer, c.Ack(delivery.token, 0, [b"r"], [seconds]))

    assert states(queue, "o-0") == ["leased"]


def test_a_frame_has_a_bounded_number_of_commands(queue):
    assert len(queue.call([c.Ping()] * bounds.FRAME_COMMANDS_MAX)) == bounds.FRAME_COMMANDS_MAX

    with pytest.raises(BadRequest, match=str(bounds.FRAME_COMMANDS_MAX)):
        queue.call([c.Ping()] * (bounds.FRAME_COMMANDS_MAX + 1))


@pytest.mark.parametrize(
    "many",
    [
        c.Cancel(["o-0"] * (bounds.REPLY_JOBS_MAX + 1)),
        c.Requeue(["o-0"] * (bounds.REPLY_JOBS_MAX + 1)),
        c.Submit("o", [chunk(0)] * (bounds.SUBMIT_CHUNKS_MAX + 1)),
        c.Submit("o", [NewChunk(0, Terms("m:f"), [b""] * (bounds.CHUNK_JOBS_MAX + 1))]),
        c.Hello(1, "consumer", "w-1", "w", queues=["q"] * (names.QUEUES_MAX + 1)),
        c.Hello(1, "consumer", "w-1", "w", tasks=["m:f"] * (bounds.TASKS_MAX + 1)),
        c.Hello(1, "consumer", "w-1", "w", accept=["plain"] * (bounds.CODECS_MAX + 1)),
        c.Hello(1, "consumer", "w-1", "w", held=[c.Held(1, "o", 0, 1)] * (bounds.HELD_MAX + 1)),
        c.Extend(claims=[c.ClaimedJob("w-1", 1, "o", 0)] * (bounds.HELD_MAX + 1)),
    ],
    ids=lambda command: type(command).__name__,
)
def test_a_list_that_is_too_long_is_refused(queue, many):
    with pytest.raises(BadRequest, match="length"):
        queue.call([many])

    assert queue.stats().queues == []


# --- ids -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", ["o-00", "o-000", "o-٠", "o-+0", "o- 0", "o-0 ", "O-0\n", f"o-{1 << 53}"])
@pytest.mark.parametrize("verb", [c.Cancel, c.Requeue, c.Await])
def test_an_id_has_one_form(engine, queue, verb, odd):
    submit(queue, chunk(0, 2))

    command = verb(["o-0", odd])
    with pytest.raises(UnknownJob):
        queue._one(command, r.Done)

    assert queue.get([odd]) == []
    assert states(queue, "o-0", "o-1") == ["ready", "ready"]
    assert numbers(lease(engine.consumer(), 9)) == [0, 1]


def counted(queue: Broker, command: c.Cancel | c.Requeue | c.Purge) -> int:
    """Send one command as it is: the methods of a broker leave out repeated ids."""
    return queue._one(command, r.Done).count


@pytest.mark.parametrize("ids", [["o-0", "o-0"], ["o-0"] * 50, ["o-0", "o-1", "o-0"]])
def test_a_job_that_is_named_twice_is_cancelled_once(engine, queue, ids):
    submit(queue, chunk(0, 3))

    assert counted(queue, c.Cancel(ids)) == len(set(ids))
    left = [number for number in range(3) if f"o-{number}" not in ids]
    assert numbers(lease(engine.consumer(), 9)) == left


@pytest.mark.parametrize("ids", [["o-0", "o-0"], ["o-0"] * 50, ["o-0", "o-1", "o-0"]])
def test_a_job_that_is_named_twice_is_requeued_once(engine, queue, ids):
    submit(queue, chunk(0, 2))
    consumer = engine.consumer()
    for _ in range(2):
        record(consumer, nack_of(lease_one(consumer)))

    assert counted(queue, c.Requeue(ids)) == len(set(ids))
    assert len(numbers(lease(consumer, 9))) == len(set(ids))


#: Other forms of the ids of jobs 0 and 1 of `o`, and ids of no job.
FORMS = [
    "o-00",
    "o-01",
    "o-٠",
    "o-+1",
    "o- 1",
    " o-1",
    "o-1 ",
    "O-1\n",
    "o-1\0",
    "o--1",
    f"o-{1 << 53}",
    "o",
    "",
    "-1",
]


@pytest.mark.parametrize("odd", FORMS)
def test_another_form_of_an_id_purges_nothing(engine, queue, odd):
    submit(queue, chunk(0, 3))
    consumer = engine.consumer()
    for _ in range(2):
        record(consumer, ack_of(lease_one(consumer)))

    for dry in (True, False):
        assert counted(queue, c.Purge([odd], dry=dry)) == 0
        assert counted(queue, c.Purge(["o-0", odd, "o-0", odd], dry=dry)) == 1
    assert counted(queue, c.Purge(["o-0", odd])) == 0

    assert states(queue, "o-0", "o-1", "o-2") == ["succeeded", "ready"]
    engine.restart()
    assert [(view.id, view.state) for view in engine.client().get(["o-0", "o-1", "o-2"])] == [
        ("o-1", "succeeded"),
        ("o-2", "ready"),
    ]


@pytest.mark.parametrize(
    "ids", [["o-0", "o-0"], ["o-0"] * 50, ["o-0", "o-1", "o-0"], ["o-0"] * c.CHANGED_JOBS_MAX]
)
def test_a_job_that_is_named_twice_is_purged_once(engine, queue, ids):
    submit(queue, chunk(0, 3))
    consumer = engine.consumer()
    for _ in range(3):
        record(consumer, ack_of(lease_one(consumer)))

    assert counted(queue, c.Purge(ids, dry=True)) == counted(queue, c.Purge(ids)) == len(set(ids))
    assert counted(queue, c.Purge(ids)) == 0

    left = [f"o-{number}" for number in range(3) if f"o-{number}" not in ids]
    assert [view.id for view in queue.get(["o-0", "o-1", "o-2"])] == left
    engine.restart()
    assert [view.id for view in engine.client().get(["o-0", "o-1", "o-2"])] == left


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (1, 1), (0, 1, 0, 1)])
def test_a_job_that_is_named_by_its_id_and_by_its_alias_is_purged_once(engine, queue, order):
    submit(queue, chunk(0, key="k"), chunk(1))
    (note,) = submit(queue, chunk(0, key="k"), origin="p")
    consumer = engine.consumer()
    for _ in range(2):
        record(consumer, ack_of(lease_one(consumer)))

    assert counted(queue, c.Purge([("o-0", note.id)[each] for each in order])) == 1

    assert [view.id for view in queue.get(["o-0", "o-1", note.id])] == ["o-1"]


# --- reports -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        ErrorInfo("", ""),
        ErrorInfo("E" * 5000, "m"),
        ErrorInfo("odd\nname\x1b[2J", "m"),
        ErrorInfo("E", "m" * 100_000),
        ErrorInfo("E", "m", "t" * 100_000),
        ErrorInfo("E", "m", "t", b"x" * 100_000),
    ],
    ids=lambda error: f"{error!r:.30}",
)
def test_a_report_of_an_odd_error_is_taken_and_cut(engine, queue, error):
    """A worker sends its report until it is taken: to refuse one would hold it up for good."""
    submit(queue)
    consumer = engine.consumer()
    delivery = lease_one(consumer)

    record(consumer, c.Nack(delivery.token, 0, error))

    (view,) = queue.get(["o-0"])
    kept = view.attempts[0].error
    assert view.state == "dead"
    assert kept.type.isprintable()
    assert 0 < len(kept.type) <= names.NAME_MAX
    assert len(kept.message) <= bounds.MESSAGE_MAX
    assert len(kept.traceback) <= bounds.TRACEBACK_MAX
    assert len(kept.exception) <= bounds.EXCEPTION_MAX
