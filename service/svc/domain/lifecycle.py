"""The states of a job and the verbs that move it; DESIGN and the README have the same diagram.

::

            submit(delay)              submit
                 |                       |
                 v        due            v        lease            ack
             scheduled ----------------> ready ------------> leased ------> succeeded
                 ^                       ^  ^                 |  |
                 |   nack with backoff   |  |  release, reap, |  | nack, no retry left
                 +-----------------------+--+  nack without --+  +------------> dead --requeue--> ready
                                            backoff

             scheduled, ready --cancel--> cancelled         ready --take--> succeeded (a pill, a result)

Leases are not in the journal, so in a replay a job may end whose last known state is a waiting one.
"""

from __future__ import annotations

import enum


class JobState(enum.IntEnum):
    """The state of a job; the number is the job's byte in the state array of its chunk."""

    #: Accepted; a consumer may take it now.
    READY = 0
    #: Accepted; becomes ready at its due time (a delay, or the backoff before a retry).
    SCHEDULED = 1
    #: One consumer holds it under a lease; it runs the job, or has read it ahead.
    LEASED = 2
    #: Its result is recorded.
    SUCCEEDED = 3
    #: Given up; kept with its error until it is requeued or its retention ends.
    DEAD = 4
    #: Taken back by its owner before it ran.
    CANCELLED = 5

    @property
    def word(self) -> str:
        """The state's name as people and scripts see it."""
        return self.name.lower()

    @property
    def finished(self) -> bool:
        """Whether the job has ended."""
        return self >= JobState.SUCCEEDED


#: Every transition of the diagram: (from, verb) -> to. `None` stands for "not yet accepted".
TRANSITIONS: dict[tuple[JobState | None, str], JobState] = {
    (None, "submit"): JobState.READY,
    (None, "submit_delayed"): JobState.SCHEDULED,
    (JobState.SCHEDULED, "due"): JobState.READY,
    (JobState.READY, "lease"): JobState.LEASED,
    (JobState.LEASED, "ack"): JobState.SUCCEEDED,
    (JobState.READY, "take"): JobState.SUCCEEDED,
    (JobState.LEASED, "nack_retry"): JobState.SCHEDULED,
    (JobState.LEASED, "nack_retry_now"): JobState.READY,
    (JobState.LEASED, "nack_dead"): JobState.DEAD,
    (JobState.LEASED, "release"): JobState.READY,
    (JobState.LEASED, "reap"): JobState.READY,
    (JobState.READY, "cancel"): JobState.CANCELLED,
    (JobState.SCHEDULED, "cancel"): JobState.CANCELLED,
    (JobState.DEAD, "requeue"): JobState.READY,
}


class InvariantBroken(Exception):
    """The queue's state contradicts itself: a fault of svc, found before any of it is durable."""


def next_state(state: JobState | None, verb: str) -> JobState | None:
    """Return the state that *verb* leads to from *state*, or None if there is no such transition."""
    return TRANSITIONS.get((state, verb))
