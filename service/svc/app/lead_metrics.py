"""The metrics of a manager on a replicated journal: its place, term and lag, and the servers' silence.

The log tells of the silence, too: it is where an operator looks first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from svc.domain.observer import Observer
from svc.server.journal.jetstream.leadership import Position

if TYPE_CHECKING:
    from svc.server.journal.jetstream.candidacy import Candidacy
    from svc.server.journal.jetstream.replication import Replication

#: Seconds from one sample to the next.
SAMPLE_SECONDS: Final = 1.0
#: Seconds of silence from which the log tells of it, and from one such record to the next.
SILENT_SECONDS, TELL_SECONDS = 3.0, 60.0


class SilenceLog:
    """Tells the log that the servers of the journal are silent, each minute, and when they answer."""

    def __init__(self, servers: str, log: Any) -> None:
        """Tell *log* of these *servers*."""
        self._servers = servers
        self._log = log
        self._longest = 0.0
        self._next = SILENT_SECONDS

    def told(self, silent: float, reason: str = "") -> None:
        """Take for how many seconds they have given no answer, and why; 0 if they do."""
        if silent >= self._next:
            self._log.warning(
                "journal_silent", servers=self._servers, silent_s=round(silent, 1), reason=reason
            )
            self._next = silent + TELL_SECONDS
        elif silent < SILENT_SECONDS < self._next:
            self._log.info("journal_answers", servers=self._servers, silent_s=round(self._longest, 1))
            self._next = SILENT_SECONDS
        self._longest = silent


class LeadMetrics:
    """Samples the place of a manager, as a standby and as a leader."""

    def __init__(
        self,
        candidacy: Candidacy,
        replication: Replication,
        observer: Observer,
        standbys: Callable[[], int],
        silence: SilenceLog,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Tell *observer* of *candidacy* and *replication*.

        Args:
            candidacy: that of this manager.
            replication: its replica of the stream.
            observer: receives the values of the metrics.
            standbys: returns how many standbys a leader knows of.
            silence: the log of the servers' silence.
            clock: returns seconds that never go back.
        """
        self._candidacy = candidacy
        self._replication = replication
        self._observer = observer
        self._standbys = standbys
        self._silence = silence
        #: Seconds for which the servers have given no answer to this leader; 0 if they do, or it leads not.
        self.silent = 0.0
        self._clock = clock
        self._takeovers = 0
        #: The last frame that was confirmed, and the time since which others have waited for that.
        self._confirmed = 0
        self._waiting_since = 0.0
        #: The time since which a new leader cannot begin its term.
        self._hindered_since: float | None = None

    async def run(self) -> None:
        """Take a sample each second until it is cancelled; in the loop of the candidacy."""
        while True:
            self.sample()
            await asyncio.sleep(SAMPLE_SECONDS)

    def sample(self) -> None:
        """Set all gauges."""
        leadership, replica, tell = self._candidacy.leadership, self._replication.replica, self._observer
        leads, begun = leadership.position is Position.LEADER, self._replication.number
        now, unsure = self._clock(), leads and not self._candidacy.valid
        unconfirmed = max(self._unconfirmed(now), self._hindered(now))
        tell.measured("svc_manager_role", float(leads), "leader")
        tell.measured("svc_manager_role", float(not leads), "standby")
        tell.measured("svc_manager_unsure", float(unsure))
        tell.measured("svc_manager_term", begun or replica.term)
        tell.measured("svc_manager_standbys", self._standbys() if leads else 0)
        tell.measured("svc_journal_lag_messages", 0 if begun else replica.lag)
        tell.measured("svc_journal_unconfirmed_seconds", unconfirmed)
        tell.counted("svc_manager_takeovers_total", by=leadership.takeovers - self._takeovers)
        self._takeovers = leadership.takeovers
        silent = max(now - leadership.confirmed_at if unsure else 0.0, unconfirmed)
        self.silent = silent if leads else 0.0
        self._silence.told(self.silent, self._replication.trouble or self._candidacy.trouble)

    def _hindered(self, now: float) -> float:
        """Return for how long the servers have not taken the first frame of a term; exact to one sample."""
        if self._replication.number or not self._replication.trouble:
            self._hindered_since = None
        elif self._hindered_since is None:
            self._hindered_since = now
        return 0.0 if self._hindered_since is None else now - self._hindered_since

    def _unconfirmed(self, now: float) -> float:
        """Return for how long frames have waited without any being confirmed; exact to one sample."""
        if not self._replication.number:
            return 0.0
        sender = self._replication.sender
        if not sender.unconfirmed or sender.acknowledged != self._confirmed:
            self._confirmed, self._waiting_since = sender.acknowledged, now
        return now - self._waiting_since
