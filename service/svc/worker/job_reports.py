"""The supervisor's end of reports about jobs that run: from the pipes to the reporter, and back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

import msgspec

from svc.domain.commands import Checkpoint, JobProgress
from svc.domain.field_bounds import CHECKPOINT_MAX, CheckpointData, Counter, Number
from svc.domain.replies import Refused, Reply
from svc.worker.consumer_process import ConsumerProcess
from svc.worker.orders import KEEP, KEPT, PIECE, PROGRESS
from svc.worker.reporter import Reporter

_Kept = tuple[int, Counter, Number, bool, CheckpointData]
_kept: msgspec.msgpack.Decoder[_Kept] = msgspec.msgpack.Decoder(_Kept)
_progress: msgspec.msgpack.Decoder[JobProgress] = msgspec.msgpack.Decoder(JobProgress)


class JobReports:
    """Passes the reports of consumers on.

    Args:
        reporter: sends them to the manager.
        wake: ends the wait of the supervisor's loop; any thread may call it.
    """

    def __init__(self, reporter: Reporter, wake: Callable[[], None]) -> None:
        self._reporter = reporter
        self._wake = wake
        self._pieces: dict[str, bytearray] = {}
        #: Answers to checkpoints of consumers, each with the consumer's own number for it.
        self._answers: deque[tuple[ConsumerProcess, int, Reply]] = deque()

    def take(self, child: ConsumerProcess, kind: bytes, body: bytes) -> bool:
        """Handle a message of *child* if it is a report; return whether it is one.

        Raises:
            msgspec.DecodeError: its body is not as a consumer makes it.
        """
        if kind == PROGRESS:
            self._reporter.tell(_progress.decode(body))
        elif kind == PIECE:
            pieces = self._pieces.setdefault(child.name, bytearray())
            if len(pieces) <= CHECKPOINT_MAX:
                pieces += body
        elif kind == KEEP:
            self._keep(child, body)
        else:
            return False
        return True

    def forget(self, name: str) -> None:
        """Drop the beginning of a message that a consumer which has ended did not finish."""
        self._pieces.pop(name, None)

    def answer(self) -> None:
        """Tell consumers of the checkpoints that the manager has answered; from the supervisor's loop."""
        while self._answers:
            child, number, reply = self._answers.popleft()
            refused = isinstance(reply, Refused)
            code, message = (reply.code, reply.message) if isinstance(reply, Refused) else ("", "")
            _tell(child, number, not refused, code, message)

    def _keep(self, child: ConsumerProcess, body: bytes) -> None:
        number, token, job, awaited, last = _kept.decode(body)
        data = bytes(self._pieces.pop(child.name, b"")) + last
        if len(data) > CHECKPOINT_MAX:
            raise msgspec.ValidationError(f"a checkpoint of {len(data)} bytes is too large")
        answered = partial(self._answered, child, number)
        self._reporter.keep(Checkpoint(token, job, data), answered, awaited=awaited)
        _tell(child, number, False, "", "")

    def _answered(self, child: ConsumerProcess, number: int, reply: Reply) -> None:
        """Take the manager's answer to a checkpoint; from the reporter's thread."""
        self._answers.append((child, number, reply))
        self._wake()


def _tell(child: ConsumerProcess, number: int, recorded: bool, code: str, message: str) -> None:
    child.order(KEPT + msgspec.msgpack.encode((number, recorded, code, message)))
