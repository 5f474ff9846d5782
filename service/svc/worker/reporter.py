"""The supervisor's own connection, in a thread of its own: renews leases and delivers reports.

The supervisor never waits for the manager. Its reports are kept here, in order, and sent until the manager
has answered them, however long that takes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta

import msgspec
import structlog

from svc.broker.backoff import Backoff
from svc.broker.base import Broker, Report
from svc.domain.commands import Checkpoint, Extend, Hello, JobProgress, Leave, Recall, TellProgress
from svc.domain.limits import incarnation_of
from svc.domain.replies import Extended, Refused, Reply
from svc.errors import AuthenticationFailed, Forbidden, LeaseLost, ProtocolMismatch, ServiceError
from svc.worker.channel import TELL_SECONDS
from svc.worker.options import Connect
from svc.worker.output_sender import OUTPUT_PAUSE, OutputSender, OutputSource
from svc.worker.pending_reports import Answered, KeptCheckpoint, Pending, PendingReports, command_of
from svc.worker.round_trip import RoundTrip

#: Seconds without an answer after which the manager counts as unreachable, and between two warnings.
_SILENCE_SECONDS, _WARNING_SECONDS = 3.0, 30.0
#: Seconds between two renewals at most; a restart of the manager is noticed as fast as that.
_EXTEND_SECONDS = 1.0
#: Seconds until the next wait at the manager if the last one ended early.
_PARKING_PAUSE = 0.2
#: Seconds beyond those of an order to take jobs back, in which it does not wait at the manager: the report of
#: that would have to end the wait, and so come a round trip later.
_ORDERED_SECONDS = 0.003
#: If leaving, seconds between two attempts to reach a manager that is away, and those since its last answer
#: after which goodbye alone is no reason for another one.
_LEAVING_PAUSE, _FAREWELL_SECONDS = 0.1, 1.5
#: Reports in one request: older managers take 1,024 commands, and the broker and this class add some.
_REPORTS_MAX = 512
#: Seconds after a connection was made in which consumers may still claim the leases that they hold.
_REJOIN_SECONDS = 10.0
_TOO_OLD = Refused(ProtocolMismatch.code, "the manager is of a release without checkpoints; upgrade it")
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
        renewed: called from the thread at each renewal, with the manager's answer.
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
        renewed: Callable[[Extended], None],
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
        self._pending = PendingReports()
        #: Checkpoints whose leases the manager does not know, but may learn of: it has restarted.
        self._unclaimed: list[KeptCheckpoint] = []
        self._greeted_at = 0.0
        #: When reports that may gather are sent next, and whether there are some: of progress, or checkpoints
        #: that nobody waits for.
        self._tell_at = 0.0
        self._telling = False
        #: Whether a report waits that may not gather.
        self._pressing = False
        self._news = threading.Condition()
        self._output = OutputSender()
        self._round_trip = RoundTrip()
        self._leaving = False
        self._abandoned = False
        self._broker: Broker | None = None
        #: The connection over which the thread waits for the answer to a renewal.
        self._waits_at: Broker | None = None
        self._stops_made = 0
        #: The seconds in which a report of jobs that are taken back may come, by the manager's last answer.
        self._ordered = 0.0
        self._greeted = 0
        self._welcomed = False
        self._answered_at = time.monotonic()
        self._warned_at: float | None = None
        self._error = ""
        self._backoff = Backoff()
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether the manager has answered recently."""
        return self._welcomed and time.monotonic() - self._answered_at < _SILENCE_SECONDS

    @property
    def reconnects(self) -> int:
        """How often the connection had to be made again."""
        return max(0, self._greeted - 1)

    @property
    def round_trip(self) -> float:
        """The seconds of a request that the manager answers at once; 0 if none was measured."""
        return self._round_trip.seconds

    @property
    def claims_due(self) -> bool:
        """Whether the manager may not know yet which leases the consumers hold: it has just come back."""
        return self._greeted > 1 and time.monotonic() - self._greeted_at < _REJOIN_SECONDS

    def start(self) -> None:
        """Begin to connect."""
        self._answered_at = time.monotonic()
        self._thread.start()

    def post(self, *commands: Report) -> None:
        """Queue *commands* as reports, after all earlier ones."""
        with self._news:
            self._pending.add(*commands)
            self._pressing = True
        self._interrupt(*(each for each in commands if isinstance(each, Recall)))  # twice is as once

    def _interrupt(self, *told: Recall) -> None:
        """End the wait of the thread, here or at the manager; once it leaves, it waits there no more."""
        with self._news:
            self._news.notify()
            broker, self._waits_at = self._waits_at, None
        if self._leaving and self._broker is not None:
            self._broker.interrupt()
        elif broker is not None:
            broker.wake(*told)

    def carry(self, outputs: OutputSource) -> None:
        """Send the output of tasks from *outputs*, beside the reports."""
        self._output.outputs = outputs

    def output_came(self) -> None:
        """Note that there is output to send; thread-safe."""
        if not self._output.due:
            with self._news:
                self._output.due = True
            self._interrupt()

    def tell(self, report: JobProgress) -> None:
        """Queue a report of progress; all of them travel together, `TELL_SECONDS` apart."""
        with self._news:
            self._pending.tell(report)
            self._telling = True
        self._interrupt()

    def keep(self, checkpoint: Checkpoint, answered: Answered, *, awaited: bool) -> None:
        """Queue a checkpoint, after all earlier reports; unless it is *awaited*, it travels with others.

        A later report, such as that of a crash, sends it at once, and before itself. *answered* is called
        from the thread with the manager's answer; unless it is awaited, a later checkpoint of the same job
        may come in between, and only that one be answered.
        """
        with self._news:
            self._pending.keep(checkpoint, answered, awaited=awaited)
            self._pressing = self._pressing or awaited
            self._telling = True
        self._interrupt()

    def warn_of_silence(self, now: float) -> None:
        """Log if the manager does not answer: once, then every 30 s; *now* is monotonic."""
        if self._thread.ident is None or now - self._answered_at < _SILENCE_SECONDS:
            return
        if self._warned_at is None or now - self._warned_at >= _WARNING_SECONDS:
            self._warned_at = now
            silence = round(now - self._answered_at, 1)
            trouble = self._broker.trouble if self._broker is not None else ""
            error = self._error or trouble or f"no answer for {silence} s"
            self._log.warning("manager_unreachable", manager=self._manager, error=error)

    def close(self, patience: float) -> None:
        """Deliver the pending reports, leave and disconnect; give up after *patience* seconds."""
        brief = not (self.connected or self._owed)
        self._leaving = True
        self._interrupt()
        if self._thread.ident is None:
            return
        self._thread.join(min(patience, _FAREWELL_SECONDS) if brief else patience)
        self._abandoned = True
        if self._pending.about_jobs:
            self._log.warning("reports_undelivered", count=self._pending.about_jobs)

    @property
    def _owed(self) -> bool:
        """Whether the manager misses anything if it hears no more."""
        return self._pending.about_jobs > 0 or self._output.pending

    # --- the thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        left = False
        while not left and not self._abandoned:
            try:
                self._broker = self._broker or self._connect(self._greet)
                self._interrupt()  # it may have been told to leave before there was a connection
                left = self._turn(self._broker)
            except _FATAL as error:
                if not self._welcomed:
                    self._refused(error)
                    return
                self._pause(error)
            except Exception as error:  # noqa: BLE001 - while this thread lives, leases are renewed
                self._pause(error)
        if self._broker is not None:
            self._broker.close()

    def _greet(self) -> Hello:
        self._greeted += 1
        self._output.begin_anew()
        self._round_trip.forget()
        self._greeted_at = time.monotonic()
        if self._greeted > 1:
            self._reconnected()
        return self._hello()

    def _turn(self, broker: Broker) -> bool:
        """Send all reports, then wait for more or for the next renewal; return True after leaving."""
        leaving = self._leaving
        if leaving:
            self._output.send_all(broker)
        if not (leaving or self._alive()):
            with self._news:
                self._news.wait_for(lambda: self._leaving, _PARKING_PAUSE)
            return False
        telling = self._telling and time.monotonic() >= self._tell_at
        if leaving or self._pressing or telling or self._unclaimed or not self._welcomed:
            self._send(broker, [Leave() if leaving else self._extend()])
            if self._unclaimed and not leaving:
                self._wait(broker, time.monotonic() + _PARKING_PAUSE)
            return leaving
        if self._ordered:
            pause, self._ordered = self._ordered, 0.0
            self._wait(broker, time.monotonic() + pause)
            return False
        if self._round_trip.is_due(time.monotonic()):
            self._measure(broker)
            return False
        every = min(broker.welcome.lease_seconds / 3 or _EXTEND_SECONDS, _EXTEND_SECONDS)
        until = time.monotonic() + every
        self._output.send(broker)  # it may have come too fast for the request before
        if not self._wait_at(broker, every):
            # There is output, an earlier wake came late, or the manager is older and does not wait.
            self._wait(broker, min(time.monotonic() + _PARKING_PAUSE, until))
        return False

    def _measure(self, broker: Broker) -> None:
        """Renew without a wait, and note how long that takes, unless a connection had to be made for it."""
        greeted, began = self._greeted, time.monotonic()
        self._exchange(broker, {}, [self._extend()])
        now = time.monotonic()
        if self._greeted == greeted:
            self._round_trip.note(now - began, now)

    def _wait_at(self, broker: Broker, seconds: float) -> bool:
        """Renew, and wait at the manager for attempts that have to end; return whether there are more."""
        extend = self._extend()
        with self._news:
            if self._pressing or self._leaving or self._telling:
                return False
            if extend.told:
                wait = 0.0 if self._output.due else seconds
                extend = msgspec.structs.replace(extend, wait=wait, stops_made=self._stops_made)
            self._waits_at = broker
        before = self._stops_made
        self._exchange(broker, {}, [extend], extend.wait)
        return self._stops_made != before or self._ordered > 0

    def _wait(self, broker: Broker, until: float) -> None:
        """Wait for reports, or *until* a monotonic time; send the output that comes meanwhile."""
        output = self._output
        while True:
            with self._news:
                while (
                    not (self._pressing or self._leaving or output.due) and (pause := self._idle(until)) > 0
                ):
                    self._news.wait(pause)
                if self._pressing or self._leaving or self._idle(until) <= 0:
                    return
                # More may come at once: a pause makes one request of it.
                self._news.wait_for(lambda: self._pressing or self._leaving, OUTPUT_PAUSE)
            output.send(broker)

    def _idle(self, until: float) -> float:
        """Return the seconds until there is something to send: at *until*, or gathered reports before."""
        return (min(until, self._tell_at) if self._telling else until) - time.monotonic()

    def _send(self, broker: Broker, last: list[Report]) -> None:
        """Send the pending reports, in several requests if there are many, and then *last*."""
        try:
            self._send_pending(broker, last)
        except BaseException:
            self._pressing = self._telling = True  # what has no answer is sent again
            raise

    def _send_pending(self, broker: Broker, last: list[Report]) -> None:
        with self._news:
            self._pressing = False
            for kept in self._unclaimed:
                self._pending.keep_again(kept)
            self._unclaimed = []
            old = [] if broker.welcome.checkpoint_bytes else self._pending.take_checkpoints()
            reports = self._pending.first(_REPORTS_MAX)
        for kept in old:
            kept.answer(_TOO_OLD)
        while len(self._pending) > len(reports):
            self._exchange(broker, reports, [])
            with self._news:
                reports = self._pending.first(_REPORTS_MAX)
        self._exchange(broker, reports, [*self._progress(broker), *last])

    def _progress(self, broker: Broker) -> list[Report]:
        """Return a report of progress, if it is time for one; an older manager gets none."""
        now = time.monotonic()
        if not self._telling or now < self._tell_at:
            return []
        with self._news:
            self._tell_at, self._telling = now + TELL_SECONDS, False
            told = self._pending.first_progress()
        return [TellProgress(told)] if told and broker.welcome.checkpoint_bytes else []

    def _exchange(
        self, broker: Broker, reports: dict[object, Pending], last: list[Report], wait: float = 0.0
    ) -> None:
        sent = [*reports.values(), *last]
        try:
            replies = broker.report([command_of(each) for each in sent], timedelta(seconds=wait))
        finally:
            self._waits_at = None
        with self._news:
            self._pending.answered(reports)
            self._telling = self._pending.told(last) or self._telling
        for report, reply in zip(sent, replies, strict=True):
            if isinstance(report, KeptCheckpoint):
                self._checkpoint_answered(report, reply, broker.welcome.incarnation)
            elif isinstance(reply, Refused) and not isinstance(report, TellProgress):
                verb = type(report).__name__.lower()
                self._log.warning("report_refused", report=verb, code=reply.code, error=reply.message)
            elif isinstance(reply, Extended):
                self._stops_made = reply.stops_made
                self._ordered = max((each.wait + _ORDERED_SECONDS for each in reply.take_back), default=0.0)
                self._renewed(reply)
        self._answered()

    def _checkpoint_answered(self, kept: KeptCheckpoint, reply: Reply, incarnation: int) -> None:
        """Pass the answer on; a manager that has restarted since the grant may not know the lease yet."""
        lost = isinstance(reply, Refused) and reply.code == LeaseLost.code
        restarted = incarnation_of(kept.checkpoint.token) != incarnation
        early = time.monotonic() - self._greeted_at < _REJOIN_SECONDS
        if lost and restarted and early and not self._leaving:
            self._unclaimed.append(kept)
        else:
            kept.answer(reply)

    def _answered(self) -> None:
        self._answered_at = time.monotonic()
        self._welcomed = True
        self._backoff.succeed()
        self._error = ""
        if self._warned_at is not None:
            self._warned_at = None
            self._log.info("manager_reconnected", manager=self._manager)

    def _pause(self, error: Exception) -> None:
        """Wait before the next attempt, longer each time, with jitter; only briefly if leaving."""
        self._error = str(error) if isinstance(error, ServiceError) else f"{type(error).__name__}: {error}"
        pause = self._backoff.fail()
        if self._leaving:
            away = time.monotonic() - self._answered_at
            self._abandoned = away > _FAREWELL_SECONDS and not self._owed
            time.sleep(0.0 if self._abandoned else _LEAVING_PAUSE)
            return
        with self._news:
            self._news.wait_for(lambda: self._leaving, pause)
