"""Counts of queues that are taken over several turns, if the queues are many."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

from svc.broker.broken import Place, guarded
from svc.domain import replies as r
from svc.domain.handlers import Room
from svc.domain.queue_state import QueueState
from svc.domain.survey import Survey

#: Queues that are counted between two looks at the time: it takes some hundred microseconds.
COUNTED_AT_ONCE = 50


class Surveys:
    """Takes one survey after the other, as each of many queues takes megabytes."""

    def __init__(self, state: QueueState) -> None:
        """Count the queues of *state*."""
        self._state = state
        self._current: Survey | None = None

    def prepare(self, room: Room, now: float, until: float) -> bool:
        """Count queues for the next `Stats` of the request that *room* is of; return whether all are counted.

        When *until* has come (by `time.perf_counter`), the rest waits for the next call. A request whose
        counts are not begun finishes those of another one first, which may have gone.

        Raises:
            StateBroken: the state cannot be trusted any more.
        """
        if not room.left:
            return True  # it is refused
        with guarded(Place.REQUEST):
            if room.survey is None:
                if self._current is not None and not _finish(self._current, until):
                    return False
                room.survey = self._current = Survey(self._state, now)
            return _finish(room.survey, until)

    def totals(self, now: float, totals: Callable[[Room], r.Totals]) -> Iterator[r.Totals | None]:
        """Yield None after each step, and in the end what *totals* makes of the counts."""
        room = Room(math.inf, math.inf)
        while not self.prepare(room, now, until=0.0):
            yield None
        yield totals(room)


def _finish(survey: Survey, until: float) -> bool:
    while survey.advance(COUNTED_AT_ONCE):
        if time.perf_counter() >= until:
            return False
    return True
