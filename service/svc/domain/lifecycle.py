"""The states of a job and the verbs that move it; the picture is in DESIGN and in the README.

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

Leases are not in the journal, so that a replay meets the end of a job that it last saw waiting.
"""

from __future__ import annotations

import enum


class JobState(enum.IntEnum):
    """Where a job is in its life; the number is what one byte of a chunk's state array holds."""

    #: Accepted; a consumer may take it now.
    READY = 0
    #: Accepted; becomes ready at its due time (a delay, or the backoff before a retry).
    SCHEDULED = 1
    #: One consumer holds it, or holds it read ahead, under a lease.
    LEASED = 2
    #: Its result is recorded.
    SUCCEEDED = 3
    #: Given up on; kept with its error until it is requeued or its retention ends.
    DEAD = 4
    #: Taken back by its owner before it ran.
    CANCELLED = 5

    @property
    def word(self) -> str:
        """The state's name as people and scripts see it."""
        return self.name.lower()

    @property
    def finished(self) -> bool:
        """Whether the job has left the queue."""
        return self >= JobState.SUCCEEDED


#: Every arrow of the picture: (from, verb) -> to. `None` is "not yet accepted".
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
    """The queue's state contradicts itself: a fault of svc, found before anything of it is durable."""


def next_state(state: JobState | None, verb: str) -> JobState | None:
    """Return the state that *verb* leads to from *state*, or None where there is no such arrow."""
    return TRANSITIONS.get((state, verb))
