"""One TCP connection to the manager: framing, buffers and the handshake, all without blocking."""

from __future__ import annotations

import enum
import socket
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

from svc import wire_handshake as handshake
from svc.domain.members import Member
from svc.domain.roles import Role
from svc.wire import HEADER, MESSAGE_BYTES_MAX, with_header
from svc.wire_tls import Tls, TlsError

if TYPE_CHECKING:
    import ssl

    from svc.server.keys import Key

#: Bytes that are read from one connection in one turn at most, so that no peer starves the others.
READ_BYTES_MAX = 1024 * 1024
#: Bytes that may wait to be sent to a peer that does not read, before it is cut off.
WRITE_BYTES_MAX = MESSAGE_BYTES_MAX * 3 // 2
#: Requests of one connection that may be without an answer; above it no more are read.
OUTSTANDING_MAX = 64
_READ_BYTES = 256 * 1024
#: Bytes that what a peer asks first on a connection may have.
OPENING_BYTES_MAX = 64 * 1024
#: The length in a header that announces a longer one of 64 bits. CPython writes it from 2 GiB on (in
#: `Connection._send_bytes`), which is over every limit.
_LONG = -1
#: Bytes from which what has come of a message goes into a buffer of its own, and how much larger than what
#: has come that may be: one that grows with each piece would be moved again and again.
_GATHERED_BYTES = 256 * 1024
_GROWTH = 4


class Stage(enum.Enum):
    """How far a connection has come."""

    #: Our challenge is out; its response is awaited.
    CHALLENGED = enum.auto()
    #: The peer has proved itself; its own challenge is awaited.
    WELCOMED = enum.auto()
    #: We have answered it; the peer's verdict is awaited.
    ANSWERED = enum.auto()
    #: The first request, to the server itself, is awaited.
    OPEN = enum.auto()
    #: There is no place for it. What it asks first is answered with the reason, and it is closed.
    REFUSED = enum.auto()
    #: Requests to the shared objects are served.
    SERVING = enum.auto()


_SERVING = Stage.SERVING


class PeerGone(Exception):
    """The peer closed the connection, or broke the rules and is cut off; says why."""


class TooLarge(PeerGone):
    """A message is over the limit."""


class TlsRefused(PeerGone):
    """The peer does not speak TLS, or has no certificate that is believed here."""


class Connection:
    """A peer, its buffers and its stage."""

    __slots__ = (
        "_filled",
        "_gathered",
        "_input",
        "_output",
        "_tls",
        "_unsent",
        "_whole",
        "address",
        "calls",
        "challenge",
        "closing",
        "fd",
        "key",
        "mask",
        "member",
        "peer",
        "refusal",
        "since",
        "sock",
        "stage",
        "waiting_since",
        "work",
    )

    def __init__(
        self, sock: socket.socket, address: tuple[str, int], context: ssl.SSLContext | None = None
    ) -> None:
        """Take over an accepted socket; with a *context* the peer has to speak TLS."""
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 25_000)
        self.sock = sock
        self.fd = sock.fileno()
        self.address = address[0]
        self.peer = f"{address[0]}:{address[1]}"
        self.since = time.monotonic()
        self.stage = Stage.CHALLENGED
        self.challenge = handshake.make_challenge()
        self.member = Member()
        self.member.address = address[0]
        #: The key that the peer has proved to know.
        self.key: Key | None = None
        #: Requests of a plain client that have been read before; what they are is the dialogue's.
        self.calls: dict[bytes, Any] = {}
        #: Since when (monotonic) bytes have been waiting without a break for the peer to read.
        self.waiting_since = 0.0
        #: What the loop waits for on this socket.
        self.mask = 0
        #: What goes on in later turns with a request that is not done: gets the time to stop, and returns
        #: whether it is done now.
        self.work: Callable[[float], bool] | None = None
        #: Why it may not stay; empty if it may.
        self.refusal = ""
        #: Close once everything is sent.
        self.closing = False
        self._tls = None if context is None else Tls(context, server_side=True)
        self._input = bytearray()
        #: A large message that has not wholly come, how many of its bytes have, and how many it has.
        self._gathered = bytearray()
        self._filled = self._whole = 0
        #: What waits to be sent, and how many bytes of it.
        self._output: deque[memoryview] = deque()
        self._unsent = 0

    @property
    def closed(self) -> bool:
        """Whether the socket has been given up."""
        return self.fd < 0

    @property
    def wants_to_write(self) -> bool:
        """Whether bytes wait to be sent."""
        return bool(self._output)

    @property
    def paused(self) -> bool:
        """Whether nothing more is read: what the peer asked for should first be done, and taken by it."""
        return self.member.outstanding >= OUTSTANDING_MAX or bool(self._output) or self.work is not None

    @property
    def outstanding(self) -> int:
        """How many requests have no answer yet."""
        return self.member.outstanding

    @property
    def buffered(self) -> int:
        """How many bytes wait: of messages that have not wholly come, and of answers that are not read."""
        return len(self._input) + len(self._gathered) + self._unsent

    @property
    def unread(self) -> int:
        """How many bytes wait for the peer to read them."""
        return self._unsent

    @property
    def role(self) -> Role | None:
        """What the peer's key is for; None before it has proved one."""
        return None if self.key is None else self.key.role

    def start(self) -> None:
        """Send the challenge; over TLS it waits for the end of that handshake."""
        if self._tls is None or self._tls.ready:
            self.send(with_header(handshake.CHALLENGE + self.challenge))

    def receive(self) -> Iterator[memoryview]:
        """Yield the whole messages that have arrived; each is valid until the next one is asked for.

        Raises:
            PeerGone: the connection has ended, or a message is over the limit.
        """
        received = 0
        while received < READ_BYTES_MAX and not self.paused:
            raw = self._read()
            if raw is None:
                return
            received += len(raw)
            data = raw if self._tls is None else self._decrypt(raw)
            if self._gathered:
                data = yield from self._gather(data)
            if self._input or self.paused:
                self._input += data
                if not self.paused:
                    yield from self.left_over()
                if len(self._input) >= _GATHERED_BYTES:
                    rest = bytes(self._input)
                    self._input.clear()
                    self._keep(rest)
            elif self._is_one(data):
                with memoryview(data) as view, view[HEADER.size :] as message:
                    yield message
            else:
                start = yield from self._messages(data)
                self._keep(data[start:])
            if len(raw) < _READ_BYTES or self.closed:
                return

    def left_over(self) -> Iterator[memoryview]:
        """Yield the whole messages that had arrived when the connection was paused; as `receive`."""
        rest = yield from self._messages(self._input)
        del self._input[:rest]

    def _keep(self, rest: bytes) -> None:
        """Keep what has come of a message, a large one in a buffer of its own."""
        if len(rest) < _GATHERED_BYTES or self.paused:
            self._input += rest
            return
        (length,) = HEADER.unpack_from(rest)
        self._whole = HEADER.size + length
        if self._whole > len(rest):
            self._filled = 0
            self._fill(rest)
        else:
            self._input += rest

    def _gather(self, data: bytes) -> Generator[memoryview, None, bytes]:
        """Add to the large message, and yield it when it is whole; return what follows it."""
        missing = self._whole - self._filled
        self._fill(data[:missing])
        if len(data) < missing:
            return b""
        message, self._gathered = self._gathered, bytearray()
        yield from self._messages(message)
        return data[missing:]

    def _fill(self, data: bytes) -> None:
        """Add to the large message; what is claimed and has not come takes only so much memory."""
        filled = self._filled + len(data)
        if filled > len(self._gathered):
            larger = bytearray(min(self._whole, _GROWTH * filled))
            larger[: self._filled] = memoryview(self._gathered)[: self._filled]
            self._gathered = larger
        memoryview(self._gathered)[self._filled : filled] = data
        self._filled = filled

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

    def _is_one(self, data: bytes) -> bool:
        """Return whether *data* is one whole message, as nearly all is that a stock client sends at once."""
        size = len(data) - HEADER.size
        if size < 0 or HEADER.unpack_from(data)[0] != size:
            return False
        return size <= handshake.MESSAGE_BYTES_MAX or size <= self._limit()

    def _messages(self, data: bytes | bytearray) -> Generator[memoryview, None, int]:
        """Yield the whole messages in *data*; return how many bytes they took."""
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
        """Send a whole message (header included), now or when the peer reads.

        Raises:
            PeerGone: the connection is broken, or the peer does not read and too much waits for it.
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
        self._unsent += len(data) - sent
        if self._unsent > WRITE_BYTES_MAX:
            raise PeerGone(f"{self._unsent} bytes wait for a peer that does not read")

    def flush(self) -> None:
        """Send what waits, as far as the peer takes it."""
        while self._output:
            first = self._output[0]
            sent = self._try_send(first)
            self._unsent -= sent
            if sent < len(first):
                self._output[0] = first[sent:]
                return
            self._output.popleft()

    def close(self) -> None:
        """Give the socket up."""
        if not self.closed:
            self.fd = -1
            self.sock.close()

    def _limit(self) -> int:
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
