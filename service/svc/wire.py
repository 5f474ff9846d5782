"""The messages on TCP: the frames of svc's own clients, inside messages of the standard library.

A BaseManager client sends the pickle of `(ident, method, args, kwds)` and gets the pickle of
`(kind, result)` back. svc's clients send exactly that, with ident `jobs`, method `call` and one bytes
argument. It is written here byte by byte, with a constant head and tail. The manager recognises the head and
cuts the frame out without unpickling; any other reader still gets a valid pickle.

A frame is MessagePack: `[request, [command, ...]]` and `[request, [reply, ...]]`.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec

from svc.domain import limits
from svc.domain.commands import PROTOCOL_VERSION, AnyCommand, Command
from svc.domain.field_bounds import FRAME_COMMANDS_MAX
from svc.domain.replies import AnyReply, Refused, Reply
from svc.errors import BadRequest

if TYPE_CHECKING:
    from socket import socket

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
_LARGE_READ_BYTES = 1024 * 1024
_TOO_LARGE = Refused(
    "bad_request", "what was asked was done, but the answers are too large together; ask for less at a time"
)

# (ident, method, (frame,), {}) as pickle protocol 3: MARK, two unicode strings, one bytes argument
# in a tuple of one, an empty dict, TUPLE, STOP. Protocol 3 has no frame lengths to maintain.
_REQUEST_HEAD = b"\x80\x03(X\x04\x00\x00\x00jobsX\x04\x00\x00\x00callB"
_REQUEST_TAIL = b"\x85}t."
# The pair of '#RETURN' and the frame, in the same protocol.
_REPLY_HEAD = b"\x80\x03X\x07\x00\x00\x00#RETURNB"
_REPLY_TAIL = b"\x86."
_LENGTH = struct.Struct("<I")
#: The stdlib's message header: a signed 32-bit length, or -1 and an unsigned 64-bit one.
HEADER = struct.Struct("!i")
LONG_HEADER = struct.Struct("!Q")


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
    """Return one whole message (header included) with *commands*."""
    return _message(_REQUEST_HEAD, (request, commands), _REQUEST_TAIL)


def encode_response(request: int, replies: Sequence[Reply]) -> bytearray:
    """Return one whole message (header included) with *replies*.

    If they are larger than a client accepts, the message has as many refusals.
    """
    message = _message(_REPLY_HEAD, (request, replies), _REPLY_TAIL, RESPONSE_BYTES_MAX)
    return message or _message(_REPLY_HEAD, (request, [_TOO_LARGE] * len(replies)), _REPLY_TAIL)


def request_frame(message: bytes | bytearray | memoryview) -> memoryview | None:
    """Return the frame inside a message of svc's own clients, or None for another client's message."""
    return _cut(message, _REQUEST_HEAD, _REQUEST_TAIL)


def response_frame(message: bytes | bytearray | memoryview) -> memoryview | None:
    """Return the frame inside a reply to svc's own clients, or None for anything else."""
    return _cut(message, _REPLY_HEAD, _REPLY_TAIL)


def decode_request(frame: bytes | memoryview) -> tuple[int, list[AnyCommand]]:
    """Return (request id, commands).

    Raises:
        BadRequest: `encode_request` did not write the frame.
    """
    try:
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


def _message(head: bytes, content: object, tail: bytes, limit: float = math.inf) -> bytearray:
    """Return a message with its header, or an empty one if it would have more than *limit* bytes."""
    # The frame is encoded at its final place, so a large one is not copied again.
    message = bytearray(HEADER.size) + head + bytes(_LENGTH.size)
    start = len(message)
    _encoder.encode_into(content, message, start)
    if len(message) > limit:
        return bytearray()
    _LENGTH.pack_into(message, start - _LENGTH.size, len(message) - start)
    message += tail
    HEADER.pack_into(message, 0, len(message) - HEADER.size)
    return message


def _cut(message: bytes | bytearray | memoryview, head: bytes, tail: bytes) -> memoryview | None:
    view = memoryview(message)
    start = len(head) + _LENGTH.size
    # Messages of stock clients differ in the second byte, the pickle protocol: slicing views takes longer.
    if len(view) < start + len(tail) or view[1] != head[1]:
        return None
    if view[: len(head)] != head or view[-len(tail) :] != tail:
        return None
    (length,) = _LENGTH.unpack_from(view, len(head))
    return view[start : start + length] if start + length + len(tail) == len(view) else None


class Stream:
    """A blocking connection, and the bytes that were read from it after the last message."""

    __slots__ = ("_channel", "_rest")

    def __init__(self, channel: socket | TlsSocket) -> None:
        """Read and write *channel*, which `close` closes."""
        self._channel = channel
        self._rest = b""

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

        Raises:
            OSError: the connection is broken, or the time has passed.
        """
        self._channel.sendall(message)

    def receive(self, deadline: float | None) -> bytes:
        """Return the next message, without its header.

        Raises:
            BadRequest: the header announces more bytes than any message may have.
            EOFError: the connection has ended.
            OSError: the connection is broken, or *deadline* has passed.
        """
        data = self._rest or self._read(_READ_BYTES, deadline)
        while (place := _place(data)) is None:
            data += self._read(_READ_BYTES, deadline)
        start, stop = place
        self._rest = data[stop:]
        if len(data) < stop:
            return self._read_up_to(stop - start, data[start:], deadline)
        return data[start:stop]

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _read(self, size: int, deadline: float | None) -> bytes:
        self.allow(deadline)
        data = self._channel.recv(size)
        if not data:
            raise EOFError("the connection was closed")
        return data

    def _read_up_to(self, size: int, data: bytes, deadline: float | None) -> bytes:
        """Return *data* and the bytes after it, *size* bytes in all."""
        parts, missing = [data], size - len(data)
        while missing:
            parts.append(self._read(min(missing, _LARGE_READ_BYTES), deadline))
            missing -= len(parts[-1])
        return b"".join(parts)


def _place(data: bytes) -> tuple[int, int] | None:
    """Return the start and end of the first message in *data*, or None if its header is incomplete."""
    if len(data) < HEADER.size:
        return None
    start = HEADER.size
    (length,) = HEADER.unpack_from(data)
    if length == -1:
        if len(data) < start + LONG_HEADER.size:
            return None
        (length,) = LONG_HEADER.unpack_from(data, start)
        start += LONG_HEADER.size
    if not 0 <= length <= RESPONSE_BYTES_MAX:
        raise BadRequest(f"the manager announced a message of {length} bytes")
    return start, start + length
