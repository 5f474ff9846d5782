"""The puts of plain clients that wait for room in their queue, and the bytes of their jobs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from svc.domain.admission import has_room
from svc.domain.queue_state import QueueState

if TYPE_CHECKING:
    from svc.broker.parked import Waiting, WaitList

#: Queues that are looked at in one turn, and the looks as many of which an attempt costs.
LOOKS_MAX: Final = 512
_ATTEMPT_LOOKS: Final = 8


class WaitingPuts:
    """The puts that wait, by queue. A round of looks finds those for which there is room by now.

    Attributes:
        lists: the puts of each queue, oldest first.
        bytes: the bytes of their jobs.
    """

    def __init__(self, state: QueueState) -> None:
        """Begin with none; the puts are for *state*."""
        self._state = state
        self.lists: dict[Any, WaitList] = {}
        self.bytes = 0
        #: The queues that the round has yet to look at.
        self._round: deque[str] = deque()
        #: What may make room, as it was when the round began.
        self._known: tuple[object, ...] = ()

    def parked(self, size: int) -> bool:
        """Count a put with a job of *size* bytes; return whether all that wait are within their bound."""
        self.bytes += size
        return self.bytes <= self._state.limits.parked_bytes

    @property
    def may_find_room(self) -> bool:
        """Whether another look may find room: a round is not over, or something has happened since."""
        return bool(self._round) or self._known != self._happened()

    def admit(self, attempt: Callable[[Waiting], bool]) -> None:
        """Have the oldest puts applied again while there is room for them; a few in each turn.

        *attempt* returns whether the put was answered.
        """
        if not self._round:
            happened = self._happened()
            if happened == self._known:
                return
            self._known, self._round = happened, deque(self.lists)
        left = LOOKS_MAX
        while self._round and left > 0:
            queue = self._round[0]
            puts = self.lists.get(queue)
            left -= 1
            if puts and has_room(self._state, queue):
                left -= _ATTEMPT_LOOKS
                if attempt(next(iter(puts.values()))):
                    continue
            self._round.popleft()

    def _happened(self) -> tuple[object, ...]:
        """Return a value that differs from an earlier one if there may be more room since."""
        state = self._state
        ledger = state.ledger
        return ledger.last_sequence, len(state.leases), state.refusals, len(ledger.counts), len(ledger.keys)
