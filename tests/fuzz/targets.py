"""The targets of the fuzzers: each takes any bytes and raises a Finding if the code breaks a promise.

`decoder` is the reader of plain clients' pickles, `frames` are MessagePack frames, arguments and results, and
`connection` is a whole manager with one peer: framing, handshake, opening request, calls and frames.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import socket
import struct
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Self

from svc import codec, wire
from svc import wire_handshake as handshake
from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.domain.job import Terms
from svc.domain.limits import Limits
from svc.domain.roles import Role
from svc.envelope import PickleKeys
from svc.errors import BadRequest, CodecError
from svc.server.connection import OUTSTANDING_MAX, Connection, Stage
from svc.server.keys import Key, KeyRing
from svc.server.manager import Server
from svc.server.pickle_scan import loads_plain
from svc.server.pickle_stack import NESTING_MAX
from tests.fuzz.oracle import Finding
from tests.support.inside import connection_count, waiting_lessees

#: The size that shared values may add when they are written out: small, so each value can be compared fully.
EXPANDED_BYTES_MAX = 100_000
_PLAIN = (type(None), bool, int, float, str, bytes, bytearray, tuple, list, dict, set, frozenset)
_CONTAINERS = (tuple, list, dict, set, frozenset)

KEYS = PickleKeys((b"a key that the fuzzer knows not",))
ENVELOPES = KEYS.of("o-0")
TERMS = Terms("m:f", codec=codec.PICKLE)

#: The challenge of the manager of `connection`, and the keys that it knows: fixed, so inputs are repeatable.
CHALLENGE = b"{sha256}" + b"c" * 40
ROLES = tuple(Role)
SECRETS = {role: f"the key of {role}".encode() for role in ROLES}
#: A bit of an input's first byte: the peer is past the handshake, with a role; else it has to make it.
SERVED = 0x80
#: Bits of the first byte: the number of bytes that come at a time, as an exponent of 4; 0 is all at once.
PIECES = 0x30
_LIMITS = Limits(max_job_bytes=1 << 16, max_queue_jobs=1000)


def decoder(data: bytes) -> None:
    """Read a pickle. An accepted one names no global, is plain and bounded, and reads as with the stdlib."""
    try:
        value = loads_plain(data, max_expanded_bytes=EXPANDED_BYTES_MAX)
    except BadRequest as error:
        _is_no_cover(error)
        return
    asked: list[object] = []
    other = _Recorder(asked, data).load()
    if asked:
        raise Finding(f"a pickle was accepted that asks for {asked}")
    for part, depth in _walk(value):
        if type(part) not in _PLAIN or depth > NESTING_MAX:
            raise Finding(f"a {type(part).__name__} was accepted at depth {depth}")
    if repr(value) != repr(other):
        raise Finding(f"{value!r:.200} was read where the stdlib reads {other!r:.200}")


class _Recorder(pickle.Unpickler):
    """The C unpickler, which records the globals that it is asked for."""

    def __init__(self, asked: list[object], data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self._asked = asked

    def find_class(self, module: str, name: str, /) -> Any:
        self._asked.append((module, name))
        return list

    def persistent_load(self, pid: object, /) -> None:
        self._asked.append(pid)


def _walk(value: object) -> Iterator[tuple[object, int]]:
    waiting = [(value, 0)]
    for _ in range(2 * EXPANDED_BYTES_MAX):
        if not waiting:
            return
        part, depth = waiting.pop()
        yield part, depth
        if isinstance(part, dict):
            waiting += [(inner, depth + 1) for item in part.items() for inner in item]
        elif isinstance(part, _CONTAINERS):
            waiting += [(inner, depth + 1) for inner in part]
    raise Finding("a value was accepted that has too many parts")


def _is_no_cover(error: Exception) -> None:
    """Reject a refusal that only reports an error that came too late."""
    if any(word in str(error) for word in ("MemoryError", "RecursionError", "SystemError")):
        raise Finding(f"it was refused by accident: {error}")


def frames(data: bytes) -> None:
    """Read a frame, its parts, arguments, results and envelopes; accepted ones survive a second round."""
    for decode, encode, cut in (
        (wire.decode_request, wire.encode_request, wire.request_frame),
        (wire.decode_response, wire.encode_response, wire.response_frame),
    ):
        with contextlib.suppress(BadRequest):
            cut(data)
            first = _again(encode, cut, decode(data))
            if first != _again(encode, cut, decode(first)):
                raise Finding("a frame changes when it is read and written again")
    opened = partial(ENVELOPES.open_arguments, TERMS)
    for read in (
        partial(codec.decode_arguments, codec.PLAIN, data, (codec.PLAIN,)),
        partial(codec.decode_arguments, codec.TYPED, data, (codec.PLAIN,)),
        partial(codec.decode_arguments, codec.PICKLE, data, codec.CODECS, opened),
        partial(codec.decode_result, data),
        partial(codec.decode_result, data, ENVELOPES),
        partial(codec.decode_exception, data, ENVELOPES),
    ):
        with contextlib.suppress(CodecError):
            read()


def _again(encode: Callable[..., bytearray], cut: Callable[..., memoryview | None], read: Any) -> bytes:
    frame = cut(encode(*read)[wire.HEADER.size :])
    if frame is None:
        raise Finding("a message of ours is not known as one")
    return bytes(frame)


def connection(data: bytes) -> None:
    """Send bytes to a manager: for any bytes it goes on, keeps its bounds, and forgets the peer."""
    how = data[0] if data else 0
    with _Manager() as manager:
        peer = manager.accepted()
        if how & SERVED:
            peer.key = Key(ROLES[how % len(ROLES)], SECRETS[ROLES[how % len(ROLES)]])
            peer.stage = Stage.SERVING
            manager.server._connections.opened(peer)
        step = (1 << (2 * ((how & PIECES) >> 4))) if how & PIECES else max(1, len(data))
        for place in range(1, min(len(data), 64 * step), step):
            manager.hear(data[place : place + step])
            if peer.closed:
                break
        if not peer.closed and peer.member.outstanding > OUTSTANDING_MAX:
            raise Finding(f"{peer.member.outstanding} requests of one peer wait for an answer")
        _check_answers(manager.said(), served=bool(how & SERVED))
        manager.hang_up()
        if connection_count(manager.server) or waiting_lessees(manager.host):
            raise Finding("something of the peer is left after it has gone")


def _check_answers(said: bytes, *, served: bool) -> None:
    """Read the manager's messages like its clients: whole ones that name no more than an error."""
    while len(said) >= wire.HEADER.size:
        (length,) = wire.HEADER.unpack_from(said)
        body, said = said[wire.HEADER.size :][:length], said[wire.HEADER.size + length :]
        if body.startswith((handshake.CHALLENGE, handshake.WELCOME, handshake.FAILURE)):
            continue
        frame = wire.response_frame(body)
        if frame is not None:
            wire.decode_response(frame)
        elif served:
            read_answer(body)


def read_answer(body: bytes) -> tuple[Any, ...]:
    """Return an answer as a stock client reads it: its kind, and the value.

    Raises:
        Finding: it is not such a pair, or names more than an error.
    """
    answer = _Answer(io.BytesIO(body)).load()
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise Finding(f"the manager answered {body!r:.200}")
    return answer


class _Answer(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) in _ERRORS:
            return Exception
        if module == "builtins" and name in ("set", "frozenset"):
            return {"set": set, "frozenset": frozenset}[name]  # as protocol 3 writes an item that holds one
        raise Finding(f"the manager's answer names {module}.{name}")


_ERRORS = {
    ("_queue", "Empty"), ("queue", "Empty"), ("queue", "Full"),
    *(("builtins", name) for name in ("ValueError", "PermissionError", "TypeError", "KeyError",
                                      "AttributeError", "RuntimeError", "NotImplementedError",
                                      "TimeoutError")),
}  # fmt: skip

#: Seconds in which the kernel tells the manager that its peer has gone.
GONE_SECONDS = 20.0


class _Manager:
    """A manager on a free port of this host, whose turns are made one by one, and a peer of it."""

    def __enter__(self) -> Self:
        self.host = QueueHost(MemoryJournal(), limits=_LIMITS)
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        ring = KeyRing(Key(role, secret) for role, secret in SECRETS.items())
        self.server = Server(self.host, listener, ring)
        self.server._epoll.register(listener.fileno(), 1)
        self.server._epoll.register(self.server._wake_read, 1)
        self._peer = socket.create_connection(self.server.endpoint)
        # The end is a reset: otherwise a million closed connections would wait for a minute each.
        self._peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return self

    def __exit__(self, *exception: object) -> None:
        self._peer.close()
        self.server._close()

    def accepted(self) -> Connection:
        """Return the manager's end of the connection."""
        self._turn()
        (found,) = self.server._connections.limits.connections.values()
        found.challenge = CHALLENGE
        return found

    def hear(self, data: bytes) -> None:
        """Send *data*, and let the manager handle it."""
        with contextlib.suppress(OSError):
            self._peer.sendall(data)
        self._turn()

    def said(self) -> bytes:
        """Return the data that the manager has sent."""
        found = bytearray()
        self._peer.setblocking(False)
        with contextlib.suppress(OSError):
            while chunk := self._peer.recv(1 << 16):
                found += chunk
        return bytes(found)

    def hang_up(self) -> None:
        """Break the connection, and have the manager see that; a busy kernel may tell it late."""
        self._peer.close()
        end = time.monotonic() + GONE_SECONDS
        self._turn()
        while connection_count(self.server) and time.monotonic() < end:
            self._turn()

    def _turn(self) -> None:
        for _ in range(2):
            self.server.wake()
            self.server._loop.turn()


TARGETS: dict[str, Callable[[bytes], None]] = {
    "decoder": decoder,
    "frames": frames,
    "connection": connection,
}
