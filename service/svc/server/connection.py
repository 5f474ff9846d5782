"""One TCP connection to the manager: framing, buffers and the handshake, all without blocking."""

from __future__ import annotations

import enum
import socket
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from svc import wire_handshake as handshake
from svc.domain.commands import Command
from svc.domain.members import Member
from svc.domain.roles import Role
from svc.wire import HEADER, MESSAGE_BYTES_MAX, with_header
from svc.wire_tls import Tls, TlsError

if TYPE_CHECKING:
    import ssl

    from svc.server.keys import Key

#: The most bytes that are read from one connection in one turn, so that no peer keeps others from being read.
READ_BYTES_MAX = 1024 * 1024
#: Bytes that may wait to be sent to a peer that does not read, before it is cut off.
WRITE_BYTES_MAX = MESSAGE_BYTES_MAX * 3 // 2
#: Requests of one connection that may be without an answer; at this number no more are read.
OUTSTANDING_MAX = 64
_READ_BYTES = 256 * 1024
#: A message of fewer bytes that has come alone is handled without a look for others.
_ALONE_BYTES = 64 * 1024
#: The size limit of the first request on a connection.
OPENING_BYTES_MAX = 64 * 1024
#: A peer that has gone without a word is found out after 25 s.
_TCP_OPTIONS = {
    socket.TCP_NODELAY: 1,
    socket.TCP_KEEPIDLE: 10,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 25_000,
}
#: The length in a header that announces a second length of 64 bits. CPython writes it from 2 GiB on (in
#: `Connection._send_bytes`), which is over every limit.
_LONG = -1
#: From this many received bytes on, a partial message gets a buffer of its own.
_LARGE_BYTES = 256 * 1024
#: The buffer may be this many times as large as its content: if it grew with each piece, it would be copied
#: each time.
_GROWTH = 4


class Stage(enum.Enum):
    """The stage of a connection, from the handshake to service."""

    #: Our challenge is sent; its response is awaited.
    CHALLENGED = enum.auto()
    #: The peer has proved itself; its own challenge is awaited.
    WELCOMED = enum.auto()
    #: We have answered it; the peer's acceptance is awaited.
    ANSWERED = enum.auto()
    #: The first request, to the server itself, is awaited.
    OPEN = enum.auto()
    #: The limits leave no place for it. Its first request is answered with the reason; then it is closed.
    REFUSED = enum.auto()
    #: Requests to the shared objects are served.
    SERVING = enum.auto()


_SERVING = Stage.SERVING


class PeerGone(Exception):
    """The peer closed the connection, or broke the rules and is cut off; the message is the reason."""


class TooLarge(PeerGone):
    """A message is over the limit."""


class TlsRefused(PeerGone):
    """The peer does not speak TLS, or has no certificate that the manager trusts."""


class Connection:
    """A peer, its buffers and its stage."""

    __slots__ = (
        "_announced",
        "_input",
        "_large",
        "_output",
        "_received",
        "_tls",
        "address",
        "calls",
        "challenge",
        "closed",
        "closing",
        "fd",
        "free_commands",
        "key",
        "mask",
        "member",
        "peer",
        "put",
        "refusal",
        "since",
        "sock",
        "stage",
        "unsent",
        "waiting_since",
        "work",
    )

    def __init__(
        self, sock: socket.socket, address: tuple[str, int], context: ssl.SSLContext | None = None
    ) -> None:
        """Take over an accepted socket; with a *context* the peer has to speak TLS."""
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _TCP_OPTIONS.items():
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        self.sock = sock
        self.fd = sock.fileno()
        #: Whether the socket has been closed here.
        self.closed = False
        self.address = address[0]
        self.peer = f"{address[0]}:{address[1]}"
        self.since = time.monotonic()
        self.stage = Stage.CHALLENGED
        self.challenge = handshake.make_challenge()
        self.member = Member()
        self.member.address = address[0]
        #: The key that the peer has proved to know.
        self.key: Key | None = None
        #: The commands that the role of this key may send whatever their fields are.
        self.free_commands: frozenset[type[Command]] = frozenset()
        #: Decoded requests of a plain client, by their bytes; the protocol fills and reads it.
        self.calls: dict[bytes, Any] = {}
        #: The method for `tasks.put(item)`, if the role of the key is known to allow it; likewise.
        self.put: Callable[..., None] | None = None
        #: The time (monotonic) since which bytes have always been waiting for the peer to read them.
        self.waiting_since = 0.0
        #: The epoll events for which the loop waits on this socket.
        self.mask = 0
        #: Continues an unfinished request in later turns: it takes the time at which to stop, and returns
        #: whether the request is done.
        self.work: Callable[[float], bool] | None = None
        #: Why the limits refuse this connection; empty if they do not.
        self.refusal = ""
        #: Close once everything is sent.
        self.closing = False
        self._tls = None if context is None else Tls(context, server_side=True)
        self._input = bytearray()
        #: The buffer of a large message that is incomplete.
        self._large = bytearray()
        #: How many of its bytes have come, and how many it has in all.
        self._received = self._announced = 0
        #: The data that waits to be sent, and its size in bytes.
        self._output: deque[memoryview] = deque()
        self.unsent = 0

    @property
    def paused(self) -> bool:
        """Whether nothing more is read until earlier requests are done and the peer has read the answers."""
        return self.member.outstanding >= OUTSTANDING_MAX or bool(self._output) or self.work is not None

    @property
    def at_rest(self) -> bool:
        """Whether it is read, nothing of it is buffered, and it is to stay."""
        return not (
            self._input
            or self._large
            or self._output
            or self.work is not None
            or self.closing
            or self.member.outstanding >= OUTSTANDING_MAX
        )

    @property
    def buffered(self) -> int:
        """How many bytes are buffered: of incomplete messages, and of answers that the peer has not read."""
        return len(self._input) + len(self._large) + self.unsent

    @property
    def role(self) -> Role | None:
        """The role of the peer's key; None before the peer has proved one."""
        return None if self.key is None else self.key.role

    def start(self) -> None:
        """Send the challenge; with TLS, only after the TLS handshake."""
        if self._tls is None or self._tls.ready:
            self.send(with_header(handshake.CHALLENGE + self.challenge))

    def receive(self) -> Iterable[memoryview]:
        """Return the complete messages that have arrived; each is valid until the next one is asked for.

        Call it only if the connection is not paused.

        Raises:
            PeerGone: the connection has ended, or a message is over the limit.
        """
        data = self._read()
        if data is None:
            return ()
        size = len(data) - HEADER.size
        if (
            self.stage is _SERVING
            and 0 <= size == HEADER.unpack_from(data)[0] < _ALONE_BYTES
            and not (self._input or self._large)
            and self._tls is None
        ):
            return (memoryview(data)[HEADER.size :],)  # as nearly always if a stock client sends it
        return self._receive(data)

    def _receive(self, data: bytes | None) -> Iterator[memoryview]:
        """Yield the messages that *data* completes, and those that are read after it."""
        received = 0
        while data is not None:
            received += len(data)
            more = len(data) >= _READ_BYTES and received < READ_BYTES_MAX
            if self._input or self._large or self._tls is not None:
                yield from self._receive_part(data)
            else:
                start = yield from self._messages(data)
                self._keep(data[start:])
            if not more or self.closed or self.paused:
                return
            data = self._read()

    def _receive_part(self, data: bytes) -> Iterator[memoryview]:
        """Yield the messages that *data* completes; it is encrypted, or begins inside a message."""
        if self._tls is not None:
            data = self._decrypt(data)
        if self._large:
            data = yield from self._complete_large(data)
        if not (self._input or self.paused):
            start = yield from self._messages(data)
            self._keep(data[start:])
            return
        self._input += data
        if not self.paused:
            yield from self.left_over()
        if len(self._input) >= _LARGE_BYTES:
            rest = bytes(self._input)
            self._input.clear()
            self._keep(rest)

    def left_over(self) -> Iterator[memoryview]:
        """Yield the complete messages that had arrived when the connection was paused, as `receive` does."""
        rest = yield from self._messages(self._input)
        del self._input[:rest]

    def _keep(self, rest: bytes) -> None:
        """Keep the first part of a message; a large one gets a buffer of its own."""
        if len(rest) < _LARGE_BYTES or self.paused:
            self._input += rest
            return
        (length,) = HEADER.unpack_from(rest)
        self._announced = HEADER.size + length
        if self._announced > len(rest):
            self._received = 0
            self._add_to_large(rest)
        else:
            self._input += rest

    def _complete_large(self, data: bytes) -> Generator[memoryview, None, bytes]:
        """Add *data* to the large message, and yield it if it is complete; return the bytes after it."""
        missing = self._announced - self._received
        self._add_to_large(data[:missing])
        if len(data) < missing:
            return b""
        message, self._large = self._large, bytearray()
        yield from self._messages(message)
        return data[missing:]

    def _add_to_large(self, data: bytes) -> None:
        """Add *data* to the large message; its buffer grows by steps, not at once to the announced length."""
        filled = self._received + len(data)
        if filled > len(self._large):
            larger = bytearray(min(self._announced, _GROWTH * filled))
            larger[: self._received] = memoryview(self._large)[: self._received]
            self._large = larger
        memoryview(self._large)[self._received : filled] = data
        self._received = filled

    def _read(self) -> bytes | None:
        try:
            data = self.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            raise PeerGone(str(error)) from None
        if not data:
            raise PeerGone("closed by the peer")
        if self.stage is not _SERVING:
            self._quick_ack()
        return data

    def _decrypt(self, data: bytes) -> bytes:
        tls = self._tls
        if tls is None:
            return data
        was_ready = tls.ready
        try:
            said = tls.feed(data)
        except TlsError as error:
            self._write(tls.output())  # the alert that tells the peer why
            raise (PeerGone if was_ready else TlsRefused)(f"TLS: {error}") from None
        self._write(tls.output())
        if tls.ready and not was_ready:
            self.start()
        return said

    def _messages(self, data: bytes | bytearray) -> Generator[memoryview, None, int]:
        """Yield the complete messages in *data*; return how many bytes they took."""
        start, size = 0, len(data)
        # The view must be released before the caller may resize the bytearray.
        with memoryview(data) as view:
            while size - start >= HEADER.size:
                (length,) = HEADER.unpack_from(view, start)
                begin = start + HEADER.size
                if length == _LONG:
                    raise TooLarge(f"a message of 2 GiB or more is over the limit of {self._limit()}")
                if not 0 <= length <= self._limit():
                    raise TooLarge(f"a message of {length} bytes is over the limit of {self._limit()}")
                if size - begin < length:
                    break
                with view[begin : begin + length] as message:
                    yield message
                start = begin + length
                if self.closed or self.paused:
                    break
        return start

    def send(self, message: bytes | bytearray) -> None:
        """Send a message (header included), now or when the peer reads.

        Raises:
            PeerGone: the connection is broken, or too many bytes wait because the peer does not read.
        """
        if self._tls is not None:
            try:
                message = self._tls.encrypt(message)
            except TlsError as error:
                raise PeerGone(f"TLS: {error}") from None
        self._write(message)

    def _write(self, data: bytes | bytearray) -> None:
        sent = self._try_send(data) if data and not self._output else 0
        if sent == len(data):
            return
        if not self._output:
            self.waiting_since = time.monotonic()
        self._output.append(memoryview(data)[sent:])
        self.unsent += len(data) - sent
        if self.unsent > WRITE_BYTES_MAX:
            raise PeerGone(f"{self.unsent} bytes wait for a peer that does not read")

    def flush(self) -> None:
        """Send the waiting data, as far as the socket takes it."""
        while self._output:
            first = self._output[0]
            sent = self._try_send(first)
            self.unsent -= sent
            if sent < len(first):
                self._output[0] = first[sent:]
                return
            self._output.popleft()

    def close(self) -> None:
        """Close the socket."""
        if not self.closed:
            self.closed, self.fd = True, -1
            self.sock.close()

    def _limit(self) -> int:
        """Return how many bytes a message may have at this stage."""
        if self.stage is _SERVING:
            return MESSAGE_BYTES_MAX
        known = self.stage in (Stage.OPEN, Stage.REFUSED)
        return OPENING_BYTES_MAX if known else handshake.MESSAGE_BYTES_MAX

    def _try_send(self, data: bytes | bytearray | memoryview) -> int:
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise PeerGone(str(error)) from None

    def _quick_ack(self) -> None:
        # A stock client writes twice before it reads; without this, Nagle and the delayed ACK cost it 44 ms.
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
