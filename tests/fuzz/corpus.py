"""The initial inputs of the fuzzers: the hostile corpora, and good messages of stock and svc clients."""

from __future__ import annotations

import hashlib
import hmac
import pickle
import struct
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from uuid import UUID
from zoneinfo import ZoneInfo

from svc import codec, wire
from svc import wire_handshake as handshake
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import NewChunk, Outcome, Terms
from svc.domain.lifecycle import JobState
from svc.domain.roles import Role
from tests.fuzz.targets import CHALLENGE, ENVELOPES, PIECES, ROLES, SECRETS, SERVED, TERMS
from tests.support.hostile_frames import CORPUS, EVERY
from tests.support.hostile_pickles import EXAMPLES, KINDS, NEWER, PROTOCOLS, REQUESTS

#: The size of an initial input: mutants of larger ones are slow and teach little.
SEED_BYTES_MAX = 4096

_ITEM = ("m:f", (1, 2.5, None, "x"), {"key": b"y"})
_CALLS: tuple[tuple[str, str, tuple[object, ...], dict[str, object]], ...] = (
    ("tasks", "put", (_ITEM,), {}),
    ("tasks", "put", ({"task": "m:f", "args": [1], "kwargs": {}},), {"block": True, "timeout": 1.0}),
    ("tasks", "put", (None,), {}),
    ("tasks", "put_nowait", ([1, {2}],), {}),
    ("tasks", "get", (), {"timeout": 0.0}),
    ("tasks", "get_nowait", (), {}),
    ("tasks", "task_done", (), {}),
    ("tasks", "join", (), {}),
    ("tasks", "qsize", (), {}),
    ("results", "put", ("r",), {}),
    ("results", "get", (True, 0.0), {}),
    ("jobs", "submit", ("m:f", 1), {"key": 2}),
    ("jobs", "show", ("o-0",), {}),
    ("jobs", "result", ("o-0",), {"timeout": 0.0}),
    ("tasks", "shutdown", (), {}),
    ("tasks", "#GETVALUE", (), {}),
    # No stock client sends these: a wrong number, kind or name of arguments.
    ("tasks", "put", (), {}),
    ("tasks", "put", (1, 2, 3, 4), {"what": []}),
    ("tasks", "put", ({"task": 1, "args": 2, "kwargs": 3},), {"timeout": "soon"}),
    ("tasks", "put", (([], {}, ()),), {"block": []}),
    ("tasks", "get", ({}, []), {"timeout": float("nan")}),
    ("tasks", "task_done", (1,), {}),
    ("results", "get", (True, -1.0), {}),
    ("jobs", "submit", (), {}),
    ("jobs", "submit", ([],), {"": ()}),
    ("jobs", "show", ([],), {}),
    ("jobs", "result", ("o-0", {}), {}),
)
_OPENINGS: tuple[tuple[None, str, tuple[object, ...], dict[str, object]], ...] = (
    (None, "dummy", (), {}),
    (None, "create", ("tasks",), {}),
    (None, "incref", ("tasks",), {}),
    (None, "create", ([],), {"typeid": {}}),
    (None, "create", (), {}),
    (None, "", ("tasks",) * 3, {}),
    (None, "accept_connection", ("MainProcess|MainThread",), {}),
)
_COMMANDS: tuple[c.Command, ...] = (
    c.Hello(wire.PROTOCOL_VERSION, "consumer", "w/1", "w", "host", 1, ["m:f"], ["default"]),
    c.Submit(
        "o", [NewChunk(0, Terms("m:f"), [b"\x92\x91\x01\x80"]), NewChunk(1, Terms("m:g"), [b""], 0.0, "k")]
    ),
    c.Lease(10, 0.0),
    c.Feed("o", 0, 10, 0.0),
    c.Await(["o-0"], 0.0),
    c.Drain(),
    c.Resume(),
    *EVERY,
)
_REPLIES: tuple[r.Reply, ...] = (
    r.Done(),
    r.Refused("bad_request", "no"),
    r.Outcomes(1, [Outcome("o-0", JobState.SUCCEEDED, b"\x01")]),
    r.Grant([r.Delivery(1, "o", 0, Terms("m:f"), [b"x", b"y"])]),
)


def seeds(target: str) -> dict[str, bytes]:
    """Return the initial inputs of *target*, each with a name of its own."""
    made = {"decoder": _decoder, "frames": _frames, "connection": _connection}[target]()
    return {name: data for name, data in made if len(data) <= SEED_BYTES_MAX}


def every(target: str) -> dict[str, bytes]:
    """Return the initial inputs of *target*, with the larger ones too."""
    return dict({"decoder": _decoder, "frames": _frames, "connection": _connection}[target]())


def _decoder() -> Iterator[tuple[str, bytes]]:
    for kind, make in KINDS.items():
        yield from ((f"{kind}: {name}", data) for name, data in make().items())
    yield from ((f"opcode {name}", data) for name, (data, _) in EXAMPLES.items())
    for protocol in PROTOCOLS:
        requests: tuple[object, ...] = (*REQUESTS, *_CALLS, *_OPENINGS)
        for place, value in enumerate(requests):
            yield f"request {place}, protocol {protocol}", pickle.dumps(value, protocol)
        for since, value in NEWER:
            if protocol >= since:
                name = f"{type(value).__name__} of {len(value)}, protocol {protocol}"
                yield name, pickle.dumps(value, protocol)


def _frames() -> Iterator[tuple[str, bytes]]:
    yield from CORPUS.items()
    for place, command in enumerate(_COMMANDS):
        yield f"command {place}", _frame(wire.encode_request(place, [command]))
    yield "all commands", _frame(wire.encode_request(1, list(_COMMANDS)))
    for place, reply in enumerate(_REPLIES):
        cut = wire.response_frame(wire.encode_response(place, [reply])[wire.HEADER.size :])
        yield f"reply {place}", bytes(cut or b"")
    yield "arguments", codec.encode_arguments(codec.PLAIN, (1, "a", [2.5]), {"b": {"c": b"x"}})
    pickled = codec.encode_arguments(codec.PICKLE, (Fraction(1, 2),), {})
    yield "pickled arguments, not signed", pickled
    yield "pickled arguments, signed for another", ENVELOPES.seal_arguments(TERMS, pickled)[:-1] + b"x"
    yield "arguments with extension types", codec.encode_call(codec.PLAIN, _TYPED, {})[0]
    yield "a result with extension types", codec.encode_result(codec.PLAIN, _TYPED, typed=True)
    yield "a result", codec.encode_result(codec.PLAIN, {"a": [1, None]})
    sealed = codec.encode_result(codec.PICKLE, Fraction(1, 2), ENVELOPES)
    yield "a signed result with a byte changed", sealed[:-1] + b"x"


#: A value of each extension type.
_TYPED = (
    *((1,), {2}, frozenset((3,)), bytearray(b"4"), 2**70, date(2026, 3, 1), time(12), timedelta(1)),
    *(datetime(2026, 3, 1, tzinfo=ZoneInfo("Europe/Berlin")), Decimal("1.1"), UUID(int=5)),
)


def _frame(message: bytes | bytearray) -> bytes:
    return bytes(wire.request_frame(message[wire.HEADER.size :]) or b"")


def _connection() -> Iterator[tuple[str, bytes]]:
    for protocol in PROTOCOLS:
        calls = b"".join(_message(pickle.dumps(call, protocol)) for call in _CALLS)
        opening = b"".join(_message(pickle.dumps(call, protocol)) for call in _OPENINGS)
        for role in ROLES:
            yield (
                f"a stock client with a key for {role}, protocol {protocol}",
                (b"\0" + _handshake(role) + opening + calls),
            )
        yield f"calls in pieces, protocol {protocol}", bytes([SERVED | PIECES]) + calls
        for place, call in enumerate(_CALLS):
            yield f"call {place}, protocol {protocol}", _served(_message(pickle.dumps(call, protocol)))
    for place, command in enumerate(_COMMANDS):
        yield f"command {place}", _served(wire.encode_request(place, [command]))
    yield (
        "a consumer at work",
        _served(
            wire.encode_request(1, [_COMMANDS[0]])
            + wire.encode_request(2, [_COMMANDS[1], c.Lease(10, 0.0)])
            + wire.encode_request(3, [c.Ack(1, 0, [b"\x01"], [0.1]), c.Lease(1, 20.0), c.Wake()])
        ),
    )
    for name, frame in CORPUS.items():
        if len(frame) < SEED_BYTES_MAX:
            yield f"frame: {name}", _served(_message(frame))
    for name, data in KINDS["others"]().items():
        if len(data) < SEED_BYTES_MAX:
            yield f"pickle: {name}", _served(_message(data))
    for name, data in _framing():
        yield f"framing: {name}", b"\0" + data
        yield f"framing, served: {name}", _served(data)
    yield "the wrong key", b"\0" + _message(b"{sha256}" + bytes(32))
    yield "md5", b"\0" + _message(hmac.new(SECRETS[Role.ADMIN], CHALLENGE, "md5").digest())
    yield "welcomed too early", b"\0" + _message(handshake.WELCOME)


def _framing() -> Iterator[tuple[str, bytes]]:
    for number in (-2, -(1 << 31), (1 << 31) - 1, wire.MESSAGE_BYTES_MAX + 1, 257, 1 << 24):
        yield f"length {number}", struct.pack("!i", number) + b"abc"
    for size in (0, 3, 1 << 32, 1 << 63, (1 << 64) - 1):
        yield f"long length {size}", struct.pack("!iQ", -1, size) + b"abc"
    yield "empty messages", _message(b"") * 70
    yield "an unfinished header", b"\0\0"
    yield "http", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def _handshake(role: Role) -> bytes:
    """Return the bytes that a client with that role's key sends until it is authenticated."""
    response = b"{sha256}" + hmac.new(SECRETS[role], CHALLENGE, hashlib.sha256).digest()
    theirs = handshake.CHALLENGE + b"{sha256}" + b"d" * 40
    return _message(response) + _message(theirs) + _message(handshake.WELCOME)


def _served(data: bytes | bytearray) -> bytes:
    return bytes([SERVED | ROLES.index(Role.ADMIN)]) + data


def _message(body: bytes) -> bytes:
    return wire.with_header(body)


def dictionary() -> list[bytes]:
    """Return words for mutants: names of commands and calls, and opcodes with arguments."""
    tags = [str(type(command).__struct_config__.tag).encode() for command in _COMMANDS]
    words = [word.encode() for call in (*_CALLS, *_OPENINGS) for word in call[:2] if word]
    return sorted({*tags, *words, *(data for data, _ in EXAMPLES.values() if len(data) < 16)})
