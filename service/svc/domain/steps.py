"""Checks every change of a job's state against the table of states, before the change is made.

In a live queue a step that the table does not have is a fault of svc. In a replay, an older release with
such a fault may have written it to the journal: of two events that contradict each other, the first one
counts.
"""

from __future__ import annotations

from svc.domain.chunk import Chunk
from svc.domain.counts import Tally
from svc.domain.lifecycle import TRANSITIONS, InvariantBroken, JobState

#: Whether a job may go from one state to another; both indexes are the states' numbers.
Table = tuple[tuple[bool, ...], ...]


def _table(arrows: frozenset[tuple[JobState, JobState]]) -> Table:
    return tuple(tuple((state, to) in arrows for to in JobState) for state in JobState)


_ARROWS = frozenset((state, to) for (state, _), to in TRANSITIONS.items() if state is not None)
_WAITING = (JobState.READY, JobState.SCHEDULED)
#: The steps of a live queue.
LIVE_STEPS = _table(_ARROWS)
#: The steps of a replay, which sees no leases: a waiting job may have become due and been leased meanwhile.
REPLAYED_STEPS = _table(
    _ARROWS | {(waiting, to) for waiting in _WAITING for state, to in _ARROWS if state == JobState.LEASED}
)


class Steps:
    """Decides which changes of state are allowed; `live` is false during a replay."""

    def __init__(self) -> None:
        """Start as a live queue."""
        self.live = True
        #: Steps of a replay that were skipped, because they contradict earlier events.
        self.passed_over = 0

    def allowed(self, chunk: Chunk, start: int, stop: int, to: JobState) -> Tally:
        """Return the tally of the jobs in [start, stop) of *chunk* if all of them may go to state *to*.

        The tally is empty if one of them may not; that happens in a replay only.

        Raises:
            InvariantBroken: one of them may not, and the queue is live.
        """
        if not 0 <= start < stop <= chunk.count:
            self.contradicted(f"jobs [{start}, {stop}) are not all in a chunk of {chunk.count}")
            return ()
        table = LIVE_STEPS if self.live else REPLAYED_STEPS
        tally = chunk.tally(start, stop)
        for state, _ in tally:
            if not table[state][to]:
                jobs = f"{chunk.id(start)} or one of the {stop - start - 1} jobs after it"
                self.contradicted(f"{jobs} would go from {JobState(state).word} to {to.word}")
                return ()
        return tally

    def contradicted(self, how: str) -> None:
        """Count a contradiction of a replay.

        Raises:
            InvariantBroken: the queue is live.
        """
        if self.live:
            raise InvariantBroken(how)
        self.passed_over += 1
