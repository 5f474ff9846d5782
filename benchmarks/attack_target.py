"""The settings of an attack, and helpers that make its messages.

The allowed lengths of lists are read from the declarations, so that a message has as many elements as the
manager accepts.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import msgspec
from msgspec import inspect

from benchmarks.line import Endpoint, Line, frame
from svc.domain import commands as c
from svc.domain.field_bounds import FRAME_COMMANDS_MAX
from svc.domain.job import NewChunk

MEBIBYTE = 1 << 20
#: Bytes of each result of origin `fed`, and the number of these results.
RESULT_BYTES = 256 * 1024
RESULTS = 32
#: The task of all jobs, and a priority above those of all other jobs.
TASK = "m:f"
FIRST = 1 << 40
#: The most bytes of a message in addition to its commands.
ENVELOPE_BYTES = 128
#: The number of elements used for a list without a bound.
_UNBOUNDED = 1 << 20


@dataclass(frozen=True)
class Target:
    """The manager's addresses, the attackers' keys, and how much they send.

    Attributes:
        endpoint: the address at which the manager listens.
        http: the address at which it serves metrics.
        keys: a secret for each role.
        large: bytes of the largest frames.
        small: bytes of the other frames, for which the usual bound holds.
        peers: connections of attacks that make many of them.
        waiting: jobs that wait in the queue `deep`.
    """

    endpoint: Endpoint
    http: str
    keys: dict[str, bytes]
    large: int
    small: int
    peers: int
    waiting: int

    @contextlib.contextmanager
    def line(self, role: str) -> Iterator[Line]:
        """Connect with the key of *role*."""
        line = Line(self.endpoint, self.keys[role])
        try:
            yield line
        finally:
            line.close()


Attack = Callable[[Target], int]
T = TypeVar("T")


def most(kind: type[msgspec.Struct], name: str) -> int:
    """Return how many elements the list in a field may have by its declaration."""
    for field in inspect.type_info(kind).fields:  # type: ignore[attr-defined]  # a struct has fields
        if field.name == name and field.type.max_length is not None:
            return int(field.type.max_length)
    return _UNBOUNDED


def repeated(command: c.Command, size: int, limit: int = FRAME_COMMANDS_MAX) -> bytes:
    """Return the message of a frame of about *size* bytes that repeats one command, at most *limit* times."""
    one = msgspec.msgpack.encode(command)
    count = max(1, min(limit, (size - ENVELOPE_BYTES) // len(one)))
    raw = msgspec.Raw(b"\xdd" + count.to_bytes(4) + one * count)
    return frame(cast("Sequence[c.Command]", raw))


def submits(size: int, make: Callable[[int], NewChunk]) -> bytes:
    """Return a message of about *size* bytes with the chunks that *make* returns for 0, 1 and so on."""
    count = (size - ENVELOPE_BYTES) // (len(msgspec.msgpack.encode(make(1 << 18))) + 1)
    made = [make(number) for number in range(count)]
    return frame([c.Submit("many", part) for part in parts(made, most(c.Submit, "chunks"))])


def parts(values: Sequence[T], limit: int) -> Iterator[list[T]]:
    """Yield *values* in lists of at most *limit*."""
    for start in range(0, len(values), limit):
        yield list(values[start : start + limit])


def send(target: Target, role: str, *messages: bytes) -> int:
    """Send each message after the answer to the one before; the manager may end the connection.

    Returns:
        The bytes of the largest message.
    """
    with target.line(role) as line, contextlib.suppress(EOFError, OSError):
        for message in messages:
            line.send(message)
            line.receive()
    return max(map(len, messages))


def put(item: object) -> bytes:
    """Return the message of a stock client's put."""
    return pickle.dumps(("tasks", "put", (item,), {}), protocol=4)
