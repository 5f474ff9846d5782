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
import random
import threading
import time
from collections.abc import Callable, Sequence

from svc.broker.base import Broker, expect
from svc.broker.dial import Dialer
from svc.broker.forks import begin_anew_in_children
from svc.domain import commands as c
from svc.domain import replies as r
from svc.errors import BadRequest, ManagerUnreachable, ServiceError, error_for
from svc.wire import PROTOCOL_VERSION, Stream, decode_response, encode_request, response_frame
from svc.wire_tls import TlsFiles

#: Seconds that connecting and the handshake may take, as part of the caller's own deadline.
CONNECT_SECONDS = 5.0
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
        self._hello = hello or _client_hello
        self._timeout = timeout
        self._dialer = Dialer(address, authkey, tls)
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
        stream = self._dialer.connect(limit)
        try:
            replies = self._exchange(stream, [self._hello(), *self._unrecorded], limit, 0.0)
            welcome = expect(replies[0], r.Welcome)
        except BaseException:
            stream.close()
            raise
        self.reconnects += self.welcome.version != 0
        self.welcome = welcome
        self._stream = stream
        return stream

    def _discard(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


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
