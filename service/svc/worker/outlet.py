"""Takes the partial results of the job that runs, one by one: encodes, checks and sends each.

No code here is the task's, so no interruption is raised here: a partial result is taken whole or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from svc.errors import JobTooLarge, OutsideJob, ProtocolMismatch, StreamTooLong
from svc.worker import context
from svc.worker.value_sender import ValueSender

#: Seconds for which an attempt that has failed waits for the record of its last partial results.
_LAST_SECONDS = 2.0

#: Returns the bytes of a partial result of a job, for the token of its attempt and its index.
Encode = Callable[[Any, str, int, int], bytes]


class PartialResultRefused(Exception):
    """A partial result cannot be recorded, and none that follow; the reason is its cause."""

    def __init__(self, index: int, error: BaseException) -> None:
        """Refuse the partial result *index* because of *error*."""
        super().__init__(f"partial result {index}")
        self.error = error


class Outlet:
    """Takes what the generator of the current job yields."""

    def __init__(self, encode: Encode) -> None:
        """Encode each partial result with *encode*.

        Raises:
            OutsideJob: no job runs here, or it has no way to report.
            ProtocolMismatch: the manager is too old.
        """
        running, number = context.running_job()
        recorder = running.channel.recorder if running.channel is not None else None
        if recorder is None:
            raise OutsideJob("the job was run without a way to give partial results")
        self._bounds = recorder.bounds()
        if not self._bounds.values:
            raise ProtocolMismatch("the manager is of a release without partial results; upgrade it")
        self._id, self._token = running.id(number), running.delivery.token
        self._encode = encode
        self._pid = os.getpid()
        self._index = self._size = 0
        self._sender = ValueSender(recorder, self._token, number)

    def take(self, value: Any) -> bool:
        """Take a partial result; return whether there is room for the next one.

        Raises:
            PartialResultRefused: it cannot be carried, is too large, or one too many.
            OutsideJob: this is a process that the task has started.
            ServiceError: the manager has refused an earlier one.
        """
        self._check_process()
        try:
            encoded = self._encode(value, self._id, self._token, self._index)
            self._check(len(encoded))
        except BaseException as error:
            raise PartialResultRefused(self._index, error) from error
        self._index += 1
        self._size += len(encoded)
        return self._sender.add(encoded)

    def when_room(self, call: Callable[[], None]) -> None:
        """Have *call* called, from another thread or at once, as soon as there is room, or an error."""
        self._sender.when_room(call)

    def when_sent(self, call: Callable[[], None]) -> None:
        """Have *call* called likewise as soon as all partial results are recorded, or an error has come.

        Raises:
            OutsideJob: this is a process that the task has started.
        """
        self._check_process()
        self._sender.when_sent(call)

    def confirm(self) -> None:
        """Return if all partial results are recorded.

        Raises:
            ServiceError: the manager has refused one.
        """
        if self._sender.error is not None:
            raise self._sender.error

    def close(self) -> None:
        """Send what is left, if that does not take long."""
        if os.getpid() == self._pid:
            self._sender.close(_LAST_SECONDS)

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise OutsideJob("this process was started by the task; only the task's own process may yield")

    def _check(self, size: int) -> None:
        bounds = self._bounds
        if size > bounds.value_bytes:
            raise JobTooLarge(
                f"it takes {size} bytes and the manager's limit is {bounds.value_bytes}; "
                "yield less, or raise --max-stream-value of the manager"
            )
        if self._index >= bounds.values:
            raise StreamTooLong(
                f"the manager's limit is {bounds.values} of them; "
                "yield fewer, or raise --max-stream-values of the manager"
            )
        if self._size + size > bounds.total_bytes:
            raise StreamTooLong(
                f"all together take over {bounds.total_bytes} bytes, the manager's limit; "
                "yield less, or raise --max-stream-bytes of the manager"
            )
