"""The messages on TCP: the frames of svc's own clients, inside messages of the standard library.

A BaseManager client sends the pickle of `(ident, method, args, kwds)` and gets the pickle of
`(kind, result)` back. svc's clients send exactly that, with ident `jobs`, method `call` and one bytes
argument. It is written here byte by byte, with a constant head and tail. The manager recognises the head and
cuts the frame out without unpickling; any other reader still gets a valid pickle.

A frame is MessagePack: `[request, [command, ...]]` and `[request, [reply, ...]]`.
"""

from __future__ import annotations

import contextlib
import math
import struct
import time
from collections.abc import Callable, Sequence
from socket import SHUT_RDWR, socket
from typing import TYPE_CHECKING, Annotated

import msgspec

from svc.domain import limits
from svc.domain.commands import PROTOCOL_VERSION, AnyCommand, Command
from svc.domain.field_bounds import FRAME_COMMANDS_MAX
from svc.domain.replies import AnyReply, Refused, Reply
from svc.errors import BadRequest
from svc.wire_duplex import SHORT_BYTES, ready, send_and_read

if TYPE_CHECKING:
    from svc.wire_tls import TlsSocket

__all__ = [
    "HEADER",
    "LONG_HEADER",
    "MESSAGE_BYTES_MAX",
    "PROTOCOL_VERSION",
    "RELEASE",
    "RESPONSE_BYTES_MAX",
    "Stream",
    "as_received",
    "decode_request",
    "decode_response",
    "encode_request",
    "encode_response",
    "request_frame",
    "response_frame",
    "with_header",
]

#: Version of the package.
RELEASE = "0.1.0"
#: Bytes that no message from the network may exceed, whatever the settings say.
MESSAGE_BYTES_MAX = limits.MESSAGE_BYTES_MAX
#: Bytes of an answer that a client takes.
RESPONSE_BYTES_MAX = 2 * MESSAGE_BYTES_MAX
#: Bytes of a read while the length of a message is not known yet; most messages are shorter.
_READ_BYTES = 64 * 1024
#: Bytes of a buffer up to which it is kept for the next messages.
_KEPT_BYTES = 2 * 1024 * 1024
#: A frame of so many bytes is decoded command by command: it may have more elements than there is time for.
LARGE_FRAME_BYTES = 1024 * 1024
#: A buffer has at most this many times the bytes of its content, unless it is small.
_GROWTH = 4
_TOO_LARGE = Refused(
    "bad_request", "what was asked was done, but the answers are too large together; ask for less at a time"
)

_LENGTH = struct.Struct("<I")
#: The stdlib's message header: a signed 32-bit length, or -1 and an unsigned 64-bit one.
HEADER = struct.Struct("!i")
LONG_HEADER = struct.Struct("!Q")
_REQUEST_BYTES_MAX = HEADER.size + MESSAGE_BYTES_MAX
_HEADERS_BYTES = HEADER.size + LONG_HEADER.size


class _Pickle:
    """A pickle that has one frame, as bytes, between a constant head and a constant tail."""

    def __init__(self, head: bytes, tail: bytes) -> None:
        """Begin with *head*, whose last byte announces the length of the frame and the frame itself."""
        self._head = head
        self._tail = tail
        #: The head and the length of the frame.
        self._front = struct.Struct(f"<{len(head)}s{_LENGTH.format[1:]}")
        #: The start of a message, with room for the two lengths.
        self._start = bytes(HEADER.size) + head + bytes(_LENGTH.size)

    def message(self, content: object, limit: float = math.inf) -> bytearray:
        """Return a message with its header, or an empty one if it would have more than *limit* bytes."""
        # The frame is encoded at its final place, so a large one is not copied again.
        message = bytearray(self._start)
        start = len(message)
        _encoder.encode_into(content, message, start)
        if len(message) > limit:
            return bytearray()
        _LENGTH.pack_into(message, start - _LENGTH.size, len(message) - start)
        message += self._tail
        HEADER.pack_into(message, 0, len(message) - HEADER.size)
        return message

    def frame(self, message: bytes | bytearray | memoryview) -> memoryview | None:
        """Return the frame inside *message*, which has no header, or None if it is another pickle."""
        view, start = memoryview(message), self._front.size
        stop = len(view) - len(self._tail)
        if stop < start or view[1] != self._head[1]:  # the pickle protocol, which differs for stock clients
            return None
        head, length = self._front.unpack_from(view)
        if head != self._head or start + length != stop or view[stop:] != self._tail:
            return None
        return view[start:stop]


#: (ident, method, (frame,), {}) as pickle protocol 3: MARK, two unicode strings, one bytes argument
#: in a tuple of one, an empty dict, TUPLE, STOP. Protocol 3 has no frame lengths to maintain.
_REQUEST = _Pickle(b"\x80\x03(X\x04\x00\x00\x00jobsX\x04\x00\x00\x00callB", b"\x85}t.")
#: The pair of '#RETURN' and the frame, in the same protocol.
_RESPONSE = _Pickle(b"\x80\x03X\x07\x00\x00\x00#RETURNB", b"\x86.")


class _Request(msgspec.Struct, array_like=True):
    request: int
    commands: Annotated[list[AnyCommand], msgspec.Meta(max_length=FRAME_COMMANDS_MAX)]


class _Response(msgspec.Struct, array_like=True):
    request: int
    replies: list[AnyReply]


_encoder = msgspec.msgpack.Encoder()
_request_decoder = msgspec.msgpack.Decoder(_Request)
_response_decoder = msgspec.msgpack.Decoder(_Response)


def encode_request(request: int, commands: Sequence[Command]) -> bytearray:
    """Return one whole message (header included) with *commands*.

    Raises:
        BadRequest: it would be larger than a manager takes: it would cut the connection.
    """
    message = _REQUEST.message((request, commands))
    if len(message) > _REQUEST_BYTES_MAX:
        size = len(message) - HEADER.size
        raise BadRequest(f"the request takes {size} bytes and no message carries over {MESSAGE_BYTES_MAX}")
    return message


def encode_response(request: int, replies: Sequence[Reply]) -> bytearray:
    """Return one whole message (header included) with *replies*.

    If they are larger than a client accepts, the message has as many refusals.
    """
    message = _RESPONSE.message((request, replies), RESPONSE_BYTES_MAX)
    return message or _RESPONSE.message((request, [_TOO_LARGE] * len(replies)))


#: Returns the frame inside a message of svc's own clients, or None for another client's message.
request_frame = _REQUEST.frame
#: Returns the frame inside a reply to svc's own clients, or None for anything else.
response_frame = _RESPONSE.frame


def decode_request(frame: bytes | memoryview) -> tuple[int, list[AnyCommand]]:
    """Return (request id, commands).

    Raises:
        BadRequest: `encode_request` did not write the frame.
    """
    try:
        if len(frame) >= LARGE_FRAME_BYTES:
            from svc.wire_large import decode_large  # hardly anybody needs it

            return decode_large(frame)
        request = _request_decoder.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the request cannot be read: {error}") from None
    return request.request, request.commands


def as_received(commands: Sequence[Command]) -> list[AnyCommand]:
    """Return *commands* as a manager gets them, for an engine without a network.

    Raises:
        BadRequest: a manager would refuse them: a field is out of its bounds.
    """
    try:
        return decode_request(_encoder.encode((0, commands)))[1]
    except (OverflowError, UnicodeEncodeError) as error:
        raise BadRequest(f"the request cannot be sent: {error}") from None


def decode_response(frame: bytes | memoryview) -> tuple[int, list[AnyReply]]:
    """Return (request id, replies).

    Raises:
        BadRequest: `encode_response` did not write the frame.
    """
    try:
        response = _response_decoder.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the manager's answer cannot be read: {error}") from None
    return response.request, response.replies


def with_header(body: bytes) -> bytes:
    """Return *body* as one message of `multiprocessing.connection`."""
    if len(body) > 0x7FFFFFFF:
        return HEADER.pack(-1) + LONG_HEADER.pack(len(body)) + body
    return HEADER.pack(len(body)) + body


class Stream:
    """A blocking connection, and the bytes that were read from it after the last message.

    All is read into one buffer, which serves the next messages too: the system provides new memory page by
    page, and that takes longer than to copy what it is for.
    """

    __slots__ = ("_buffer", "_channel", "_pending", "_start", "_stop")

    def __init__(
        self, channel: socket | TlsSocket, rest: bytes = b"", pending: Callable[[], int] = int
    ) -> None:
        """Read and write *channel*, which `close` closes; *rest* was read from it before.

        *pending* counts the bytes that the channel itself has buffered.
        """
        self._channel = channel
        self._pending = pending
        self._buffer = bytearray(_READ_BYTES)
        #: The bytes that were read and are of no message so far: from here to there in the buffer.
        self._start = self._stop = 0
        self._keep(rest)

    def arrived(self, seconds: float) -> bool:
        """Return whether a message begins to arrive, or the connection ends, within some *seconds*."""
        if self._start < self._stop or self._pending():
            return True
        return ready(self._channel, seconds)[0]

    def allow(self, deadline: float | None) -> None:
        """Let the next operation take until *deadline* (monotonic); None for no limit.

        Raises:
            TimeoutError: the deadline has passed.
        """
        if deadline is None:
            self._channel.settimeout(None)
            return
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        self._channel.settimeout(left)

    def send(self, message: bytes | bytearray) -> None:
        """Send a complete message, header included, within the deadline of the last `allow`.

        If it is long, the bytes that come meanwhile are read. So only the thread that receives may send it.

        Raises:
            EOFError: the connection has ended.
            OSError: the connection is broken, or the time has passed.
        """
        if len(message) > SHORT_BYTES and isinstance(self._channel, socket):
            send_and_read(self._channel, message, self._keep)
        else:
            self._channel.sendall(message)

    def receive(self, deadline: float | None) -> memoryview:
        """Return the next message, without its header; it is valid until the next operation.

        Raises:
            BadRequest: the header announces more bytes than any message may have.
            EOFError: the connection has ended.
            OSError: the connection is broken, or *deadline* has passed.
        """
        if self._start == self._stop:
            self._start = self._stop = 0
            if len(self._buffer) > _KEPT_BYTES:
                self._buffer = bytearray(_READ_BYTES)
        while (lengths := self._lengths()) is None:
            self._read(_HEADERS_BYTES, deadline)
        header, length = lengths
        size = header + length
        while self._stop - self._start < size:
            self._read(size, deadline)
        begin = self._start + header
        self._start += size
        return memoryview(self._buffer)[begin : self._start]

    def cut(self) -> None:
        """End the connection, so that a thread that waits for it has an error. Thread-safe."""
        with contextlib.suppress(OSError):
            self._channel.shutdown(SHUT_RDWR)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _lengths(self) -> tuple[int, int] | None:
        """Return the bytes of the next header and of its message, or None if the header is incomplete."""
        came, header = self._stop - self._start, HEADER.size
        if came < header:
            return None
        (length,) = HEADER.unpack_from(self._buffer, self._start)
        if length == -1:
            header += LONG_HEADER.size
            if came < header:
                return None
            (length,) = LONG_HEADER.unpack_from(self._buffer, self._start + HEADER.size)
        if not 0 <= length <= RESPONSE_BYTES_MAX:
            raise BadRequest(f"the manager announced a message of {length} bytes")
        return header, length

    def _read(self, size: int, deadline: float | None) -> None:
        """Read more of a message of *size* bytes, its header included, and perhaps of those behind it."""
        self.allow(deadline)
        # The buffer grows with its content, and not at once to a length that the other side announces.
        wanted = min(size, max(len(self._buffer), _GROWTH * (self._stop - self._start)))
        if self._start + wanted > len(self._buffer):
            self._move(wanted)
        with memoryview(self._buffer) as view, view[self._stop :] as free:
            count = self._channel.recv_into(free)
        if not count:
            raise EOFError("the connection was closed")
        self._stop += count

    def _keep(self, data: bytes) -> None:
        """Add bytes that came while a message was sent."""
        came = self._stop - self._start
        if self._stop + len(data) > len(self._buffer):
            self._move(max(came + len(data), _GROWTH * came))
        self._buffer[self._stop : self._stop + len(data)] = data
        self._stop += len(data)

    def _move(self, size: int) -> None:
        """Move what was read to the front of a buffer of *size* bytes at least."""
        came = memoryview(self._buffer)[self._start : self._stop]
        if size > len(self._buffer):
            self._buffer = bytearray(size)
        memoryview(self._buffer)[: len(came)] = came  # which may overlap, unlike in a slice of a bytearray
        self._start, self._stop = 0, len(came)
