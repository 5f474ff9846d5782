"""Recovery in place: a manager whose state broke drops it and reads it from the journal again.

All acknowledged changes are in the journal, and nothing of the turn that broke was acknowledged or committed.
So the service goes on, under a new incarnation, after the time that a recovery takes.
"""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from svc.broker.broken import StateBroken
from svc.broker.host import QueueHost
from svc.errors import JournalError, ManagerBroken
from svc.server.collector import collector_paused
from svc.server.fault_reports import FaultReports, describe

#: At this many broken states within `WINDOW_SECONDS`, the manager ends instead of recovering.
RECOVERIES_MAX: Final = 3
WINDOW_SECONDS: Final = 60.0


class Recovery:
    """Reports a broken state, and recovers it unless it breaks too often."""

    def __init__(
        self, reports: FaultReports | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Write a report of each fault to *reports*, if not None; *clock* counts seconds."""
        self._reports = reports
        self._clock = clock
        self._times: deque[float] = deque(maxlen=RECOVERIES_MAX)
        self._log = structlog.get_logger("svc.manager")

    def discard(self, host: QueueHost, broken: StateBroken) -> None:
        """Report *broken*, refuse requests like its request from now on, and drop the state of *host*.

        Raises:
            ManagerBroken: it is the third time within a minute.
        """
        report = self._report(host, broken)
        command, member = broken.command, broken.member
        digest = None
        if command is not None:
            name = report.name if report is not None else ""
            digest = host.blocklist.add(command, name, inside=member is not None and member.inside)
        host.observer.counted("svc_manager_recoveries_total", broken.place)
        self._log.error(
            "state_broken",
            place=str(broken.place),
            error_type=type(broken.error).__qualname__,
            command=type(command).__name__ if command is not None else "",
            refused=digest is not None,
            report=str(report or ""),
        )
        host.discard()
        self._times.append(self._clock())
        if len(self._times) == RECOVERIES_MAX and self._times[-1] - self._times[0] < WINDOW_SECONDS:
            raise ManagerBroken(
                f"the manager's state broke {RECOVERIES_MAX} times in {WINDOW_SECONDS:g} s, last in "
                f"{broken.place}; nothing accepted is lost: report the fault, and start the manager again"
            )

    def recover(self, host: QueueHost) -> None:
        """Recover the state after `discard`. Only the host may still hold parts of the old state.

        Raises:
            ManagerBroken: the state cannot be recovered from the journal.
            JournalError: the journal cannot be read or written.
        """
        gc.unfreeze()
        gc.collect()
        try:
            with collector_paused():
                host.recover_in_place()
        except JournalError:
            raise
        except Exception as error:
            raise ManagerBroken(
                f"the manager's state broke and the journal does not give it back ({type(error).__name__}); "
                "keep a copy of the journal, and report the fault"
            ) from error
        self._log.warning(
            "recovered_in_place",
            jobs=host.recovered_jobs,
            recovery_s=round(host.recovery_seconds, 3),
            incarnation=host.incarnation,
        )

    def _report(self, host: QueueHost, broken: StateBroken) -> Path | None:
        if self._reports is None:
            return None
        try:
            return self._reports.write(describe(broken, host))
        except Exception as error:  # noqa: BLE001  # without a report the service still has to go on
            self._log.error("report_not_written", error_type=type(error).__name__)
            return None
