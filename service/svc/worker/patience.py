"""How long a running job may hold up those that were read ahead behind it."""

from __future__ import annotations

from dataclasses import dataclass

from svc.domain.replies import TakeBack
from svc.worker.slot import Slot, SlotState

#: Seconds that a job runs before the jobs behind it are taken back, if its grant does not say more.
LONG_SECONDS = 0.02
#: Seconds for which an order of the manager holds, as one job may end and the next one begin.
ORDER_SECONDS = 0.02
#: Seconds that a job may take beyond what it should, so that one in time is left alone; and between two looks
#: at a consumer that has just ended one.
_LATE_SECONDS, _LOOK_SECONDS = 0.002, 0.004


@dataclass(slots=True)
class Patience:
    """That of a supervisor with the jobs of one consumer; less while a consumer elsewhere is idle."""

    _order: TakeBack | None = None
    _until: float = 0.0

    def note(self, order: TakeBack, now: float) -> None:
        """Obey *order* from *now* on for a moment; the same one again changes nothing."""
        if order is not self._order:
            self._order, self._until = order, now + ORDER_SECONDS

    def ends_at(self, look: SlotState, now: float) -> float:
        """Return the monotonic time at which jobs behind the one at *look* are taken back."""
        usual = look.started + max(LONG_SECONDS, look.patience)
        order = self._order
        if order is None or now > self._until or look.token > order.last:
            return usual
        hurried = look.started + order.seconds + _LATE_SECONDS
        return min(usual, hurried if hurried <= now + order.wait else now)

    def take_back(self, slot: Slot, now: float) -> SlotState | None:
        """Take back the jobs behind the one that runs, if it has held them up for long enough.

        Return what the consumer did then, or None.
        """
        with slot.held() as held:
            look = slot.peek()
            if not (held and look.busy and look.reads_ahead) or look.recalled:
                return None
            if now < self.ends_at(look, now):
                return None
            slot.recall()
        return look

    def look_at(self, look: SlotState, now: float) -> float | None:
        """Return the monotonic time of the next look at a consumer that holds jobs behind the one at *look*.

        It is None if no such job runs and there is no order, or if they were taken back.
        """
        if look.recalled:
            return None
        if look.busy and look.reads_ahead:
            return max(self.ends_at(look, now), now)
        return now + _LOOK_SECONDS if now <= self._until else None
