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
import threading
import time
from collections.abc import Callable, Collection, Sequence

from svc.broker.backoff import Backoff
from svc.broker.base import Broker, Settlement, expect
from svc.broker.dial import Dialer
from svc.broker.forks import begin_anew_in_children
from svc.broker.no_reply import asked_reason, unreachable
from svc.domain import commands as c
from svc.domain import replies as r
from svc.error_codes import error_for
from svc.errors import BadRequest, ManagerUnreachable, ServiceError, SoftTimeout
from svc.first_answer import NotTried
from svc.wire import PROTOCOL_VERSION, Stream, decode_response, encode_request, response_frame
from svc.wire_tls import TlsFiles

#: Seconds that connecting and the handshake may take, as part of the caller's own deadline.
CONNECT_SECONDS = 5.0
#: Seconds in which a call must be answered, in addition to the wait of its command.
CALL_SECONDS = 10.0
#: Seconds before the end of its time at which a call asks why there is no reply, or half of the time left.
ASK_SECONDS = 1.0

#: A host and a port.
Address = tuple[str, int]


class ManagerBroker(Broker):
    """A connection to the manager, made at the first call and again after it breaks."""

    def __init__(
        self,
        address: Address | Sequence[Address],
        authkey: bytes,
        *,
        hello: Callable[[], c.Hello] | None = None,
        timeout: float | None = CALL_SECONDS,
        tls: TlsFiles | None = None,
    ) -> None:
        """Connect to *address* later.

        Args:
            address: host and port, or several of them, all of one manager.
            authkey: the shared secret.
            hello: makes the hello of each new connection, which names the leases still held.
            timeout: seconds that a call may take in addition to its own wait; None for no limit.
            tls: certificates for the connection; None for a connection without TLS.
        """
        self.welcome = r.Welcome(0, 0, "", 15.0, 0)
        #: How many connections were made after the first one.
        self.reconnects = 0
        self._hello = hello or _client_hello
        self._timeout = timeout
        self._dialer = Dialer(_hosts(address), authkey, tls)
        self._backoff = Backoff()
        #: Whether the last attempt failed.
        self._away = False
        self._stream: Stream | None = None
        #: Reports that were answered before they were recorded; they are repeated first on a new connection.
        self._unrecorded: list[c.AnyCommand] = []
        #: The last request that was sent before one of them was answered.
        self._early_until = 0
        #: The requests of `send` that have no answer yet, and the replies that nobody has received.
        self._sent: dict[int, Sequence[c.AnyCommand]] = {}
        self._answers: dict[int, list[r.AnyReply]] = {}
        self._sending = threading.Lock()
        self._request = 0
        #: The manager's own answer to the question why a request has no reply.
        self._reason = ""
        #: Whether an attempt has failed since the last call began.
        self._failed = False
        self._interrupted = threading.Event()
        #: Whether nobody waits for the answer to the call any more.
        self._given_up = False
        #: The connection on which a hello is under way.
        self._opening: Stream | None = None
        #: Like `_interrupted`, for one call.
        self._woken = False
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
            ManagerUnreachable: no answer within the timeout, or no connection after `interrupt`; whether the
                change was made is not known. Or *commands* report outcomes, and the connection has ended
                before sent reports were answered: those have to be sent again first.
            AuthenticationFailed: the authkey was refused.
            Exception: what `on_failure` raises.
        """
        waited = time.monotonic() + wait
        deadline = None if self._timeout is None else waited + self._timeout
        self._reason, self._failed, self._given_up = "", False, False
        told: Exception | None = None
        while True:
            try:
                stream = self._stream
                if stream is None:
                    stream = self._open(deadline)
                    if wait:
                        # Otherwise the answer would come after the deadline, however well the manager is.
                        commands = _shortened(commands, waited - time.monotonic())
                replies = self._exchange(stream, commands, deadline, wait)
            except (OSError, EOFError) as error:
                behind_others = bool(self._sent) and any(isinstance(each, Settlement) for each in commands)
                self._discard()
                if isinstance(error, ServiceError):
                    raise
                self._away = self._failed = True
                # An attempt that began too late says nothing of the manager, unlike the one before it.
                told = told if told and isinstance(error, NotTried) else error
                self.trouble = str(unreachable(self._dialer.name, told, self._reason))
                if behind_others:
                    raise ManagerUnreachable(
                        f"the connection has ended before earlier reports were answered: {error}"
                    ) from error
                self._pause(self._backoff.fail(), deadline, told)
            except BaseException:
                # The answer may still come, and must not be taken for that of the next request.
                self._discard()
                raise
            else:
                self._note_unrecorded(self._request, commands, replies)
                self._woken = self._woken and not wait  # it has ended this call, or might as well have
                if self._away:
                    self._away, self.trouble = False, ""
                    self._backoff.succeed()
                return replies

    def send(self, commands: Sequence[c.AnyCommand], *, wait: float = 0.0) -> int:
        """See `Broker.send`."""
        stream = self._stream
        if stream is None:
            return 0
        try:
            number = self._send(stream, commands, time.monotonic() + CALL_SECONDS, wait)
        except (OSError, EOFError) as error:
            self._discard()
            if isinstance(error, SoftTimeout):
                raise
            return 0
        except BaseException:
            self._discard()  # half of the request may have gone
            raise
        self._sent[number] = commands
        return number

    def receive(
        self, numbers: Collection[int], seconds: float, *, final: bool = True
    ) -> tuple[int, list[r.AnyReply]] | None:
        """See `Broker.receive`."""
        deadline = time.monotonic() + seconds
        while True:
            for number in numbers:
                if number in self._answers:
                    return number, self._answers.pop(number)
            if self._stream is None or not self._sent.keys() >= {*numbers}:
                raise ManagerUnreachable("the connection to the manager has ended")
            try:
                if not self._stream.arrived(max(0.0, deadline - time.monotonic())):
                    if final and seconds:
                        raise _late()  # noqa: TRY301 - it ends as a broken connection does
                    return None
                self._note(*self._read(self._stream, time.monotonic() + CALL_SECONDS))
            except (OSError, EOFError) as error:
                self._discard()
                if isinstance(error, SoftTimeout):
                    raise
                raise ManagerUnreachable(f"the connection to the manager has ended: {error}") from error
            except BaseException:
                self._discard()
                raise

    def forget(self, number: int) -> None:
        """See `Broker.forget`."""
        self._sent.pop(number, None)
        self._answers.pop(number, None)

    def _note(self, number: int, replies: list[r.AnyReply]) -> None:
        """Keep the replies to a sent request for `receive`."""
        commands = self._sent.pop(number, None)
        if commands is not None:
            self._note_unrecorded(number, commands, replies)
            self._answers[number] = replies

    def _note_unrecorded(
        self, number: int, commands: Sequence[c.AnyCommand], replies: Sequence[r.AnyReply]
    ) -> None:
        """Keep the reports in *commands* if they were answered before they were recorded.

        Earlier ones are recorded, unless both answers may have left in one turn.
        """
        found = _unrecorded(commands, replies)
        if found and self._unrecorded and number <= self._early_until:
            self._unrecorded += found
        else:
            self._unrecorded, self._early_until = found, self._request

    def interrupt(self) -> None:
        """See `Broker.interrupt`."""
        self._interrupted.set()
        self.wake()

    def give_up(self) -> None:
        """See `Broker.give_up`."""
        self._given_up = True
        self._interrupted.set()
        for stream in (self._opening, self._stream):
            if stream is not None:
                stream.cut()

    def wake(self, *told: c.Recall) -> None:
        """See `Broker.wake`."""
        self._woken = True
        stream = self._stream
        if stream is not None:
            with contextlib.suppress(OSError), self._sending:
                stream.send(encode_request(0, [c.Wake(), *told]))

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
        self._interrupted = threading.Event()
        self._discard()

    # --- one exchange -------------------------------------------------------------------------------

    def _exchange(
        self, stream: Stream, commands: Sequence[c.AnyCommand], deadline: float | None, wait: float
    ) -> list[r.AnyReply]:
        request = self._send(stream, commands, deadline, wait)
        while True:
            answered, replies = self._read(stream, deadline)
            if answered == request:
                return replies
            self._note(answered, replies)

    def _send(
        self, stream: Stream, commands: Sequence[c.AnyCommand], deadline: float | None, wait: float
    ) -> int:
        """Send a request; return its number."""
        self._request += 1
        stream.allow(deadline)
        with self._sending:
            if wait and (self._interrupted.is_set() or self._woken):
                commands = _shortened(commands, 0.0)
                self._woken = False
            stream.send(encode_request(self._request, commands))
        return self._request

    def _read(self, stream: Stream, deadline: float | None) -> tuple[int, list[r.AnyReply]]:
        """Return the next replies, with the number of their request."""
        frame = response_frame(self._received(stream, deadline))
        if frame is None:
            raise BadRequest("the manager answered something that is not a frame")
        answered, replies = decode_response(frame)
        if replies and isinstance(replies[0], r.Refused) and not answered:
            raise error_for(replies[0].code, replies[0].message)
        return answered, replies

    def _received(self, stream: Stream, deadline: float | None) -> memoryview:
        """Return the next message; shortly before *deadline*, ask the manager why it has not come."""
        if deadline is None:
            return stream.receive(None)
        try:
            return stream.receive(deadline - min(ASK_SECONDS, (deadline - time.monotonic()) / 2))
        except SoftTimeout:
            raise  # it is about the task that waits here
        except TimeoutError:
            self._reason = asked_reason(self._dialer, deadline, back=self._failed) or self._reason
        return stream.receive(deadline)

    def _pause(self, seconds: float, deadline: float | None, error: Exception) -> None:
        """Wait before the next attempt; an interrupt ends that, and makes the next attempt the last one.

        Raises:
            ManagerUnreachable: the deadline would pass before the next attempt, or this one was the last.
            Exception: what `on_failure` raises.
        """
        if self.on_failure is not None:
            self.on_failure()
        late = deadline is not None and time.monotonic() + seconds >= deadline
        if late or self._interrupted.is_set():
            raise unreachable(self._dialer.name, error, self._reason) from None
        if self._interrupted.wait(seconds) and self._given_up:
            raise unreachable(self._dialer.name, error, self._reason) from None

    # --- a new connection ---------------------------------------------------------------------------

    def _open(self, deadline: float | None) -> Stream:
        limit = time.monotonic() + CONNECT_SECONDS
        limit = limit if deadline is None else min(limit, deadline)
        stream = self._dialer.connect(limit, lambda: self._given_up)
        self._opening = stream
        try:
            replies = self._exchange(stream, [self._hello(), *self._unrecorded], limit, 0.0)
            welcome = expect(replies[0], r.Welcome)
        except BaseException:
            stream.close()
            raise
        finally:
            self._opening = None
        self.reconnects += self.welcome.version != 0
        self.welcome = welcome
        self._stream = stream
        return stream

    def _discard(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        self._sent.clear()
        self._answers.clear()


def _hosts(address: Address | Sequence[Address]) -> list[Address]:
    match address:
        case (str(host), int(port)):
            return [(host, port)]
    return [(host, port) for host, port in address]


def _late() -> TimeoutError:
    return TimeoutError("it has not answered in time")


def _client_hello() -> c.Hello:
    return c.Hello(PROTOCOL_VERSION, "client")


def _unrecorded(commands: Sequence[c.AnyCommand], replies: Sequence[r.AnyReply]) -> list[c.AnyCommand]:
    """Return those of *commands* that were applied and may not yet be recorded."""
    last = replies[-1] if replies else None
    if not (isinstance(last, r.Grant) and last.early):
        return []
    answered = zip(commands[:-1], replies[:-1], strict=True)
    return [command for command, reply in answered if not isinstance(reply, r.Refused)]


def _shortened(commands: Sequence[c.AnyCommand], seconds: float) -> list[c.AnyCommand]:
    """Return *commands* with *seconds* as the wait of the last one, or none if these are negative."""
    import msgspec

    *before, last = commands
    return [*before, msgspec.structs.replace(last, wait=max(0.0, seconds))]
