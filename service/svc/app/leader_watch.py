"""For how long a standby has seen another manager serve, so that it knows who tells of the workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from svc.server.journal.jetstream.leadership import Holding

#: Seconds after which whoever asks all managers for the workers has the list of the leader: it has none for
#: some seconds after a restart, and Prometheus asks each manager once a minute unless told otherwise.
LISTED_SECONDS: Final = 120.0


class LeaderWatch:
    """Notes since when the same leader has served."""

    def __init__(self) -> None:
        self._serving: tuple[str, int] | None = None
        self._since = 0.0

    def saw(self, leader: Holding | None, now: float) -> None:
        """Take the leader at the time *now*; None if there is none. It serves once it has a term."""
        serving = (leader.holder, leader.term) if leader is not None and leader.term else None
        if serving != self._serving:
            self._serving, self._since = serving, now

    def listed(self, now: float) -> bool:
        """Return whether that leader's list of the workers is known by the time *now*."""
        return self._serving is not None and now - self._since >= LISTED_SECONDS
