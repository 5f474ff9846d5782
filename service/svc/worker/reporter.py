"""The supervisor's own connection, in a thread of its own: renews leases and delivers reports.

The supervisor never waits for the manager. Its reports are kept here, in order, and sent until the manager
has answered them, however long that takes.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import islice

import structlog

from svc.broker.base import Broker, Report
from svc.domain.commands import Extend, Hello, Leave
from svc.domain.field_bounds import FRAME_COMMANDS_MAX
from svc.domain.replies import Extended, Refused
from svc.errors import AuthenticationFailed, Forbidden, ProtocolMismatch, ServiceError
from svc.worker.backoff import Backoff
from svc.worker.options import Connect

#: Seconds without an answer after which the manager counts as unreachable, and between two warnings.
_SILENCE_SECONDS, _WARNING_SECONDS = 3.0, 30.0
#: Seconds between two renewals at most; a restart of the manager is noticed as fast as that.
_EXTEND_SECONDS = 1.0
#: The longest pause in seconds between two attempts to reach the manager, and the pause if leaving.
_PAUSE_MAX, _LEAVING_PAUSE = 5.0, 0.1
#: Reports in one request; this leaves room for the commands that the broker and this class add.
_REPORTS_MAX = FRAME_COMMANDS_MAX // 2
#: Errors that, at the first connection, come from the configuration and do not pass with time.
_FATAL = (AuthenticationFailed, Forbidden, ProtocolMismatch)


class Reporter:
    """Sends an `Extend` every third of a lease time or more often, and reports when they come.

    Args:
        connect: makes the connection.
        hello: returns the supervisor's hello.
        extend: the report that goes with each renewal.
        refused: called once, from the thread, with the error if the manager refuses the first connection.
        reconnected: called from the thread whenever the connection is made again.
        renewed: called from the thread at each renewal, with whether a drain of this worker is in force.
        alive: says whether the supervisor's loop still turns; while it does not, no lease is renewed.
        manager: where the manager is; the log says so.
    """

    def __init__(
        self,
        connect: Connect,
        hello: Callable[[], Hello],
        extend: Callable[[], Extend],
        refused: Callable[[ServiceError], None],
        reconnected: Callable[[], None],
        renewed: Callable[[bool], None],
        alive: Callable[[], bool],
        manager: str = "",
    ) -> None:
        self._connect = connect
        self._hello = hello
        self._extend = extend
        self._refused = refused
        self._reconnected = reconnected
        self._renewed = renewed
        self._alive = alive
        self._log = structlog.get_logger()
        self._manager = manager
        self._pending: deque[Report] = deque()
        self._news = threading.Condition()
        self._leaving = False
        self._abandoned = False
        self._greeted = 0
        self._welcomed = False
        self._answered_at = time.monotonic()
        self._warned_at: float | None = None
        self._error = ""
        self._backoff = Backoff(_PAUSE_MAX)
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether the manager has answered recently."""
        return self._welcomed and time.monotonic() - self._answered_at < _SILENCE_SECONDS

    @property
    def reconnects(self) -> int:
        """How often the connection had to be made again."""
        return max(0, self._greeted - 1)

    def start(self) -> None:
        """Begin to connect."""
        self._answered_at = time.monotonic()
        self._thread.start()

    def post(self, *commands: Report) -> None:
        """Queue *commands* as reports, after all earlier ones."""
        with self._news:
            self._pending.extend(commands)
            self._news.notify()

    def warn_of_silence(self, now: float) -> None:
        """Log if the manager does not answer: once, then every 30 s; *now* is monotonic."""
        if self._thread.ident is None or now - self._answered_at < _SILENCE_SECONDS:
            return
        if self._warned_at is None or now - self._warned_at >= _WARNING_SECONDS:
            self._warned_at = now
            silence = round(now - self._answered_at, 1)
            error = self._error or f"no answer for {silence} s"
            self._log.warning("manager_unreachable", manager=self._manager, error=error)

    def close(self, patience: float) -> None:
        """Deliver the pending reports, leave and disconnect; give up after *patience* seconds."""
        with self._news:
            self._leaving = True
            self._news.notify()
        if self._thread.ident is None:
            return
        self._thread.join(patience)
        self._abandoned = True
        if self._pending:
            self._log.warning("reports_undelivered", count=len(self._pending))

    # --- the thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        broker: Broker | None = None
        left = False
        while not left and not self._abandoned:
            try:
                broker = broker or self._connect(self._greet)
                left = self._turn(broker)
            except _FATAL as error:
                if not self._welcomed:
                    self._refused(error)
                    return
                self._pause(error)
            except Exception as error:  # noqa: BLE001 - while this thread lives, leases are renewed
                self._pause(error)
        if broker is not None:
            broker.close()

    def _greet(self) -> Hello:
        self._greeted += 1
        if self._greeted > 1:
            self._reconnected()
        return self._hello()

    def _turn(self, broker: Broker) -> bool:
        """Send all reports, then wait for more or for the next renewal; return True after leaving."""
        leaving = self._leaving
        if leaving or self._alive():
            self._send(broker, [Leave() if leaving else self._extend()])
        if not leaving:
            every = min(broker.welcome.lease_seconds / 3 or _EXTEND_SECONDS, _EXTEND_SECONDS)
            with self._news:
                self._news.wait_for(lambda: self._pending or self._leaving, every)
        return leaving

    def _send(self, broker: Broker, last: list[Report]) -> None:
        """Send the pending reports, in several requests if there are many, and then *last*."""
        while len(self._pending) > _REPORTS_MAX:
            self._exchange(broker, list(islice(self._pending, _REPORTS_MAX)), [])
        self._exchange(broker, list(self._pending), last)

    def _exchange(self, broker: Broker, reports: list[Report], last: list[Report]) -> None:
        commands = [*reports, *last]
        replies = broker.report(commands)
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, Refused):
                verb = type(command).__name__.lower()
                self._log.warning("report_refused", report=verb, code=reply.code, error=reply.message)
            elif isinstance(reply, Extended):
                self._renewed(bool(reply.drain))
        for _ in reports:
            self._pending.popleft()
        self._answered()

    def _answered(self) -> None:
        self._answered_at = time.monotonic()
        self._welcomed = True
        self._backoff.failures = 0
        self._error = ""
        if self._warned_at is not None:
            self._warned_at = None
            self._log.info("manager_reconnected", manager=self._manager)

    def _pause(self, error: Exception) -> None:
        """Wait before the next attempt, longer each time, with jitter; only briefly if leaving."""
        self._error = str(error) if isinstance(error, ServiceError) else f"{type(error).__name__}: {error}"
        pause = self._backoff.fail()
        if self._leaving:
            time.sleep(_LEAVING_PAUSE)
            return
        with self._news:
            self._news.wait_for(lambda: self._leaving, pause)
