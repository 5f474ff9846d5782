"""How much one request may be answered with, and how much work its answers may make.

A page of an answer ends at whichever comes first. Work is counted in about microseconds of the measuring host
in `docs/performance.md`; it is counted and not timed, so that the same request always has the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from svc.domain.job import Attempt, ErrorInfo, Outcome

if TYPE_CHECKING:
    from svc.domain.survey import Survey

#: Bytes of answers to one request: more than that goes out only if one thing alone is larger.
REPLY_BYTES = 8 * 1024 * 1024
#: Work that the answers to one request may make.
REPLY_WORK = 12_000
#: Work of finding one job, of telling its outcome, of describing it, and of passing over a chunk of jobs.
FIND_WORK = 1.0
OUTCOME_WORK = 2.0
VIEW_WORK = 10.0
PASS_WORK = 1.0
#: Work of looking for an event, and of each byte in one that has to be read from the journal.
READ_WORK = 15.0
READ_BYTE_WORK = 0.001
#: Work of counting a queue, and of a name of a task that one consumer knows.
QUEUE_WORK = 3.0
NAME_WORK = 0.03
#: Work of looking at one range of results, to find the one of a job.
RANGE_WORK = 0.05
#: Bytes of an outcome, an attempt or a view beside its results and texts.
ITEM_BYTES = 64


class Room:
    """What is left of both for the answers to one request; it may be overdrawn by one thing."""

    __slots__ = ("size", "survey", "work")

    def __init__(self, size: float = REPLY_BYTES, work: float = REPLY_WORK) -> None:
        """Start with *size* bytes and that much *work*."""
        self.size = size
        self.work = work
        #: The counts of the queues for the next `Stats`, if they were begun.
        self.survey: Survey | None = None

    @property
    def left(self) -> bool:
        """Whether there is some of both."""
        return self.size > 0 and self.work > 0

    def grow(self, size: float, work: float) -> None:
        """Add *size* bytes and that much *work*."""
        self.size += size
        self.work += work

    def holds(self, size: float) -> bool:
        """Return whether *size* bytes can be taken without overdrawing."""
        return self.left and size <= self.size

    def take(self, size: float = 0, work: float = 0) -> None:
        """Use up *size* bytes and that much *work*."""
        self.size -= size
        self.work -= work


def outcome_bytes(outcome: Outcome) -> int:
    """Return about how many bytes an outcome takes in an answer."""
    size = ITEM_BYTES + len(outcome.result) + len(outcome.id) + text_bytes(outcome.task)
    return size if outcome.error is None else size + error_bytes(outcome.error)


def attempts_bytes(attempts: Sequence[Attempt]) -> int:
    """Return about how many bytes attempts take in an answer."""
    return sum(ITEM_BYTES + error_bytes(each.error) + text_bytes(each.consumer) for each in attempts)


def error_bytes(error: ErrorInfo) -> int:
    """Return how many bytes the texts of an error take in an answer, at most."""
    return text_bytes(error.type, error.message, error.traceback) + len(error.exception)


def text_bytes(*texts: str) -> int:
    """Return how many bytes *texts* take in UTF-8, at most."""
    size = 0
    for text in texts:
        size += len(text) if text.isascii() else 4 * len(text)
    return size
