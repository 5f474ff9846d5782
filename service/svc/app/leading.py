"""The lead among the managers of one stream: stands by until this one has it, and hands it over at the end.

A manager leads from a takeover until it ends, or another one has taken the key. It then ends as well, and its
next start makes it a standby.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from svc.addresses import Address
from svc.app.journals import open_replication
from svc.app.leader_watch import LeaderWatch
from svc.app.manager_http import ManagerHttp
from svc.app.process import logger
from svc.app.standing_by import stand_by
from svc.app.stop_signals import StopSignals
from svc.errors import Deposed, ServiceError
from svc.journal_address import StreamAddress
from svc.settings import ManagerSettings

if TYPE_CHECKING:
    from svc.app.lead_metrics import LeadMetrics
    from svc.broker.journal import Journal
    from svc.broker.leading import LeadFacts
    from svc.server.journal.jetstream.candidacy import Candidacy, Standbys
    from svc.server.journal.jetstream.key_bucket import NatsKeyBucket
    from svc.server.journal.jetstream.leadership import Position
    from svc.server.journal.jetstream.loop_thread import LoopThread
    from svc.server.journal.jetstream.replication import Replication
    from svc.telemetry.metrics import ManagerMetrics

#: Seconds between two counts of the standbys.
STANDBYS_SECONDS = 1.0
#: Seconds that a count may take before a hand-over; the manager's loop waits for it.
COUNT_SECONDS = 0.5
_OTHER_BUCKET = (
    "another manager writes the journal and leads in another bucket: the key in this manager's bucket has "
    "named this one all the time. This one has written nothing since. See that all managers of the journal "
    "have the same NATS account and the same release of svc"
)
#: Hosts to listen on that nobody can connect to.
_ANY = ("0.0.0.0", "", "::")  # noqa: S104  # compared only


class Lead:
    """This manager's place among the managers of one stream; `stand` makes it, and `leave` ends it.

    Attributes:
        address: that at which clients reach this manager.
        on_lost: called, in a thread of its own, if another manager has taken the lead.
    """

    def __init__(self, thread: LoopThread, serves_at: Address) -> None:
        """Use the loop in *thread*, which runs; clients reach this manager at *serves_at*."""
        self.address = serves_at
        self._thread = thread
        self._metrics: LeadMetrics | None = None
        self._bucket: NatsKeyBucket
        self._candidacy: Candidacy
        self._replication: Replication
        self._tasks: list[asyncio.Task[None]] = []
        self._moved = threading.Event()
        self._led = self._stopped = self._leaving = self._handed = False
        self._seen: Standbys | None = None
        self._watch = LeaderWatch()
        self.on_lost: Callable[[], None] = lambda: None
        self._log = logger()

    @classmethod
    def stand(
        cls, settings: ManagerSettings, stream: StreamAddress, replication: Replication, serves_at: Address
    ) -> Lead:
        """Stand for the lead of *stream*.

        Args:
            settings: the manager's settings.
            stream: the stream.
            replication: this manager's replica of it.
            serves_at: the address at which clients reach this manager.

        Raises:
            ServiceError: the servers or the bucket are not as they must be.
        """
        from svc.server.journal.jetstream.loop_thread import LoopThread

        thread = LoopThread("lead")
        thread.start()
        lead = cls(thread, serves_at)
        try:
            thread.run(lead._begin(settings, stream, replication))
        except BaseException:
            thread.stop()
            raise
        return lead

    async def _begin(
        self, settings: ManagerSettings, stream: StreamAddress, replication: Replication
    ) -> None:
        from svc.server.journal.jetstream.candidacy import Candidacy
        from svc.server.journal.jetstream.key_bucket import open_bucket
        from svc.server.journal.jetstream.lead_timing import Timing
        from svc.server.journal.jetstream.leadership import Leadership

        timing, self._replication = Timing(), replication
        self._bucket = await open_bucket(
            stream,
            timing,
            user=settings.nats_user(),
            tls=settings.nats_tls,
            replicas=settings.journal_replicas,
        )
        clock = asyncio.get_running_loop().time
        leadership = Leadership(secrets.token_hex(8), (str(self.address),), timing, now=clock())
        self._candidacy = Candidacy(
            self._bucket,
            leadership,
            self._changed,
            clock,
            caught_up=lambda: replication.replica.caught_up,
        )
        self._begin_task(self._candidacy.run())
        self._begin_task(self._look())

    def _begin_task(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))

    async def _look(self) -> None:
        """Look again and again who leads, who stands by, and whether this manager follows the stream."""
        from svc.server.journal.jetstream.log import Unanswered

        told = False
        while True:
            failure = self._replication.replica.failure
            if failure is not None and not told:
                told = True
                self._log.error("mirror_stopped", error=str(failure))
            self._watch.saw(self._candidacy.leader, time.monotonic())
            with suppress(Unanswered):
                self._seen = await self._candidacy.standbys()
            await asyncio.sleep(STANDBYS_SECONDS)

    @property
    def standbys(self) -> int:
        """How many other managers could take the lead at once when they were last counted."""
        return 0 if self._seen is None else self._seen.ready

    def begin_leave(self, stop: Callable[[], None]) -> str:
        """Begin a hand-over by *stop*, which ends the service; return why there can be none, or "".

        The standbys are counted anew: the only one may just have ended.
        """
        from svc.server.journal.jetstream.log import Unanswered

        try:
            self._seen = self._thread.run(self._candidacy.standbys(heard=True), COUNT_SECONDS)
        except (Unanswered, TimeoutError):
            return (
                "the NATS servers do not say whether a standby is there; this manager goes on leading, so "
                "try again"
            )
        if self.standbys:
            self._handed = True
            stop()
            return ""
        if self._seen.behind:
            return (
                "no standby has caught up with the journal; this manager goes on leading, so try again when "
                "`svc status` counts a standby"
            )
        return "no standby is there to take the lead; start another manager on this journal"

    def measure(self, replication: Replication, metrics: ManagerMetrics, stream: StreamAddress) -> None:
        """Keep *metrics* of this manager's place, and of the *stream* behind *replication*."""
        from svc.app.lead_metrics import LeadMetrics, SilenceLog

        silence = SilenceLog(",".join(map(str, stream.servers)), self._log)
        sampler = LeadMetrics(self._candidacy, replication, metrics, lambda: self.standbys, silence)
        self._metrics = sampler
        self._thread.post(lambda: self._begin_task(sampler.run()))

    def facts(self) -> LeadFacts:
        """Return facts about this leader for clients and operators."""
        from svc.broker.leading import LeadFacts

        silent = 0.0 if self._metrics is None else self._metrics.silent
        return LeadFacts(str(self.address), self.standbys, silent)

    @property
    def valid(self) -> bool:
        """Whether this manager leads and may grant and renew leases now."""
        return self._candidacy.valid

    @property
    def leader(self) -> tuple[str, ...]:
        """The addresses of the leader; none if it is not known."""
        holding = self._candidacy.leader
        return () if holding is None else holding.addresses

    @property
    def lists_nothing(self) -> bool:
        """Whether this manager stands by, and a leader's list of the workers is known to whoever needs it."""
        return not self._led and not self._leaving and self._watch.listed(time.monotonic())

    def said(self) -> str:
        """Return in words why this manager does not serve."""
        if self._leaving:
            return "ends, and hands the lead over if it has it"
        if self._led:
            return f"takes the lead over; {self._replication.trouble or 'the journal is being read'}"
        if (failure := self._replication.replica.failure) is not None:
            return f"standby that cannot take over: {failure}"
        behind = "" if self._candidacy.leadership.caught_up else "; the journal is still being read"
        return f"standby; the leader is {','.join(self.leader) or 'not known'}{behind}"

    def wait(self) -> bool:
        """Return whether this manager has the lead, once it has, or `stop_waiting` was called."""
        self._moved.wait()
        return self._led and not self._stopped

    def stop_waiting(self) -> None:
        """Make `wait` return; safe from a signal handler."""
        self._stopped = True
        self._moved.set()

    def take_over(self, replication: Replication) -> Journal:
        """Begin the term of this leader in the stream; return its journal.

        Raises:
            ServiceError: the stream is not as it must be, or another manager writes on.
            CancelledError: the replica was told to give up, or another manager has taken the lead.
        """
        leadership = self._candidacy.leadership
        self._log.info("takeover_begun", freed=leadership.took_free, lag=replication.replica.lag)
        self.on_lost = replication.give_up
        if self.lost:
            replication.give_up()
        replication.known_followers = self._known_followers
        # Both loops have the same clock.
        journal = replication.take_over(
            leadership.timing.silence,
            leadership.stored,
            free=leadership.took_free,
            patience=leadership.timing.contested_after,
        )
        self._candidacy.append = replication.sender.put_nothing
        self._log.info("lead_taken", term=journal.incarnation)
        return journal

    def begin_service(self, term: int, stop: Callable[[], None]) -> None:
        """Tell the others that this leader serves in its *term*; *stop* is called if the lead is lost."""
        self.on_lost = stop
        self._thread.post(lambda: self._candidacy.name_term(term))
        if self.lost:
            stop()

    @property
    def lost(self) -> bool:
        """Whether another manager has taken the lead from this one."""
        return self._led and not self._leaving and not self._candidacy.leadership.leads

    def require_kept(self) -> None:
        """Raise an error if another manager has taken the lead.

        Raises:
            Deposed: it has.
        """
        if self.lost:
            raise Deposed(f"another manager leads the journal: {','.join(self.leader) or 'unknown'}")

    def explained(self, error: ServiceError) -> ServiceError:
        """Return *error*, or a clearer one if the manager that deposed this one does not use its bucket."""
        from svc.server.journal.jetstream.log import Unanswered

        if not isinstance(error, Deposed) or self.lost:
            return error
        try:
            kept = self._thread.run(self._candidacy.has_kept_key(), COUNT_SECONDS)
        except (Unanswered, TimeoutError):
            return error
        if not kept:
            return error
        # The other one serves on, so a standby of this bucket must not take the freed key for the end of all.
        self._thread.post(lambda: self._candidacy.name_term(0))
        return Deposed(_OTHER_BUCKET)

    def _known_followers(self) -> float:
        """Return how many standbys follow the stream, as far as this leader knows; infinite in doubt."""
        if not self.valid:
            return math.inf
        return 0 if self._seen is None else self._seen.ready + self._seen.behind

    def leave(self, stopped: Callable[[], bool] = lambda: True) -> bool:
        """Hand over, if this manager has the lead and serves no more; then end the connection.

        Return whether this manager is to stand by again: an operator has asked for the hand-over, and nobody
        takes the lead, as the standby was lost in that moment. If *stopped* returns true, nobody looks.
        """
        from svc.server.journal.jetstream.log import Unanswered

        leads, self._leaving = self._candidacy.leadership.leads, True
        seconds = self._candidacy.leadership.timing.release_within + 1.0
        with suppress(TimeoutError, Unanswered):
            self._thread.run(self._candidacy.end(), seconds)
        if leads:
            self._log.info("lead_handed_over", freed=self._candidacy.leadership.freed)
        again = (
            leads
            and self._handed
            and not stopped()
            and not self._thread.run(self._candidacy.taken(stopped))
            and not stopped()
        )
        self._thread.run(self._end())
        self._thread.stop()
        if again:
            self._log.warning("lead_not_taken")
        return again

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self._bucket.close()

    def _changed(self, position: Position) -> None:
        from svc.server.journal.jetstream.leadership import Position

        if position is Position.LEADER:
            self._led = True
            self._moved.set()
        elif self._led and not self._leaving:
            self._log.warning("lead_lost", leader=",".join(self.leader) or "unknown")
            threading.Thread(target=self.on_lost, name="svc-deposed", daemon=True).start()


def await_lead(
    settings: ManagerSettings,
    stream: StreamAddress,
    listener: socket.socket,
    signals: StopSignals,
    metrics: ManagerMetrics,
    http: ManagerHttp,
) -> tuple[Lead, Journal] | None:
    """Stand by until this manager leads; return the lead and the journal, or None if it was told to stop.

    Args:
        settings: the manager's settings.
        stream: the stream that keeps the journal.
        listener: the socket at which clients come; peers are turned away there meanwhile.
        signals: those of this process.
        metrics: those of this manager, also when it leads.
        http: has the answers of a standby when this returns, until others take their place.

    Raises:
        ServiceError: the servers or the stream are not as they must be.
        Deposed: another manager has taken the lead before this one had begun its term.
        Conflict: the leader has other keys.
    """
    with ExitStack() as stack:
        replication = open_replication(settings, stream)
        stack.callback(replication.close)
        serves_at = settings.advertise or advertised(*listener.getsockname()[:2])
        lead = Lead.stand(settings, stream, replication, serves_at)
        stack.callback(lead.leave)
        lead.measure(replication, metrics, stream)
        if not stand_by(settings, lead, listener, signals, metrics, http):
            return None
        try:
            with signals.passed_to(replication.give_up, _nothing):
                journal = lead.take_over(replication)
        except CancelledError:
            lead.require_kept()
            return None
        except ServiceError as error:
            logger().error("journal_error", error=str(error))  # its text says it all
            raise
        stack.pop_all()
    return lead, journal


def advertised(host: str, port: int) -> Address:
    """Return the address for clients of a manager that listens at *host*, which may be any of this host."""
    return Address(socket.gethostname() if host in _ANY else host, port)


def _nothing() -> None:
    pass
