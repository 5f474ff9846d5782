"""A consumer process: take jobs, run them in order, report how they ended, until told to stop.

The main thread does all of that. A second one listens to the supervisor: `stop`; `flush`, when finished
outcomes wait behind a long job; `rejoin`, when the manager was away and does not know what runs here. They
share the connection by one lock, which is free only while a task runs.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from multiprocessing.connection import Connection

import structlog

from service.broker.base import Broker, Settlement
from service.domain.commands import Hello, Leave, Nack, Ping, Release
from service.domain.replies import Delivery, Grant, Refused
from service.errors import AuthenticationFailed, ConfigurationError, ManagerUnreachable, ProtocolMismatch
from service.wire import PROTOCOL_VERSION
from service.worker.options import ConfigureLogging, Connect, WorkerOptions
from service.worker.outbox import Holdings, Outbox
from service.worker.pace import Pace
from service.worker.process import guard
from service.worker.registry import Registry
from service.worker.report import Attempt, AttemptLog
from service.worker.runner import Attempts, Failure, Runner
from service.worker.slot import Phase, Slot

#: Exit code of a consumer whose task modules cannot be loaded.
EXIT_CONFIGURATION = 78
#: What a consumer and its supervisor say to each other, at the beginning of a message.
STOP, FLUSH, REJOIN = b"stop", b"flush", b"rejoin"
READY, BROKEN, NUDGE = b"r", b"b", b"n"

#: Seconds that an outcome waits at most for the next request, as long as short jobs follow each other.
_UNSENT_SECONDS = 0.005
#: Bytes of results that are sent without waiting for more.
_UNSENT_BYTES = 1 << 20
#: Seconds between two attempts to wake a request that waits at the manager.
_INTERRUPT_SECONDS = 0.2
_PAUSE_FIRST, _PAUSE_MAX = 0.1, 2.0
_NO_WAIT = timedelta()
#: What may pass by itself: the manager restarts, is upgraded, or gets its right key back.
_PASSING = (ManagerUnreachable, AuthenticationFailed, ProtocolMismatch)


def consume(
    options: WorkerOptions,
    name: str,
    slot: Slot,
    pipe: Connection,
    connect: Connect,
    configure_logging: ConfigureLogging,
) -> None:
    """Be a consumer process; returns when stopped or pilled.

    Exits with `EXIT_CONFIGURATION` where a task module cannot be loaded, and says why through *pipe*.
    """
    guard(f"svc: consumer {name}")
    configure_logging()
    # For what task code and libraries log: it then says which consumer wrote it.
    structlog.contextvars.bind_contextvars(worker=options.name, consumer=name)
    try:
        registry = Registry.load(options.tasks)
    except ConfigurationError as error:
        pipe.send_bytes(BROKEN + str(error).encode(errors="backslashreplace"))
        sys.exit(EXIT_CONFIGURATION)
    pipe.send_bytes(READY + "\n".join(registry.names()).encode())
    Consumer(options, name, registry, slot, pipe, connect).run()


class Consumer:
    """The loop of one consumer.

    Args:
        options: how the worker works.
        name: the consumer's name.
        registry: the tasks.
        slot: where it says what it is doing.
        pipe: the line to its supervisor; at its end the process ends at once.
        connect: makes the connection to the manager.
    """

    def __init__(
        self,
        options: WorkerOptions,
        name: str,
        registry: Registry,
        slot: Slot,
        pipe: Connection,
        connect: Connect,
    ) -> None:
        self._options = options
        self._name = name
        self._registry = registry
        self._slot = slot
        self._pipe = pipe
        self._connect = connect
        self._wait = timedelta(seconds=options.lease_wait)
        self._pid = os.getpid()
        self._outbox = Outbox()
        self._holdings = Holdings()
        self._pace = Pace()
        self._log = structlog.get_logger().bind(worker=options.name, consumer=name)
        self._attempt_log = AttemptLog(options.name, name)
        self._line = threading.Lock()
        self._stopping = threading.Event()
        self._left = threading.Event()
        self._broker: Broker | None = None
        self._pauses = 0
        self._busy_seconds = 0.0

    def run(self) -> None:
        """Work until stopped or pilled, then leave."""
        threading.Thread(target=self._listen, name="orders", daemon=True).start()
        with self._line:
            broker = self._connected()
            if broker is None:
                self._rest(Phase.STOPPING)
            else:
                self._leave(broker, self._serve(broker))
        self._left.set()

    def _serve(self, broker: Broker) -> Phase:
        """Take and run jobs until there is a reason to leave; return it."""
        runner = Runner(self._registry, self._options.accept, broker.welcome.max_job_bytes)
        while not self._stopping.is_set():
            grant = self._take(broker)
            if grant.pill:
                return Phase.PILLED
            self._work(broker, runner, grant)
        return Phase.STOPPING

    # --- the manager ----------------------------------------------------------------------------------

    def hello(self) -> Hello:
        """Return who this is and what it holds, for a new connection."""
        return Hello(
            PROTOCOL_VERSION,
            "consumer",
            self._name,
            self._options.name,
            self._options.host,
            self._pid,
            self._registry.names(),
            list(self._options.queues),
            self._holdings.all(),
            release=self._options.release,
        )

    def _connected(self) -> Broker | None:
        """Return the connection, or None if told to stop before there was one."""
        while not self._stopping.is_set():
            try:
                self._broker = self._broker or self._connect(self.hello)
                self._broker.call([Ping()])  # not before the first call need it be connected
            except _PASSING as error:
                self._pause(error)
            else:
                return self._broker
        return None

    def _take(self, broker: Broker) -> Grant:
        """Report what is done and take the next jobs, waiting for them only when nothing is left to report.

        A wait hides whether the outcomes that came with it have arrived.
        """
        self._rest(Phase.IDLE)
        outcomes = self._outbox.content()
        wait = _NO_WAIT if outcomes else self._wait
        try:
            turn = broker.lease(limit=self._pace.limit, wait=wait, outcomes=outcomes)
        except _PASSING as error:
            self._pause(error)
            return Grant()
        self._sent(outcomes, turn.refused)
        self._holdings.add(turn.grant.deliveries)
        return turn.grant

    def _flush(self, broker: Broker) -> None:
        """Report what is done now; where that fails it goes with the next request."""
        outcomes = self._outbox.content()
        if not outcomes:
            return
        try:
            replies = broker.call(outcomes)
        except _PASSING as error:
            self._log.debug("manager_unreachable", error=str(error))
            self._outbox.since = time.monotonic() + _PAUSE_MAX
        else:
            self._sent(outcomes, [reply for reply in replies if isinstance(reply, Refused)])

    def _sent(self, outcomes: Sequence[Settlement], refused: Sequence[Refused]) -> None:
        self._pauses = 0
        self._outbox.sent(outcomes)
        self._holdings.settled(outcomes)
        for refusal in refused:
            self._log.warning("outcome_refused", code=refusal.code, error=refusal.message)

    def _leave(self, broker: Broker, phase: Phase) -> None:
        """Report the rest and end the membership; only the supervisor ends this early."""
        self._rest(phase)
        while True:
            outcomes = self._outbox.content()
            try:
                replies = broker.call([*outcomes, Leave()])
            except _PASSING as error:
                self._pause(error)
            else:
                self._sent(outcomes, [reply for reply in replies[:-1] if isinstance(reply, Refused)])
                broker.close()
                return

    def _pause(self, error: Exception) -> None:
        """Wait a little, longer each time, with jitter; a stop ends it. To complain is the supervisor's."""
        self._log.debug("manager_unreachable", error=str(error))
        longest = min(_PAUSE_FIRST * 2.0**self._pauses, _PAUSE_MAX)
        self._pauses = min(self._pauses + 1, 16)
        pause = random.uniform(longest / 2, longest)
        if self._stopping.is_set():
            time.sleep(pause)
        else:
            self._stopping.wait(pause)

    def _rest(self, phase: Phase) -> None:
        self._slot.rest(phase, self._busy_seconds, unsent=self._outbox.since is not None)

    # --- jobs -----------------------------------------------------------------------------------------

    def _work(self, broker: Broker, runner: Runner, grant: Grant) -> None:
        """Run the jobs of a grant in order, until the rest is taken back or the worker stops."""
        deliveries = grant.deliveries
        received = time.monotonic()
        before, count = self._busy_seconds, 0
        ahead = sum(len(delivery.bodies) for delivery in deliveries)
        for index, delivery in enumerate(deliveries):
            attempts = runner.resolve(delivery.terms)
            watch = ahead > 1 or attempts.timeout is not None
            if self._slot.begin(delivery, deliveries[-1].token, attempts.policy, attempts.timeout, watch):
                self._pipe.send_bytes(NUDGE)
            done = self._run(broker, attempts, delivery, ahead, received)
            count += done
            ahead -= done
            if done < len(delivery.bodies):
                self._give_up(deliveries[index:], delivery.first + done)
                break
        self._pace.ran(count, self._busy_seconds - before)

    def _run(
        self, broker: Broker, attempts: Attempts, delivery: Delivery, ahead: int, received: float
    ) -> int:
        """Run the jobs of one delivery; return how many were run."""
        outbox, line, clock = self._outbox, self._line, time.monotonic
        for done, body in enumerate(delivery.bodies):
            number = delivery.first + done
            started = clock()
            if self._stopping.is_set() or not self._slot.claim(
                number, ahead - done - 1, started, self._busy_seconds, outbox.since is not None
            ):
                return done
            line.release()
            result = attempts.run(body)
            line.acquire()
            if os.getpid() != self._pid:
                os._exit(1)  # a process that the task forked came back here; the lease is its parent's
            ended = clock()
            seconds = ended - started
            self._busy_seconds += seconds
            if type(result) is bytes:
                outbox.succeeded(delivery.token, number, result, seconds, ended)
                if self._attempt_log.wants_successes:
                    waited = delivery.waited + started - received
                    self._attempt_log.write(Attempt(delivery, number, result, waited, seconds))
            elif isinstance(result, Failure):
                self._failed(
                    attempts, delivery, number, result, delivery.waited + started - received, seconds
                )
            if outbox.size > _UNSENT_BYTES or (
                outbox.since is not None and ended - outbox.since > _UNSENT_SECONDS
            ):
                self._rest(Phase.IDLE)
                self._flush(broker)
        return len(delivery.bodies)

    def _failed(
        self,
        attempts: Attempts,
        delivery: Delivery,
        number: int,
        failure: Failure,
        waited: float,
        seconds: float,
    ) -> None:
        retry_in = (
            None if failure.permanent else attempts.policy.retry_in(delivery.failures + 1, random.random())
        )
        nack = Nack(delivery.token, number, failure.error, retry_in, failure.cause, seconds)
        self._outbox.add(nack, time.monotonic())
        self._attempt_log.write(Attempt(delivery, number, failure, waited, seconds, retry_in))

    def _give_up(self, deliveries: Sequence[Delivery], number: int) -> None:
        """Let go of jobs that were read ahead: the first lease from *number* on, and all after it.

        When stopping they are given back; otherwise the supervisor has taken them back already.
        """
        for delivery in deliveries:
            first = max(number, delivery.first) if delivery is deliveries[0] else delivery.first
            self._holdings.drop(delivery.token, first)
            if self._stopping.is_set():
                self._outbox.add(Release(delivery.token, first), time.monotonic())

    # --- the supervisor's orders ----------------------------------------------------------------------

    def _listen(self) -> None:
        """Do what the supervisor says; if it is gone, be gone."""
        while True:
            try:
                order = self._pipe.recv_bytes()
            except (EOFError, OSError):
                if not self._left.is_set():
                    os.kill(os.getpid(), signal.SIGKILL)
                return
            if order in (FLUSH, REJOIN):
                self._report_aside(order)
            elif order == STOP and not self._stopping.is_set():
                self._stopping.set()
                threading.Thread(target=self._keep_interrupting, name="interrupt", daemon=True).start()

    def _report_aside(self, order: bytes) -> None:
        """Report what is done while the main thread runs a task; if it does not, it reports by itself.

        To rejoin, any call does: it finds the connection broken and names the leases held on the new one.
        """
        if self._broker is not None and self._line.acquire(blocking=False):
            try:
                if order == REJOIN:
                    self._broker.call([Ping()])
                self._flush(self._broker)
            except Exception as error:  # noqa: BLE001 - this thread has to hear the next order
                self._log.debug("manager_unreachable", error=str(error))
            finally:
                self._line.release()

    def _keep_interrupting(self) -> None:
        """Wake the main thread from its wait at the manager; again and again, as it may be about to wait."""
        while True:
            if self._broker is not None:
                self._broker.interrupt()
            if self._left.wait(_INTERRUPT_SECONDS):
                return
