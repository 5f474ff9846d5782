"""The states of a job and the verbs that move it; the README has the same diagram.

::

            submit(delay)             submit
                 |                      |
                 v         due          v        lease                ack
             scheduled -------------> ready -------------> leased ----------> succeeded
                 ^                     ^ ^                  | | | |
                 |                     | +---- release -----+ | | +- give_up -> dead --requeue--> ready
                 |                     +------ retry ---------+ |
                 +------------------------ retry_later ---------+

             ready, scheduled, leased --cancel--> cancelled        ready --take--> succeeded

A job that a consumer has is cancelled at once: its attempt ends a little later, and no result of it counts.
A consumer *releases* a job that it has not run, and a lease that expires is released. An attempt without a
result leads to a *retry*, at once or later, or the job is *given up*. A pill, and an answer in `results`, is
*taken* for good. Leases are not in the journal, so in a replay a job may end whose last known state is a
waiting one.
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
    #: Taken back by its owner before it ended.
    CANCELLED = 5

    @property
    def word(self) -> str:
        """The state's name as people and scripts see it."""
        return self.name.lower()

    @property
    def finished(self) -> bool:
        """Whether the job has ended: only a requeue takes it any further."""
        return self in FINISHED


class Verb(enum.IntEnum):
    """A step in the life of a job; the number is its row in `LIVE_STEPS`."""

    #: The due time of a delay or of a backoff has come.
    DUE = 0
    #: A consumer gets the job.
    LEASE = 1
    #: A consumer reports the result.
    ACK = 2
    #: The manager hands a pill, or an answer in `results`, out for good.
    TAKE = 3
    #: An attempt ended without a result, and the next one is due later.
    RETRY_LATER = 4
    #: An attempt ended without a result, and the next one may begin at once.
    RETRY = 5
    #: An attempt ended without a result, and there is no next one.
    GIVE_UP = 6
    #: A lease is given back, or has expired, before the job ran.
    RELEASE = 7
    #: The owner takes the job back.
    CANCEL = 8
    #: A dead job is made ready again.
    REQUEUE = 9

    @property
    def word(self) -> str:
        """The verb as in the diagram."""
        return self.name.lower()


#: The states of a new job: without a delay, and with one.
SUBMITTED, SUBMITTED_LATER = JobState.READY, JobState.SCHEDULED
#: Every transition of the diagram. The ledger takes no other, live or at a replay.
TRANSITIONS: dict[tuple[JobState, Verb], JobState] = {
    (JobState.SCHEDULED, Verb.DUE): JobState.READY,
    (JobState.READY, Verb.LEASE): JobState.LEASED,
    (JobState.LEASED, Verb.ACK): JobState.SUCCEEDED,
    (JobState.READY, Verb.TAKE): JobState.SUCCEEDED,
    (JobState.LEASED, Verb.RETRY_LATER): JobState.SCHEDULED,
    (JobState.LEASED, Verb.RETRY): JobState.READY,
    (JobState.LEASED, Verb.GIVE_UP): JobState.DEAD,
    (JobState.LEASED, Verb.RELEASE): JobState.READY,
    (JobState.READY, Verb.CANCEL): JobState.CANCELLED,
    (JobState.SCHEDULED, Verb.CANCEL): JobState.CANCELLED,
    (JobState.LEASED, Verb.CANCEL): JobState.CANCELLED,
    (JobState.DEAD, Verb.REQUEUE): JobState.READY,
}
#: The states of jobs that are to be done, and of those that have ended.
UNFINISHED = tuple(
    state for state in JobState if {verb for origin, verb in TRANSITIONS if origin is state} - {Verb.REQUEUE}
)
FINISHED = tuple(state for state in JobState if state not in UNFINISHED)
#: The byte of a job that was purged. It is no state: nothing tells of the job any more, and no verb moves it.
PURGED = len(JobState)
#: The states in which a job waits: nobody holds it.
WAITING = tuple(state for state in UNFINISHED if state is not JobState.LEASED)


#: For each verb and state, and for `PURGED`, by their numbers: the state that the verb leads to, or None.
Table = tuple[tuple[JobState | None, ...], ...]


def _table(transitions: dict[tuple[JobState, Verb], JobState]) -> Table:
    return tuple((*(transitions.get((state, verb)) for state in JobState), None) for verb in Verb)


#: The steps of a live queue.
LIVE_STEPS = _table(TRANSITIONS)
#: The steps of a replay. It sees no lease: a waiting job may have been leased, and have become due before.
REPLAYED_STEPS = _table(
    TRANSITIONS
    | {
        (waiting, verb): to
        for (state, verb), to in TRANSITIONS.items()
        if state is JobState.LEASED
        for waiting in WAITING
    }
)


def word_of(number: int) -> str:
    """Return the word for the byte of a job."""
    return "purged" if number == PURGED else JobState(number).word


class InvariantBroken(Exception):
    """The queue's state contradicts itself: a fault of svc, found before anything of it is durable."""
