"""The connection of clients, consumers and supervisors to a manager over TCP.

One thread at a time uses the connection, but any thread may call `interrupt`. The protocol is the stdlib's: a
handshake, `accept_connection`, then frames (`svc.wire`). If the connection breaks, the same request is sent
again on a new one until its deadline, since every command may be repeated (promise 3 in
docs/architecture.md). If a call fails or is interrupted by an exception, its connection is closed, so a late
answer is never taken for that of another call.

Nothing is done at exit: the kernel closes the socket. A forked child closes its copy, so that the manager
notices at once if the parent ends.
"""

from __future__ import annotations

import contextlib

# `socket` imports it at the first host name. A child forked during that import would wait for ever.
import encodings.idna  # noqa: F401
import pickle
import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from svc.broker.base import Broker
from svc.broker.forks import begin_anew_in_children
from svc.broker.stream import Stream
from svc.domain import commands as c
from svc.domain import replies as r
from svc.errors import AuthenticationFailed, BadRequest, ManagerUnreachable, ServiceError, error_for
from svc.wire import (
    PROTOCOL_VERSION,
    decode_response,
    encode_request,
    response_frame,
    with_header,
)
from svc.wire_handshake import CHALLENGE, WELCOME, answer, is_right, make_challenge
from svc.wire_tls import TlsError, TlsFiles

if TYPE_CHECKING:
    import ssl

#: Seconds that connecting and the handshake may take, as part of the caller's own deadline.
CONNECT_SECONDS = 5.0
#: Seconds without data before the first probe, seconds between two probes, and the number of unanswered
#: probes after which the connection is dead. The first option has another name under macOS.
KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPALIVE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
#: Seconds between two attempts to connect: doubled from the first value up to the last, with full jitter.
RETRY_SECONDS_FIRST = 0.05
RETRY_SECONDS_LAST = 2.0
#: Seconds in which a call must be answered, in addition to the wait of its command.
CALL_SECONDS = 10.0

Address = tuple[str, int]


class ManagerBroker(Broker):
    """A connection to the manager, made at the first call and again after it breaks."""

    def __init__(
        self,
        address: Address,
        authkey: bytes,
        *,
        hello: Callable[[], c.Hello] | None = None,
        timeout: float | None = CALL_SECONDS,
        tls: TlsFiles | None = None,
    ) -> None:
        """Connect to *address* later.

        Args:
            address: host and port.
            authkey: the shared secret.
            hello: makes the hello of each new connection, which names the leases still held.
            timeout: seconds that a call may take in addition to its own wait; None for no limit.
            tls: certificates for the connection; None for a connection without TLS.
        """
        self.address = address
        self.welcome = r.Welcome(0, 0, "", 15.0, 0)
        #: How many connections were made after the first one.
        self.reconnects = 0
        self._authkey = authkey
        self._hello = hello or _client_hello
        self._timeout = timeout
        self._tls = tls
        self._context: ssl.SSLContext | None = None
        self._stream: Stream | None = None
        #: Reports that were answered before they were recorded; they are repeated first on a new connection.
        self._unrecorded: list[c.AnyCommand] = []
        self._sending = threading.Lock()
        self._request = 0
        self._interrupted = False
        begin_anew_in_children(self)

    def connect(self) -> r.Welcome:
        """Connect now, within the timeout; return the manager's answer to hello.

        Raises:
            ManagerUnreachable: it did not answer in time.
            AuthenticationFailed: the authkey was refused.
            ProtocolMismatch: it speaks another version.
        """
        self.ping()
        return self.welcome

    def call(self, commands: Sequence[c.AnyCommand], *, wait: float = 0.0) -> list[r.AnyReply]:
        """See `Broker.call`.

        Raises:
            ManagerUnreachable: no answer within the timeout; whether the change was made is not known.
            AuthenticationFailed: the authkey was refused.
        """
        deadline = None if self._timeout is None else time.monotonic() + wait + self._timeout
        pause = RETRY_SECONDS_FIRST
        while True:
            try:
                stream = self._stream or self._open(deadline)
                replies = self._exchange(stream, commands, deadline, wait)
            except (OSError, EOFError) as error:
                self._discard()
                if isinstance(error, ServiceError):
                    raise
                self._pause(pause, deadline, error)
                pause = min(pause * 2, RETRY_SECONDS_LAST)
            except BaseException:
                # The answer may still come, and must not be taken for that of the next request.
                self._discard()
                raise
            else:
                self._unrecorded = _unrecorded(commands, replies)
                return replies

    def interrupt(self) -> None:
        """See `Broker.interrupt`."""
        self._interrupted = True
        stream = self._stream
        if stream is not None:
            with contextlib.suppress(OSError), self._sending:
                stream.send(encode_request(0, [c.Wake()]))

    def close(self) -> None:
        """See `Broker.close`."""
        if self._stream is not None:
            with contextlib.suppress(OSError, EOFError, BadRequest):
                if self._hello is not _client_hello:
                    self._exchange(self._stream, [c.Leave()], time.monotonic() + 1.0, 0.0)
            self._discard()

    def begin_anew(self) -> None:
        """Close this child's copy of the parent's connection; a call makes a new connection."""
        self._sending = threading.Lock()
        self._unrecorded = []
        self._interrupted = False
        self._discard()

    # --- one exchange -------------------------------------------------------------------------------

    def _exchange(
        self, stream: Stream, commands: Sequence[c.AnyCommand], deadline: float | None, wait: float
    ) -> list[r.AnyReply]:
        self._request += 1
        request = self._request
        stream.allow(deadline)
        with self._sending:
            if self._interrupted and wait:
                commands = [*commands[:-1], _impatient(commands[-1])]
            stream.send(encode_request(request, commands))
        while True:
            frame = response_frame(stream.receive(deadline))
            if frame is None:
                raise BadRequest("the manager answered something that is not a frame")
            answered, replies = decode_response(frame)
            if answered == request:
                return replies
            if replies and isinstance(replies[0], r.Refused) and not answered:
                raise error_for(replies[0].code, replies[0].message)

    def _pause(self, seconds: float, deadline: float | None, error: Exception) -> None:
        """Wait before the next attempt.

        Raises:
            ManagerUnreachable: the deadline would pass before the next attempt.
        """
        seconds *= random.random()
        if deadline is not None and time.monotonic() + seconds >= deadline:
            host, port = self.address
            why = str(error) or type(error).__name__
            raise ManagerUnreachable(
                f"no answer from the manager at {host}:{port}: {why}; is it running, and at this address?"
            ) from None
        time.sleep(seconds)

    # --- a new connection ---------------------------------------------------------------------------

    def _open(self, deadline: float | None) -> Stream:
        limit = time.monotonic() + CONNECT_SECONDS
        limit = limit if deadline is None else min(limit, deadline)
        plain = socket.create_connection(self.address, timeout=max(0.001, limit - time.monotonic()))
        try:
            _keep_alive(plain)
            stream = self._secured(plain, limit)
            welcome = self._exchange(stream, [self._hello(), *self._unrecorded], limit, 0.0)[0]
        except TlsError as error:
            plain.close()
            raise AuthenticationFailed(
                f"no TLS with the manager at {self.address[0]}:{self.address[1]}: {error}; "
                "both sides need certificates of one CA, and the manager's must have the name that is dialled"
            ) from None
        except BaseException:
            plain.close()
            raise
        if isinstance(welcome, r.Refused):
            stream.close()
            raise error_for(welcome.code, welcome.message)
        self.reconnects += self.welcome.version != 0
        self.welcome = cast(r.Welcome, welcome)
        self._stream = stream
        return stream

    def _secured(self, plain: socket.socket, deadline: float) -> Stream:
        """Return the connection after both sides have proved the authkey, over TLS if that is set."""
        stream = Stream(plain)
        if self._tls is not None:
            self._context = self._context or self._tls.client_context()
            stream.allow(deadline)
            stream = Stream(self._tls.dial(plain, self._context, self.address[0]))
        stream.allow(deadline)
        self._shake_hands(stream, deadline)
        return stream

    def _shake_hands(self, stream: Stream, deadline: float) -> None:
        """Prove to the manager that we know the key, verify that it does, and send `accept_connection`."""
        response = answer(self._authkey, self._challenge(stream, deadline))
        if response is None:
            raise BadRequest(f"{self.address[0]}:{self.address[1]} is not a manager: no challenge came")
        stream.send(with_header(response))
        if stream.receive(deadline) != WELCOME:
            raise AuthenticationFailed(
                f"the manager at {self.address[0]}:{self.address[1]} refused the authkey; "
                "both sides must read the same key file"
            )
        challenge = make_challenge()
        stream.send(with_header(CHALLENGE + challenge))
        if not is_right(self._authkey, challenge, stream.receive(deadline)):
            raise AuthenticationFailed(
                f"whoever answers at {self.address[0]}:{self.address[1]} does not know the authkey"
            )
        request = pickle.dumps((None, "accept_connection", ("svc",), {}), protocol=4)
        stream.send(with_header(WELCOME) + with_header(request))
        stream.receive(deadline)

    def _challenge(self, stream: Stream, deadline: float) -> bytes:
        try:
            return stream.receive(deadline)
        except (EOFError, TimeoutError) as error:
            if self._tls is not None:
                raise
            # A manager with TLS waits for the client's first message, and then closes the connection.
            raise type(error)("no challenge came; is it overloaded, or does it ask for TLS?") from None

    def _discard(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def _keep_alive(plain: socket.socket) -> None:
    """Send small messages at once and detect a dead peer soon, with the options that the system has."""
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, number in KEEP_ALIVE.items():
        option = getattr(socket, name, None)
        if option is not None:
            plain.setsockopt(socket.IPPROTO_TCP, option, number)


def _client_hello() -> c.Hello:
    return c.Hello(PROTOCOL_VERSION, "client")


def _unrecorded(commands: Sequence[c.AnyCommand], replies: Sequence[r.AnyReply]) -> list[c.AnyCommand]:
    """Return those of *commands* that were applied and may not yet be recorded."""
    last = replies[-1] if replies else None
    if not (isinstance(last, r.Grant) and last.early):
        return []
    answered = zip(commands[:-1], replies[:-1], strict=True)
    return [command for command, reply in answered if not isinstance(reply, r.Refused)]


def _impatient(command: c.AnyCommand) -> c.AnyCommand:
    import msgspec

    return msgspec.structs.replace(command, wait=0.0)
