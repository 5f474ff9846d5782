"""Limits the size of the answers to one request, and the work that they make.

A page of an answer ends at the limit that it reaches first. A unit of work is about a microsecond of the
measuring host in `benchmarks/results`. Work is counted and not timed, so that equal requests have equal
answers.
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
#: Work for looking up an event, and for each byte of an event that has to be read from the journal.
READ_WORK = 15.0
READ_BYTE_WORK = 0.001
#: Work for the counts of a queue, and for the name of a task that one consumer knows.
QUEUE_WORK = 3.0
NAME_WORK = 0.03
#: Work for checking one range of results for that of a job.
RANGE_WORK = 0.05
#: Bytes of an outcome, an attempt or a view beside its results and texts.
ITEM_BYTES = 64


class Room:
    """The bytes and the work that are left for the answers to one request; one item may overdraw them."""

    __slots__ = ("size", "survey", "work")

    def __init__(self, size: float = REPLY_BYTES, work: float = REPLY_WORK) -> None:
        """Start with *size* bytes and that much *work*."""
        self.size = size
        self.work = work
        #: The counts of the queues for the next `Stats`, if they were begun.
        self.survey: Survey | None = None

    @property
    def left(self) -> bool:
        """Whether some of both is left."""
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
    """Return the estimated bytes of an outcome in an answer."""
    size = ITEM_BYTES + len(outcome.result) + len(outcome.id) + text_bytes(outcome.task)
    return size if outcome.error is None else size + error_bytes(outcome.error)


def attempts_bytes(attempts: Sequence[Attempt]) -> int:
    """Return the estimated bytes of attempts in an answer."""
    return sum(ITEM_BYTES + error_bytes(each.error) + text_bytes(each.consumer) for each in attempts)


def error_bytes(error: ErrorInfo) -> int:
    """Return an upper bound for the bytes of an error's texts in an answer."""
    return text_bytes(error.type, error.message, error.traceback) + len(error.exception)


def text_bytes(*texts: str) -> int:
    """Return an upper bound for the bytes of *texts* in UTF-8."""
    size = 0
    for text in texts:
        size += len(text) if text.isascii() else 4 * len(text)
    return size
