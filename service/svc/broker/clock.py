"""The manager's clock: it starts at the time of day, and never goes back.

One number serves for due times, which must survive a restart, and for leases, which must not be hurt by a
host whose time of day is set: after the start the time of day is not read again. A clock that stood behind
the journal at the start continues from the journal's last time.

A host may start with a time of day that is wrong by months. To follow it would forget results and make
delayed jobs ready, for good. So a clock that is to start over a day away from what the journal tells is
*held*: it goes on from the journal's time, until the host's time is near that again or somebody accepts the
host's.
"""

from __future__ import annotations

import time
from typing import Final

#: Seconds between the journal's time and the host's from which the clock is held: a day.
CLOCK_JUMP_MAX: Final = 24 * 3600.0


class ManagerClock:
    """The clock described above.

    Attributes:
        held: whether it goes on from the journal's time because the host's is too far from that.
    """

    def __init__(
        self, at_least: float = 0.0, *, expected: float = 0.0, jump_max: float = CLOCK_JUMP_MAX
    ) -> None:
        """Start now, or at *at_least* if that is later.

        Args:
            at_least: Unix time of the last event.
            expected: Unix time that it should be by the journal, if that is later than *at_least*.
            jump_max: seconds between that and the host's time of day from which it is held.
        """
        host, expected = time.time(), max(expected, at_least)
        self._jump_max = jump_max
        self.held = expected > 0 and abs(host - expected) > jump_max
        start = expected if self.held else max(host, at_least)
        self._offset = start - time.monotonic()

    def now(self) -> float:
        """Return the Unix time in seconds; never less than a time returned before."""
        return self._offset + time.monotonic()

    def behind(self) -> float:
        """Return by how many seconds the host's time of day is ahead of this clock."""
        return time.time() - self.now()

    def settle(self) -> float:
        """Stop to be held if the host's time is near again; return by how many seconds that leaps."""
        behind = self.behind()
        if not self.held or abs(behind) > self._jump_max:
            return 0.0
        self.held = False
        leap = max(0.0, behind)
        self._offset += leap
        return leap
