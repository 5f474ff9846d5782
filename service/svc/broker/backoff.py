"""The pauses between two attempts to reach the manager, the same for everything that waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable

from svc.chance import CHANCE

#: The longest first pause in seconds, and the longest of all.
FIRST_SECONDS, LONGEST_SECONDS = 0.1, 2.0
#: The share of the time for which the manager has been away that a pause may have.
_SHARE = 0.2
#: Seconds without a failure after which the next one begins a new absence. One dial takes five at most.
_FORGOTTEN_SECONDS = 15.0


class Backoff:
    """Pauses that grow with the time for which the manager has been away, with jitter.

    A restart takes a second or two: then everybody is to be back at once. The first pause is any part of
    0.1 s, so that thousands whose connections broke together do not come together; each later one is between
    half and the whole of a fifth of the time away, and so the longest ones begin after 10 s.

    Attributes:
        since: when the first attempt failed since the last success; None if none has.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, chance: Callable[[], float] = CHANCE.random
    ) -> None:
        """Begin with no failure; a test hands in the *clock* and the *chance*."""
        self._clock = clock
        self._chance = chance
        self.since: float | None = None
        self._last = 0.0

    def fail(self) -> float:
        """Note that an attempt has failed; return the seconds until the next one."""
        now = self._clock()
        last, self._last = self._last, now
        if self.since is None or now - last > _FORGOTTEN_SECONDS:
            self.since = now
            return FIRST_SECONDS * self._chance()
        full = min(LONGEST_SECONDS, max(FIRST_SECONDS, _SHARE * (now - self.since)))
        return full / 2 + full / 2 * self._chance()

    def succeed(self) -> None:
        """Note that the manager has answered: the next pause is short again."""
        self.since = None
