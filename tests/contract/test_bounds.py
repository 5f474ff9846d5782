"""Every engine refuses a command that is out of bounds, and nothing of it stays behind."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, get_args, get_origin, get_type_hints

import msgspec
import pytest

from svc.domain import commands as c
from svc.domain import field_bounds as bounds
from svc.domain import names
from svc.domain import replies as r
from svc.domain.job import ErrorInfo, NewChunk, Terms
from svc.domain.limits import SECONDS_MAX
from svc.errors import BadRequest, UnknownJob
from tests.support.asking import ack_of, chunk, lease, lease_one, nack_of, numbers, record, states, submit

NAN, INF = math.nan, math.inf
ERROR = ErrorInfo("ValueError", "no")


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


def _fields(kind: type[msgspec.Struct]) -> Iterator[tuple[str, msgspec.Meta, object]]:
    """Yield the bounded fields of a command: name, bounds, and the type that they are of."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        for each in (hint, *get_args(hint)):
            if get_origin(each) is Annotated:
                base, meta = get_args(each)
                if isinstance(meta, msgspec.Meta):
                    yield name, meta, base


def _beyond(meta: msgspec.Meta, base: object) -> Iterator[object]:
    """Yield values just out of bounds, and some that are far out."""
    low, high, longest = (int(each or 0) for each in (meta.ge, meta.le, meta.max_length))
    if base is int:
        yield from (low - 1, -(1 << 63), high + 1, (1 << 64) - 1)
    elif base is float:
        yield from (NAN, INF, -INF, -1.0, high * 2.0)
    elif base is str:
        yield "x" * (longest + 1)


#: A command of each kind, with nothing odd in it.
PLAIN: dict[type[c.Command], c.Command] = {
    type(each): each
    for each in (
        c.Lease(),
        c.Ack(1, 0, [b""], [0.0]),
        c.Nack(1, 0, ERROR),
        c.Release(1, 0),
        c.Extend(),
        c.Lost("w-1", ERROR),
        c.Recall("w-1", 1, 0, 1),
        c.Requeue(),
        c.Purge(every=True),
        c.List(),
        c.Await(["o-0"]),
        c.Feed("o"),
        c.Drain(),
        c.Resume(),
        c.Hello(1, "client"),
    )
}
ODD = [
    msgspec.structs.replace(command, **{name: value})
    for kind, command in PLAIN.items()
    for name, meta, base in _fields(kind)
    for value in _beyond(meta, base)
]


def test_there_are_bounds_on_the_fields_of_most_commands():
    assert {type(command) for command in ODD} == PLAIN.keys()


@pytest.mark.parametrize("command", ODD, ids=lambda command: f"{command!r:.40}")
def test_a_command_out_of_bounds_is_refused_and_changes_nothing(engine, queue, command):
    submit(queue)
    consumer = engine.consumer()
    delivery = lease_one(consumer)

    # Over another connection: a client gives one up over which it was told that it cannot be read.
    with pytest.raises(BadRequest):
        queue.call([command])

    assert states(queue, "o-0") == ["leased"]
    record(consumer, ack_of(delivery))
    assert states(queue, "o-0") == ["succeeded"]


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


@pytest.mark.parametrize("ids", [["o-0", "o-0"], ["o-0"] * 50, ["o-0", "o-1", "o-0"]])
def test_a_job_that_is_named_twice_is_cancelled_once(engine, queue, ids):
    submit(queue, chunk(0, 3))

    assert queue.cancel(ids) == len(set(ids))
    left = [number for number in range(3) if f"o-{number}" not in ids]
    assert numbers(lease(engine.consumer(), 9)) == left


@pytest.mark.parametrize("ids", [["o-0", "o-0"], ["o-0"] * 50, ["o-0", "o-1", "o-0"]])
def test_a_job_that_is_named_twice_is_requeued_once(engine, queue, ids):
    submit(queue, chunk(0, 2))
    consumer = engine.consumer()
    for _ in range(2):
        record(consumer, nack_of(lease_one(consumer)))

    assert queue.requeue(ids) == len(set(ids))
    assert len(numbers(lease(consumer, 9))) == len(set(ids))


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
