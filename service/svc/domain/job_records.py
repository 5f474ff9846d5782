"""What is particular about one job; only a job with a history has a record."""

from __future__ import annotations

from array import array

from svc.domain.events import Failed
from svc.domain.job import Cause
from svc.domain.job_streams import JobStream

#: Ended attempts that the record of a job keeps; its counters go on beyond that.
ATTEMPTS_KEPT = 20

#: Failures, crashes, interruptions and suspicions of a job.
Charges = tuple[int, int, int, int]


class JobRecord:
    """The charges of one job, and the rows of the journal about it alone."""

    __slots__ = (
        "answered",
        "attempts",
        "checkpoint",
        "cleared",
        "crashes",
        "due",
        "ended",
        "failures",
        "interruptions",
        "requeued",
        "stream",
        "suspicions",
    )

    def __init__(self) -> None:
        """Start with all counters at 0."""
        self.failures = self.crashes = self.interruptions = self.suspicions = 0
        #: Its attempts that have ended so far, those that are no longer kept included.
        self.ended = 0
        #: When its retry is due, if it waits for one.
        self.due: float | None = None
        #: The events that ended its last attempts. The journal has everything else about an attempt.
        self.attempts = array("Q")
        #: The event that requeued the job, if no attempt has ended since; 0 if there is none.
        self.requeued = 0
        #: The last event that took its outcome out of `results`; 0 if there is none.
        self.answered = 0
        #: The event that withdrew its last suspicion, if no attempt has ended since.
        self.cleared = 0
        #: The event with its last checkpoint; 0 if there is none, or it is no longer needed.
        self.checkpoint = 0
        #: Its partial results, of the last attempt that gave some; None if there are none.
        self.stream: JobStream | None = None

    @property
    def charges(self) -> Charges:
        """Its failures, crashes, interruptions and suspicions."""
        return self.failures, self.crashes, self.interruptions, self.suspicions

    @property
    def blank(self) -> bool:
        """Whether it says nothing."""
        told = self.ended or self.requeued or self.answered or self.cleared or self.checkpoint
        return not (told or self.stream)

    def after(self, cause: Cause) -> Charges:
        """Return the charges of the job after one more attempt that ended for *cause*.

        An attempt that brings a suspicion was interrupted too.
        """
        failures, crashes, interruptions, suspicions = self.charges
        match cause:
            case Cause.CRASHED:
                crashes += 1
            case Cause.INTERRUPTED | Cause.SNOOZED:
                interruptions += 1
            case Cause.SUSPECTED:
                interruptions += 1
                suspicions += 1
            case _:
                failures += 1
        return failures, crashes, interruptions, suspicions

    def failed(self, sequence: int, event: Failed, due: float | None) -> list[int]:
        """Take an attempt that *event* has ended; return the events that are no longer referred to."""
        told = event.charges
        self.failures, self.crashes, self.interruptions, self.suspicions = told or self.after(event.cause)
        self.ended = event.attempt or self.ended + 1
        self.due = due
        self.requeued = self.cleared = 0
        self.attempts.append(sequence)
        if told is None or len(self.attempts) <= ATTEMPTS_KEPT:
            return []
        dropped = list(self.attempts[:-ATTEMPTS_KEPT])
        del self.attempts[:-ATTEMPTS_KEPT]
        return dropped

    def renew_budgets(self) -> None:
        """Reset the failures, the crashes and the suspicions; the attempts are kept."""
        self.failures = self.crashes = self.suspicions = 0
        self.due = None


#: The record of a job without a history. Nothing changes it.
NO_RECORD = JobRecord()


def recorded(records: dict[int, JobRecord], start: int, stop: int) -> list[tuple[int, JobRecord]]:
    """Return the indexes in [start, stop) of *records*, each with its record."""
    few = range(start, stop) if stop - start < len(records) else records
    return [(index, records[index]) for index in few if index in records and start <= index < stop]


def supersede_streams(records: dict[int, JobRecord], start: int, stop: int, token: int) -> None:
    """Note that jobs succeeded under *token*: what other attempts gave is no partial result of theirs."""
    for _, record in recorded(records, start, stop):
        if record.stream is not None:
            record.stream.supersede(token, record.ended + 1)
