"""Leases whose jobs go back, a bounded number of them at a time.

To give back a lease takes 10 to 25 µs, and the event that tells of it some more in the commit. A member may
hold thousands of leases, and thousands of consumers may be lost together. So some leases go back at once, and
the others at the next looks of `upkeep`. Until then they are with a member that stands in for their holder.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from svc.domain.members import ON_TRIAL, LeaseRecord, Member, Worker

if TYPE_CHECKING:
    from svc.domain.queue_state import QueueState

#: Leases that one look gives back, and that may go back at once between two looks.
RETURNED_MAX = 256
#: Gives back one lease of several: its place among them, from 0, and the time.
GiveBack: TypeAlias = Callable[[LeaseRecord, int, float], None]


class _Return:
    """Leases that wait: who holds them, how each is given back, and how many have gone back before them."""

    __slots__ = ("give_back", "heir", "place")

    def __init__(self, heir: Member, give_back: GiveBack, place: int) -> None:
        self.heir, self.give_back, self.place = heir, give_back, place


class Returns:
    """The leases of a queue state that wait to be given back, the oldest first."""

    def __init__(self) -> None:
        """Begin with none."""
        self._waiting: deque[_Return] = deque()
        #: How many leases may go back at once, before the next look.
        self._left = RETURNED_MAX

    def __len__(self) -> int:
        """Return how many members' leases wait."""
        return len(self._waiting)

    def add(
        self,
        state: QueueState,
        holder: Member,
        now: float,
        give_back: GiveBack,
        leases: Sequence[LeaseRecord] | None = None,
    ) -> None:
        """Give back all leases of *holder*, or *leases* of them: as many at once as may go, the others later.

        The process that had them, if it is a consumer's and comes back before that, has those again.
        """
        leases = list(holder.leases.values()) if leases is None else leases
        count = min(len(leases), self._left)
        self._left -= count
        if count < len(leases):
            self._waiting.append(_Return(_heir(state, holder, leases[count:]), give_back, count))
            state.upkeep_at = 0.0
        for place, lease in enumerate(leases[:count]):
            give_back(lease, place, now)

    def go_on(self, now: float) -> None:
        """Give back those that have waited longest, at a look of the upkeep."""
        left = RETURNED_MAX
        while self._waiting and left > 0:
            first = self._waiting[0]
            for lease in list(islice(first.heir.leases.values(), left)):
                first.give_back(lease, first.place, now)
                first.place += 1
                left -= 1
            if not first.heir.leases:
                self._waiting.popleft()
        self._left = left


def _heir(state: QueueState, holder: Member, leases: Sequence[LeaseRecord]) -> Member:
    """Return a member that has *leases* in place of *holder*, and of whom the same can be told."""
    heir = Member(ON_TRIAL, holder.name)
    heir.code, heir.life = holder.code, holder.life
    heir.connected, heir.gone_at = holder.connected, holder.gone_at
    if holder.worker is not None:
        heir.worker = Worker(holder.worker.name, seen_at=holder.worker.seen_at)
    if len(leases) < len(holder.leases):
        for lease in leases:
            state.pass_on(lease, heir)
        return heir
    # All of them: thousands of consumers may be lost at once.
    heir.leases, holder.leases = holder.leases, heir.leases
    for lease in leases:
        lease.holder = heir
    state.holders.discard(holder)
    state.holders.add(heir)
    return heir
