"""How fast peers are let in: so many handshakes go on at a time, and the others wait in the kernel's queue.

After a restart of the manager thousands of peers come at once. If all were let in, the newest would push out
the oldest before those have proved themselves, and they would come again.
"""

from __future__ import annotations

#: Seconds in which none of the peers that are let in has proved itself, after which they count as a flood.
#: Honest ones on a host that is very busy, or far away, need a second.
PATIENCE_SECONDS = 2.0
#: Seconds for which peers are let in without a pace after that.
FLOOD_SECONDS = 10.0


class Pace:
    """Says whether the next peer has to wait.

    A flood of peers that never prove themselves must not keep others waiting: then nobody waits, and the
    oldest of too many half-open connections is cut off (`connection_limits`).
    """

    def __init__(self, at_once: int) -> None:
        """Let *at_once* peers be in their handshake at a time."""
        self._at_once = at_once
        #: When a peer last proved itself, or there was room for one more (monotonic).
        self._moved_at = 0.0
        self._flood_until = 0.0

    def waits(self, half_open: int, now: float) -> bool:
        """Return whether the next peer has to wait while so many connections are half-open."""
        if half_open < self._at_once:
            self._moved_at = now
            return False
        if now < self._flood_until:
            return False
        if now - self._moved_at >= PATIENCE_SECONDS:
            self._flood_until = now + FLOOD_SECONDS
            return False
        return True

    def moved(self, now: float) -> None:
        """Note that a peer has proved itself."""
        self._moved_at = now

    @property
    def until(self) -> float:
        """When those that wait are let in at the latest (monotonic)."""
        return self._moved_at + PATIENCE_SECONDS
