"""Checks every change of a job's state against the table of states, before the change is made.

In a live queue a step that the table does not have is a fault of svc. In a replay, an older release with
such a fault may have written it to the journal: of two events that contradict each other, the first one
counts.
"""

from __future__ import annotations

from svc.domain.chunk import Chunk
from svc.domain.counts import Tally
from svc.domain.lifecycle import TRANSITIONS, WAITING, InvariantBroken, JobState, Verb

#: For each verb and state, by their numbers: the state that the verb leads to, or None.
Table = tuple[tuple[JobState | None, ...], ...]


def _table(transitions: dict[tuple[JobState, Verb], JobState]) -> Table:
    return tuple(tuple(transitions.get((state, verb)) for state in JobState) for verb in Verb)


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


class Steps:
    """Says which changes of state are allowed; `live` is false during a replay."""

    def __init__(self) -> None:
        """Begin live."""
        self.live = True
        #: Steps of a replay that were passed over, because they contradict earlier events.
        self.passed_over = 0

    def taken(self, chunk: Chunk, start: int, stop: int, verb: Verb) -> tuple[Tally, JobState] | None:
        """Return the states of the jobs in [start, stop) of *chunk*, and the one to which *verb* takes all.

        None if it is no step for one of them; that happens in a replay only.

        Raises:
            InvariantBroken: it is no step for one of them, and the queue is live.
        """
        if not 0 <= start < stop <= chunk.count:
            self.contradicted(f"jobs [{start}, {stop}) are not all in a chunk of {chunk.count}")
            return None
        row = (LIVE_STEPS if self.live else REPLAYED_STEPS)[verb]
        tally = chunk.tally(start, stop)
        to = row[tally[0][0]]
        for state, _ in tally:
            if to is None or row[state] is not to:
                jobs = f"{chunk.id(start)} or one of the {stop - start - 1} jobs after it"
                self.contradicted(f"{jobs} is {JobState(state).word}, from which no {verb.word} leads")
                return None
        assert to is not None
        return tally, to

    def contradicted(self, how: str) -> None:
        """Count a contradiction of a replay.

        Raises:
            InvariantBroken: the queue is live.
        """
        if self.live:
            raise InvariantBroken(how)
        self.passed_over += 1
