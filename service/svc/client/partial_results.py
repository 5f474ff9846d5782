"""Reads the partial results of a job, as they come."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, Self

from svc import codec
from svc.client.outcomes import late
from svc.client.session import Deadline, Session, failure_of
from svc.domain.commands import ReadStream
from svc.domain.field_bounds import NUMBER_MAX
from svc.domain.lifecycle import JobState
from svc.domain.replies import StreamPart
from svc.errors import ArgumentError, StreamRestarted


class PartialResults(Iterator[Any]):
    """The partial results of one attempt at a job, in order. Made by `Job.stream`; for one thread at a time.

    After an error in one partial result, such as a pickle that is not opened, the next ones can be read.

    Attributes:
        job_id: the job's id.
        index: the index of the next partial result.
        number: the number of the stream among those of the job, or 0 while there is none.
        attempt: the number of the attempt that gives it, or 0.
    """

    def __init__(
        self, session: Session, job_id: str, start: int = 0, number: int = 0, timeout: float | None = None
    ) -> None:
        """Begin with the partial result *start*; as `Job.stream`."""
        numbers: dict[str, object] = {"start": start, "number": number}
        for name, value in numbers.items():
            if not isinstance(value, int) or not 0 <= value <= NUMBER_MAX:
                raise ArgumentError(f"{name} is a whole number from 0 on, not {value!r:.60}")
        self.job_id = job_id
        self.index = start
        self.number = number
        self.attempt = 0
        self._session = session
        self._deadline = Deadline(timeout)
        self._token = 0
        self._ended = False
        self._values: deque[bytes] = deque()

    def __iter__(self) -> Self:
        """Return itself."""
        return self

    def __next__(self) -> Any:
        """Return the next partial result; wait for it.

        Raises:
            StopIteration: the job has succeeded, and gave no more.
            StreamRestarted: another attempt gives them anew.
            JobFailed: the job is dead, after the partial results that it gave; or JobCancelled.
            ResultTimeout: the next one did not come in time.
            UnknownJob: there is no such job, or its retention has passed.
        """
        while not self._values:
            if self._ended and self._has_succeeded():
                raise StopIteration
            self._ask()
        value, index = self._values.popleft(), self.index
        self.index += 1
        keys = self._session.reader
        return codec.decode_result(
            value, None if keys is None else keys.of_value(self.job_id, self._token, index)
        )

    def _ask(self) -> None:
        """Read the next partial results, or wait for a while."""
        query = ReadStream(self.job_id, self.index, self._token, self._deadline.slice())
        part = self._session.wait(lambda broker: broker.read_stream(query), self._deadline)
        self._check(part)
        self._values.extend(part.values)
        self._ended = part.ended
        if not part.values and not part.ended and self._deadline.passed:
            raise late(self._session, [self.job_id], self._deadline, f"job {self.job_id} has")

    def _check(self, part: StreamPart) -> None:
        """Note the stream, once there is one.

        Raises:
            StreamRestarted: it is not the one that was read before.
        """
        if part.token != self._token and (self._token or self.number not in (0, part.number)):
            raise StreamRestarted(
                f"attempt {part.attempt} at job {self.job_id} gives its partial results anew, in its stream "
                f"number {part.number}; read them from the beginning",
                job_id=self.job_id,
                number=part.number,
                attempt=part.attempt,
            )
        if part.token:
            self._token, self.number, self.attempt = part.token, part.number, part.attempt

    def _has_succeeded(self) -> bool:
        """Return whether the job has succeeded; False if it was requeued meanwhile, and goes on.

        Raises:
            JobFailed: it has ended in another way; or JobCancelled.
        """
        outcomes = self._session.outcomes([self.job_id], Deadline(0.0))
        if not outcomes:
            self._ended = False
            return False
        if outcomes[0].state != JobState.SUCCEEDED:
            raise failure_of(outcomes[0])
        return True
