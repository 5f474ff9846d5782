"""Each field of each command has bounds: a value beyond them is refused with its frame, on every engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from svc.broker.base import Broker
from svc.broker.host import QueueHost
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import ErrorInfo, NewChunk, OutputPiece, OutputStream, Terms
from svc.errors import BadRequest
from svc.wire import decode_response, encode_request, response_frame
from tests.support.asking import ack_of, chunk, lease_one, record, states, submit
from tests.support.manager import running_manager
from tests.support.state_checks import portrait
from tests.support.stranger import Stranger

ERROR = ErrorInfo("ValueError", "no", "Traceback", b"x")
#: A command of each kind, with nothing odd in it. A list has one element, for others to be made of it.
PLAIN: dict[type[c.Command], c.Command] = {
    type(each): each
    for each in (
        c.Hello(1, "client", tasks=["m:f"], queues=["q"], held=[c.Held(1, "o", 0, 1)], accept=["plain"]),
        c.Submit("o", [NewChunk(9, Terms("m:f"), [b""], headers=[b"h"], large=[1])]),
        c.Lease(),
        c.Ack(1, 0, [b""], [0.0], [0], [0]),
        c.Nack(1, 0, ERROR),
        c.Release(1, 0),
        c.Extend(consumers=["w-1"], claims=[c.ClaimedJob("w-1", 1, "o", 0)]),
        c.Lost("w-1", ERROR),
        c.Recall("w-1", 1, 0, 1),
        c.Output([OutputPiece("o-0", 1, OutputStream.STDOUT, 0, b"x")], 100),
        c.Cancel(["o-0"]),
        c.Requeue(["o-0"]),
        c.Purge(["o-0"], ["dead"]),
        c.Drain(),
        c.Resume(),
        c.Backup("copy"),
        c.TellProgress([c.JobProgress(1, 0, 1.0)]),
        c.Checkpoint(1, 0, b"x"),
        c.Yield(1, 0, 0, [b"x"]),
        c.StorePiece("o", 8, 1, 10, 0, b"x"),
        c.StoreResultPiece(1, 0, 10, 0, b"x"),
        c.FetchArgument(1, 0, 1, 0),
        c.FetchResult("o-0", 0),
        c.AskProgress(["o-0"]),
        c.Await(["o-0"]),
        c.Feed("o"),
        c.Get(["o-0"]),
        c.List(),
        c.Logs("o-0"),
        c.Members(),
        c.ReadStream("o-0"),
    )
}
#: Commands without a field.
BARE = {c.Leave, c.AcceptClock, c.HandOver, c.Ping, c.Wake, c.Stats, c.Exposition}
#: Commands that the manager alone makes.
INSIDE = (c.Put(Terms("m:f"), b""), c.Take(), c.Join("default"), c.StopsAwaited())
#: Values that are decoded whole, by the rule that they meet later.
UNBOUNDED = {
    "refused with their chunk alone (`job.check_chunk`)": {
        *(f"NewChunk.{name}" for name in ("first", "delay", "key", "bodies[]", "headers[]")),
        *(f"Terms.{name}" for name in ("task", "queue", "priority", "codec", "label", "max_rss", "retries")),
        *(f"Terms.{name}" for name in ("backoff", "timeout", "soft_timeout")),
    },
    "cut (`ErrorInfo.within_bounds`)": {
        *(f"ErrorInfo.{name}" for name in ("type", "message", "traceback", "exception")),
    },
    "refused over the size of a job or a partial result": {"Ack.results[]", "Yield.values[]"},
}
#: Two characters that stand for bytes which no encoder writes.
MARK = "\ue000\ue000"
#: In UTF-8 they would be: a lone surrogate of each kind, a pair in the wrong order and in the right one, a
#: character that ends too early, a long form of NUL, a character beyond the last one, and no UTF-8 at all.
NO_TEXT = {
    "a high surrogate": b"abc\xed\xa0\x80",
    "a low surrogate": b"abc\xed\xbf\xbf",
    "a pair in reverse": b"\xed\xb0\x80\xed\xa0\x80",
    "a pair": b"\xed\xa0\x80\xed\xb0\x80",
    "cut short": b"abcd\xe2\x82",
    "a long form": b"abcd\xc0\x80",
    "too large": b"ab\xf4\x90\x80\x80",
    "no text": b"\xff\xfe\xfd\xfc\xfb\xfa",
}
Values = Callable[[inspect.Type, Any], Iterator[Any]]


def bare(kind: inspect.Type) -> inspect.Type:
    """Return a type without the notes that are on it."""
    return bare(kind.type) if isinstance(kind, inspect.Metadata) else kind


def beyond(kind: inspect.Type, usual: Any) -> Iterator[Any]:
    """Yield values just out of bounds, and some that are far out."""
    match kind:
        case inspect.IntType(ge=int(low), le=int(high)):
            yield from (low - 1, -(1 << 63), high + 1, (1 << 64) - 1)
        case inspect.FloatType(ge=low, le=high) if low is not None and high is not None:
            yield from (math.nan, math.inf, -math.inf, low - 1.0, high * 2.0, 1.7e308)
            yield from (int(low) - 1, -(1 << 63), (1 << 64) - 1 if high < 1 << 63 else math.inf)
        case inspect.StrType(max_length=int(longest)):
            yield from ("x" * (longest + 1), "é" * (longest + 1), "x" * (1 << 20))
            yield from [""] * bool(kind.min_length)
        case inspect.BytesType(max_length=int(longest)):
            yield b"x" * (longest + 1)
        case inspect.ListType(max_length=int(longest)):
            yield usual[:1] * (longest + 1)
        case inspect.EnumType():
            yield from ("no such word", -1, 99)


def marked(kind: inspect.Type, usual: Any) -> Iterator[Any]:
    """Yield a text in which bytes can be found and replaced."""
    if isinstance(kind, inspect.StrType):
        yield MARK


def variants(kind: inspect.Type, usual: Any, values: Values) -> Iterator[Any]:
    """Yield *usual* with one odd value in it, or in place of it, for each place and each of *values*."""
    kind = bare(kind)
    yield from values(kind, usual)
    match kind:
        case inspect.UnionType(types=types):
            for each in types:
                yield from variants(each, usual, values)
        case inspect.ListType(item_type=item):
            for odd in variants(item, usual[0] if usual else None, values):
                yield [odd]
        case inspect.StructType(fields=fields):
            for field in fields:
                for odd in variants(field.type, getattr(usual, field.name), values):
                    yield msgspec.structs.replace(usual, **{field.name: odd})


def odd_commands(kind: type[c.Command], values: Values = beyond) -> list[Any]:
    return list(variants(inspect.type_info(kind), PLAIN[kind], values))


def unbounded(kind: inspect.Type, name: str) -> Iterator[str]:
    """Yield the names of the numbers, texts, bytes and lists in *kind* that have no bounds of their own."""
    match bare(kind):
        case inspect.IntType() | inspect.FloatType() as number if number.ge is None or number.le is None:
            yield name
        case (inspect.StrType() | inspect.BytesType()) as text if text.max_length is None:
            yield name
        case inspect.ListType() as many:
            yield from [name] * (many.max_length is None)
            yield from unbounded(many.item_type, f"{name}[]")
        case inspect.UnionType(types=types):
            for each in types:
                yield from unbounded(each, name)
        case inspect.StructType(cls=cls, fields=fields):
            for field in fields:
                yield from unbounded(field.type, f"{cls.__name__}.{field.name}")
        case inspect.IntType() | inspect.FloatType() | inspect.StrType() | inspect.BytesType():
            return
        case inspect.BoolType() | inspect.NoneType() | inspect.EnumType():
            return
        case _:
            yield name


def kept(host: QueueHost) -> tuple[object, ...]:
    """Return all that a command could have changed."""
    state = host.state
    pieces = host.outputs._store.find("o-0", 0, 0, 0)
    leases = [(each.token, each.start, each.stop) for each in state.leases.values()]
    workers = [
        (worker.name, repr(worker.report), list(worker.consumers)) for worker in state.workers.values()
    ]
    return portrait(state.ledger), state.ledger.last_sequence, pieces, leases, workers


def is_refused(queue: Broker, *commands: c.Command) -> bool:
    """Return whether a request is refused as a whole, before any of its commands has an answer."""
    try:
        queue.call(commands)
    except BadRequest:
        return True
    return False


def test_each_command_is_tried_or_has_no_field():
    assert PLAIN.keys() | BARE | set(map(type, INSIDE)) == set(c.COMMANDS)
    assert [kind for kind in BARE if kind.__struct_fields__] == []
    assert [type(each) for each in INSIDE if each.on_wire] == []
    assert [kind for kind in PLAIN if not odd_commands(kind)] == []


def test_a_value_without_bounds_is_one_that_is_checked_later():
    found = {name for kind in PLAIN for name in unbounded(inspect.type_info(kind), kind.__name__)}

    assert found == set().union(*UNBOUNDED.values())


@pytest.mark.parametrize("kind", PLAIN, ids=lambda kind: kind.__name__)
def test_a_command_out_of_bounds_is_refused_and_changes_nothing(engine, queue, kind):
    submit(queue)
    consumer = engine.consumer()
    delivery = lease_one(consumer)
    before = engine.inside(kept)

    # Over another connection: a client gives one up over which it was told that it cannot be read.
    taken = [odd for odd in odd_commands(kind) if not is_refused(queue, c.Submit("p", [chunk()]), odd)]

    assert [f"{odd!r:.200}" for odd in taken] == []
    assert engine.inside(kept) == before
    assert not is_refused(queue, PLAIN[kind])
    assert states(queue, "o-0") == ["leased"]
    record(consumer, ack_of(delivery))
    assert states(queue, "o-0") == ["succeeded"]


@pytest.mark.parametrize("command", INSIDE, ids=lambda command: type(command).__name__)
def test_a_command_of_the_managers_own_is_refused_and_changes_nothing(engine, queue, command):
    before = engine.inside(kept)

    assert is_refused(queue, c.Submit("p", [chunk()]), command)

    assert engine.inside(kept) == before


def answer_to(stranger: Stranger, message: bytes | bytearray) -> list[r.AnyReply]:
    stranger.send(message)
    frame = response_frame(stranger.receive())
    assert frame is not None
    return decode_response(frame)[1]


@pytest.mark.parametrize("form", NO_TEXT)
def test_a_text_that_is_none_is_refused_in_each_field_and_changes_nothing(form):
    commands = [odd for kind in PLAIN for odd in odd_commands(kind, marked)]
    with running_manager() as manager, Stranger(manager.endpoint) as stranger:
        stranger.serve(manager.authkey)
        before = manager.server.ask(lambda: kept(manager.host)).result(60)
        for odd in commands:
            message = encode_request(1, [c.Submit("p", [chunk()]), odd])
            assert message.count(MARK.encode()) == 1
            (reply,) = answer_to(stranger, message.replace(MARK.encode(), NO_TEXT[form]))
            assert isinstance(reply, r.Refused), odd
            assert reply.code == "bad_request", odd
        assert manager.server.ask(lambda: kept(manager.host)).result(60) == before
        assert len(answer_to(stranger, encode_request(1, [c.Ping()]))) == 1
