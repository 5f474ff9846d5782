"""The large values of the jobs that run in this process: arguments are fetched, results stored, in pieces.

They travel over a connection of their own, made at the first one, so that a transfer delays no report.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar

from svc import codec
from svc.broker.backoff import Backoff
from svc.broker.base import Broker
from svc.domain import commands as c
from svc.domain.large_values import RESULT_PLACE
from svc.domain.limits import incarnation_of
from svc.errors import JobTooLarge, LeaseLost, ManagerUnreachable
from svc.large import (
    File,
    FileBytes,
    Kind,
    LargeReference,
    pieces_of,
    received,
    replaced,
    send,
    source_of,
    write,
)
from svc.received_files import Folder
from svc.wire import PROTOCOL_VERSION
from svc.worker.arguments import Arguments
from svc.worker.options import Connect, WorkerOptions

T = TypeVar("T")
#: Seconds for which a transfer keeps asking a manager that is away.
PATIENCE_SECONDS = 60.0
#: Seconds for which a lease may be unknown to a manager that was restarted.
REJOIN_SECONDS = 10.0
#: The folders of the attempt of this context.
_folders: ContextVar[list[Folder] | None] = ContextVar("svc_folders", default=None)


class LargeValuesWorker:
    """Fetches and stores the large values of jobs, each under the token of its lease. Thread-safe."""

    def __init__(self, connect: Callable[[], Broker]) -> None:
        """Connect with *connect* at the first large value."""
        self._connect = connect
        self._line = threading.Lock()
        self._broker: Broker | None = None

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Remove the files that come meanwhile at the end."""
        folders: list[Folder] = []
        before = _folders.set(folders)
        try:
            yield
        finally:
            _folders.reset(before)
            for folder in folders:
                folder.remove()

    def fetched(self, arguments: Arguments, token: int, number: int) -> Arguments:
        """Return arguments with the large values in place of the references to them.

        Raises:
            CodecError: a value has another content than was sent, or there is no room for a file.
            ServiceError: the lease has gone, or the manager does not answer.
        """
        return replaced(*arguments, partial(self._fetched, token, number))

    def stored(self, value: Any, token: int, number: int, inline: int) -> StoredResult | None:
        """Store a result, and return its encoded form; None for bytes that take at most *inline* bytes.

        Raises:
            CodecError: the file cannot be read, or the manager takes none.
            JobTooLarge: the value is over the manager's limit.
            ServiceError: there is no room for it, the lease has gone, or the manager does not answer.
        """
        if not isinstance(value, File | FileBytes) and memoryview(value).nbytes <= inline:
            return None
        source = source_of(value)
        try:
            most, piece = self._limits()
            if source.size > most:
                raise JobTooLarge(
                    f"the result takes {source.size} bytes and the manager's limit is {most}; "
                    "return less, or raise --max-value-bytes of the manager"
                )

            def store(pieces: Sequence[tuple[int, Any]]) -> int:
                size = source.size
                commands = [c.StoreResultPiece(token, number, size, at, data) for at, data in pieces]
                return self._call(lambda broker: broker.store(commands), token)

            return StoredResult(codec.encode_reference(send(source, RESULT_PLACE, piece, store)))
        finally:
            source.close()

    def _fetched(self, token: int, number: int, value: object) -> object:
        if not isinstance(value, LargeReference):
            return value

        def fetch(offsets: Sequence[int]) -> list[bytes]:
            commands = [c.FetchArgument(token, number, value.place, at) for at in offsets]
            return self._call(lambda broker: broker.fetch(commands), token)

        pieces = pieces_of(value, self._limits()[1], fetch)
        if value.kind is not Kind.FILE:
            return received(value, pieces)
        folder = Folder()
        folders = _folders.get()
        if folders is not None:
            folders.append(folder)
        file = File.received(folder.path / value.name, value.name, folder)
        write(pieces, file.path)
        return file

    def _is_older(self, token: int) -> bool:
        """Return whether the manager was started, or has recovered, since it granted a lease."""
        incarnation = 0 if self._broker is None else self._broker.welcome.incarnation
        return incarnation > incarnation_of(token)

    def _limits(self) -> tuple[int, int]:
        """Return the bytes of the largest value that the manager takes, and those of a piece."""

        def look(broker: Broker) -> tuple[int, int]:
            if not broker.welcome.version:
                broker.ping()
            return broker.welcome.largest_value, broker.welcome.piece_size or 1

        return self._call(look)

    def _call(self, question: Callable[[Broker], T], token: int = 0) -> T:
        """Return the answer to a question about the lease *token*; ask again while the manager is away."""
        end, rejoined, backoff = time.monotonic() + PATIENCE_SECONDS, 0.0, Backoff()
        while True:
            try:
                with self._line:
                    if self._broker is None:
                        self._broker = self._connect()
                    return question(self._broker)
            except ManagerUnreachable:
                if time.monotonic() >= end:
                    raise
            except LeaseLost:
                # A manager that was restarted knows the lease once the consumer has said hello again.
                rejoined = rejoined or time.monotonic() + REJOIN_SECONDS
                if not self._is_older(token) or time.monotonic() >= rejoined:
                    raise
            time.sleep(backoff.fail())


def values_of(options: WorkerOptions, connect: Connect) -> LargeValuesWorker:
    """Return the large values of a consumer, over connections that *connect* makes."""
    hello = c.Hello(PROTOCOL_VERSION, "client", release=options.release)
    return LargeValuesWorker(lambda: connect(lambda: hello))


class StoredResult(bytes):
    """An encoded result that is a reference to a stored value: its ack has to say so."""
