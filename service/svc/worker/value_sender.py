"""Sends the partial results of an attempt to the manager, while its task goes on.

A thread of its own sends them over the consumer's connection, which is free while a task runs: the first one
at once, and those that come meanwhile together. So a task that yields often costs the manager some commits a
second and no more. No code here is the task's, so no interruption is raised here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from svc.broker.backoff import Backoff
from svc.broker.base import Broker
from svc.domain.commands import Yield
from svc.domain.field_bounds import YIELDED_VALUES_MAX
from svc.error_codes import error_for
from svc.errors import ManagerUnreachable
from svc.worker.exchange import PASSING

#: Seconds between two messages of one attempt, unless there is much to send.
SEND_SECONDS = 0.05
#: Bytes from which on partial results are sent without delay, and about which one message has.
MESSAGE_BYTES = 256 * 1024
#: Bytes and number of partial results that wait to be sent; the task waits when there are more.
WAITING_BYTES = 4 * MESSAGE_BYTES
WAITING_VALUES = 2 * YIELDED_VALUES_MAX


class ValueBounds(NamedTuple):
    """What the manager takes of one attempt: bytes of a partial result, their number, and bytes of all.

    They are 0 if the manager is older than streams.
    """

    value_bytes: int
    values: int
    total_bytes: int


class Recorder(Protocol):
    """Has the manager record partial results."""

    def bounds(self) -> ValueBounds:
        """Return what the manager takes."""

    def record(self, values: Yield) -> None:
        """Return once *values* are in the journal.

        Raises:
            ServiceError: the manager has refused them, or is away.
        """


class LineRecorder:
    """Records over the connection of a consumer, while its main thread runs a task.

    Args:
        line: the lock of the connection.
        broker: returns the connection.
    """

    def __init__(self, line: threading.Lock, broker: Callable[[], Broker | None]) -> None:
        self._line = line
        self._broker = broker

    def bounds(self) -> ValueBounds:
        """See `Recorder.bounds`."""
        broker = self._broker()
        if broker is None:
            return ValueBounds(0, 0, 0)
        told = broker.welcome
        return ValueBounds(told.stream_value_bytes, told.stream_values, told.stream_bytes)

    def record(self, values: Yield) -> None:
        """See `Recorder.record`."""
        with self._line:
            broker = self._broker()
            if broker is None:
                raise ManagerUnreachable
            refused = broker.settle([values])
        for refusal in refused:
            raise error_for(refusal.code, refusal.message)


class ValueSender:
    """Sends the partial results of one attempt. The task's thread adds them.

    Attributes:
        error: what the manager said when it refused some: none of them, and no later one, is recorded.
    """

    def __init__(self, recorder: Recorder, token: int, number: int) -> None:
        """Send for job *number* under the lease *token*."""
        self.error: BaseException | None = None
        self._recorder = recorder
        self._token = token
        self._number = number
        self._news = threading.Condition()
        self._values: list[bytes] = []
        self._size = 0
        #: The index of the first partial result that waits.
        self._first = 0
        self._send_at = 0.0
        self._ending = self._abandoned = False
        self._thread: threading.Thread | None = None
        #: Called, once, when few or none wait, or never will.
        self._relieved: tuple[bool, Callable[[], None]] | None = None

    def add(self, value: bytes) -> bool:
        """Add a partial result; return whether there is room for more.

        Raises:
            ServiceError: the manager has refused an earlier one.
        """
        with self._news:
            if self.error is not None:
                raise self.error
            self._values.append(value)
            self._size += len(value)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="partial results", daemon=True)
                self._thread.start()
            if len(self._values) == 1 or self._is_much():
                self._news.notify()
            return self._has_room()

    def when_room(self, call: Callable[[], None]) -> None:
        """Have *call* called as soon as there is room, or an error; from the other thread, or at once."""
        self._when(call, none=False)

    def when_sent(self, call: Callable[[], None]) -> None:
        """Have *call* called as soon as all are recorded, or an error; as `when_room`. No more may follow."""
        with self._news:
            self._ending = True
            self._news.notify()
        self._when(call, none=True)

    def close(self, seconds: float) -> None:
        """Send what waits, within some *seconds* at most, and end the thread."""
        with self._news:
            self._ending = True
            self._news.notify()
        if self._thread is not None and self._values:
            self._thread.join(seconds)
        with self._news:
            self._abandoned = True
            self._news.notify()

    def _when(self, call: Callable[[], None], *, none: bool) -> None:
        with self._news:
            self._relieved = (none, call)
            self._relieve()

    def _relieve(self) -> None:
        """Call whoever waits, if it is time."""
        if self._relieved is None:
            return
        none, call = self._relieved
        if self.error is not None or not self._values or (self._has_room() and not none):
            self._relieved = None
            call()

    def _has_room(self) -> bool:
        return self._size < WAITING_BYTES and len(self._values) < WAITING_VALUES

    def _is_much(self) -> bool:
        return self._size >= MESSAGE_BYTES or len(self._values) >= YIELDED_VALUES_MAX

    # --- the thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._send_all()
        except BaseException as error:  # noqa: BLE001 - raised in the task, which would wait for ever
            with self._news:
                self.error = error
                self._relieve()

    def _send_all(self) -> None:
        while values := self._next():
            error = self._record(Yield(self._token, self._number, self._first, values))
            with self._news:
                if self._abandoned and error is not None:
                    return
                self.error = error
                del self._values[: len(values)]
                self._size -= sum(map(len, values))
                self._first += len(values)
                self._relieve()
                if error is not None:
                    return

    def _next(self) -> list[bytes]:
        """Wait for partial results, and for more of them; return none if the attempt has ended."""
        with self._news:
            while not (self._values or self._ending):
                self._news.wait()
            while self._values and not (self._ending or self._is_much()):
                pause = self._send_at - time.monotonic()
                if pause <= 0:
                    break
                self._news.wait(pause)
            self._send_at = time.monotonic() + SEND_SECONDS
            return [] if self._abandoned else self._message()

    def _message(self) -> list[bytes]:
        """Return the partial results of the next message."""
        size = 0
        for place, value in enumerate(self._values[:YIELDED_VALUES_MAX]):
            size += len(value)
            if place and size > MESSAGE_BYTES:
                return self._values[:place]
        return self._values[:YIELDED_VALUES_MAX]

    def _record(self, values: Yield) -> BaseException | None:
        """Have *values* recorded, as soon as there is a manager; return the error if that is in vain."""
        backoff = Backoff()
        while True:
            try:
                self._recorder.record(values)
            except PASSING as error:
                with self._news:
                    if self._abandoned or self._news.wait_for(lambda: self._abandoned, backoff.fail()):
                        return error
            except Exception as error:  # noqa: BLE001 - raised in the task
                return error
            else:
                return None
