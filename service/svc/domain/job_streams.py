"""The partial results of one job: which events have them, and which attempt gave them."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator


class JobStream:
    """The stream of one attempt: partial results in order, in rows of the journal.

    Attributes:
        number: its number among the streams of the job, from 1 on.
        attempt: the number of the attempt.
        size: the bytes of its partial results.
        rows: the events that have them.
    """

    __slots__ = ("_stops", "_success", "_token", "attempt", "number", "rows", "size")

    def __init__(self, token: int, number: int, attempt: int) -> None:
        """Begin without a partial result; *token* is that of the attempt."""
        self.number = number
        self.attempt = attempt
        self.size = 0
        self.rows = array("Q")
        #: For each event, the number of partial results up to its end.
        self._stops = array("Q")
        self._token = token
        #: The token and the number of the attempt that succeeded, if it is another one.
        self._success: tuple[int, int] | None = None

    @property
    def token(self) -> int:
        """The token of the attempt whose stream is read: that of the success, once there is one."""
        return self._token if self._success is None else self._success[0]

    @property
    def count(self) -> int:
        """The number of partial results that can be read."""
        return self._stops[-1] if self._stops and self._success is None else 0

    @property
    def place(self) -> tuple[int, int]:
        """The numbers of the stream that is read and of its attempt."""
        return (self.number, self.attempt) if self._success is None else (self.number + 1, self._success[1])

    def add(self, row: int, count: int, size: int) -> None:
        """Add *count* partial results of *size* bytes, which event *row* has."""
        self._stops.append(self.count + count)
        self.rows.append(row)
        self.size += size

    def supersede(self, token: int, attempt: int) -> None:
        """Note that the job has succeeded under *token*; if that is another attempt, its stream is empty."""
        if token != self._token:
            self._success = (token, attempt)

    def parts(self, start: int) -> Iterator[tuple[int, int]]:
        """Yield the events from partial result *start* on, each with its place of the first one to read."""
        if start >= self.count:
            return
        part = bisect_right(self._stops, start)
        skipped = start - (self._stops[part - 1] if part else 0)
        for row in self.rows[part:]:
            yield row, skipped
            skipped = 0


#: The stream of a job that has given no partial results. Nothing changes it.
NO_STREAM = JobStream(0, 0, 0)
