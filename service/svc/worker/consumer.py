"""A consumer process: takes jobs, runs them in order, and reports their outcomes, until told to stop.

The main thread does all of that. A second thread receives the supervisor's orders (`orders`): to stop; to
report, if finished outcomes wait behind a long job or the manager was away and does not know the jobs that
run here. The threads share the connection with one lock, which is free only while a task runs.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection

import structlog

from svc.broker.base import Broker, Settlement
from svc.domain.commands import Hello, Nack, Release
from svc.domain.job import job_id
from svc.domain.limits import GRANT_JOBS
from svc.domain.replies import PILL_PUT_BY_HAND, Delivery, Grant, Refused
from svc.errors import (
    AuthenticationFailed,
    Forbidden,
    ManagerUnreachable,
    ProtocolMismatch,
)
from svc.wire import PROTOCOL_VERSION
from svc.worker.backoff import Backoff
from svc.worker.leftovers import LOOK_SECONDS, Leftovers
from svc.worker.options import Connect, WorkerOptions
from svc.worker.orders import NUDGE, Orders
from svc.worker.outbox import (
    NEVER,
    SHORT_SECONDS,
    AttemptLog,
    FinishedAttempt,
    Holdings,
    LeasedJobs,
    Outbox,
)
from svc.worker.registry import Registry
from svc.worker.runner import Failure, ResolvedTask, Runner
from svc.worker.slot import Phase, Slot

#: The longest pause in seconds between two attempts to reach the manager.
_PAUSE_MAX = 2.0
#: How long the reply to reported outcomes may wait for the next jobs. Most jobs come by then, so a consumer
#: whose jobs come one at a time needs one request for each. The outcomes are recorded at once.
_REPORTING_WAIT = timedelta(seconds=0.1)
#: The run time that reading ahead may hide; the manager knows the run times of tasks.
_AHEAD = timedelta(seconds=0.004)
#: Bytes of results up to which the next jobs are taken before the results are durable. A new connection must
#: begin with these results, and has little time for that.
_EARLY_BYTES = 64 * 1024
#: Errors that may pass by themselves: the manager restarts, is upgraded, or gets its right key back.
_PASSING = (ManagerUnreachable, AuthenticationFailed, Forbidden, ProtocolMismatch)


class Consumer:
    """The loop of one consumer.

    Args:
        options: the settings of the worker.
        name: the consumer's name.
        registry: the tasks.
        slot: the shared memory that shows the consumer's state to the supervisor.
        pipe: the line to its supervisor; when it breaks, the process ends at once.
        connect: makes the connection to the manager.
        leftovers: clears up after tasks; None if this process is not the consumer's alone.
    """

    def __init__(
        self,
        options: WorkerOptions,
        name: str,
        registry: Registry,
        slot: Slot,
        pipe: Connection,
        connect: Connect,
        leftovers: Leftovers | None = None,
    ) -> None:
        self._options = options
        self._name = name
        self._registry = registry
        self._slot = slot
        self._pipe = pipe
        self._orders = Orders(pipe, self._report_aside, self._interrupt)
        self._stopping = self._orders.stopping
        self._connect = connect
        self._wait = timedelta(seconds=options.lease_wait)
        self._pid = os.getpid()
        self._outbox = Outbox()
        self._holdings = Holdings()
        #: Outcomes that the manager has received and may not have recorded yet.
        self._unrecorded: Sequence[Settlement] = ()
        self._log = structlog.get_logger().bind(worker=options.name, consumer=name)
        self._attempt_log = AttemptLog(options.name, name)
        self._line = threading.Lock()
        self._broker: Broker | None = None
        self._backoff = Backoff(_PAUSE_MAX)
        self._busy_seconds = 0.0
        self._leftovers = leftovers
        #: Changes to the process that cannot be put back: it leaves, and is replaced.
        self._changed: list[str] = []

    def run(self) -> None:
        """Work until stopped or pilled, then leave."""
        self._orders.start()
        with self._line:
            broker = self._connected()
            if broker is None:
                self._rest(Phase.STOPPING)
            else:
                self._leave(broker, self._serve(broker))
        self._orders.left.set()

    def _serve(self, broker: Broker) -> Phase:
        """Take and run jobs until there is a reason to leave; return the phase that stands for it."""
        limit, keys = broker.welcome.max_job_bytes, self._options.pickle_keys
        runner = Runner(self._registry, self._options.accept, limit, keys)
        while not (self._stopping.is_set() or self._changed):
            grant = self._take(broker)
            if grant.pill:
                return Phase.PILLED if grant.pill == PILL_PUT_BY_HAND else Phase.DRAINED
            self._work(broker, runner, grant)
        return Phase.RENEWING if self._changed else Phase.STOPPING

    # --- the manager ----------------------------------------------------------------------------------

    def hello(self) -> Hello:
        """Return the hello for a new connection, with the leases that this consumer holds."""
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
            life=self._options.life,
            accept=list(self._options.accept),
        )

    def _connected(self) -> Broker | None:
        """Return the connection, or None if a stop came before there was one."""
        while not self._stopping.is_set():
            try:
                self._broker = self._broker or self._connect(self.hello)
                self._broker.ping()  # the connection may be made at the first call only
            except _PASSING as error:
                self._pause(error)
            else:
                return self._broker
        return None

    def _take(self, broker: Broker) -> Grant:
        """Report outcomes and take the next jobs; wait long only if there is nothing to report.

        While the request waits, it is not known whether its outcomes have arrived.
        """
        self._rest(Phase.IDLE)
        outcomes = self._outbox.content()
        wait = min(_REPORTING_WAIT, self._wait) if outcomes else self._wait
        try:
            early = self._outbox.size <= _EARLY_BYTES
            turn = broker.lease(limit=GRANT_JOBS, wait=wait, ahead=_AHEAD, early=early, outcomes=outcomes)
        except _PASSING as error:
            self._pause(error)
            return Grant()
        self._sent(outcomes, turn.refused, recorded=not turn.grant.early)
        self._holdings.add(turn.grant.deliveries)
        return turn.grant

    def _report(self, broker: Broker) -> None:
        """Report outcomes between two jobs; if the manager is away, go on while there is room for more."""
        self._rest(Phase.IDLE)
        while (error := self._flush(broker)) and self._outbox.full and not self._stopping.is_set():
            self._pause(error)

    def _flush(self, broker: Broker) -> Exception | None:
        """Report outcomes now, if there are any; return the error if that failed."""
        return self._send(broker.settle) if self._outbox.due_at < NEVER else None

    def _send(self, verb: Callable[[Sequence[Settlement]], Sequence[Refused]]) -> Exception | None:
        """Report outcomes with a verb of the broker; those of a failed request go with the next one."""
        outcomes = self._outbox.content()
        try:
            refused = verb(outcomes)
        except _PASSING as error:
            self._outbox.postpone(time.monotonic() + _PAUSE_MAX)
            return error
        self._sent(outcomes, refused)
        return None

    def _sent(
        self, outcomes: Sequence[Settlement], refused: Sequence[Refused], *, recorded: bool = True
    ) -> None:
        self._backoff.failures = 0
        self._outbox.sent(outcomes)
        self._holdings.settled(self._unrecorded)
        self._unrecorded = () if recorded else outcomes
        if recorded:
            self._holdings.settled(outcomes)
        for refusal in refused:
            self._log.warning("outcome_refused", code=refusal.code, error=refusal.message)

    def _leave(self, broker: Broker, phase: Phase) -> None:
        """Report the remaining outcomes and end the membership; only the supervisor can end this early."""
        self._rest(phase)
        while error := self._send(broker.leave):
            self._pause(error)
        broker.close()

    def _pause(self, error: Exception) -> None:
        """Wait a little, longer each time, with jitter; a stop ends it. The supervisor warns."""
        self._log.debug("manager_unreachable", manager=self._options.manager, error=str(error))
        pause = self._backoff.fail()
        if self._stopping.is_set():
            time.sleep(pause)
        else:
            self._stopping.wait(pause)

    def _rest(self, phase: Phase) -> None:
        self._slot.rest(phase, self._busy_seconds, unsent=self._outbox.due_at < NEVER)

    # --- jobs -----------------------------------------------------------------------------------------

    def _work(self, broker: Broker, runner: Runner, grant: Grant) -> None:
        """Run the jobs of a grant in order, until the rest is taken back or the worker stops."""
        deliveries = grant.deliveries
        received = time.monotonic()
        ahead = sum(len(delivery.bodies) for delivery in deliveries)
        if not self._cleared():
            self._give_up(deliveries, 0)
            return
        for index, delivery in enumerate(deliveries):
            leased = LeasedJobs(delivery, runner.resolve(delivery.terms), received)
            self._begin(leased, deliveries[-1].token, ahead)
            done = self._run(broker, leased, ahead)
            self._attempt_log.end()
            ahead -= done
            if done < len(delivery.bodies):
                self._give_up(deliveries[index:], delivery.first + done)
                break
            if not self._cleared(leased.task):
                self._give_up(deliveries[index + 1 :], 0)
                break

    def _cleared(self, task: ResolvedTask | None = None) -> bool:
        """Clear up after jobs of *task*, or earlier ones; return False if the process has to be replaced."""
        leftovers = self._leftovers
        if leftovers is not None and not self._changed:
            if task is None:
                self._changed = leftovers.catch_up()
            else:
                self._changed = leftovers.clear(keep_children=task.keep_children)
            if self._changed:
                self._log.warning("consumer_renewed", changed=self._changed)
        return not self._changed

    def _begin(self, leased: LeasedJobs, last: int, ahead: int) -> None:
        """Write the current lease into the slot, and wake the supervisor if it has to watch."""
        task = leased.task
        watch = ahead > 1 or task.timeout is not None
        if self._slot.begin(leased.delivery, last, task.policy, task.timeout, task.names, watch):
            self._pipe.send_bytes(NUDGE)

    def _run(self, broker: Broker, leased: LeasedJobs, ahead: int) -> int:
        """Run the jobs of one lease; return the number of jobs that were run."""
        delivery, outbox, clock, log = leased.delivery, self._outbox, time.monotonic, self._attempt_log
        token, first = delivery.token, delivery.first
        is_stopping, claim = self._stopping.is_set, self._slot.claim
        for done, body in enumerate(delivery.bodies):
            number, started, unsent = first + done, clock(), outbox.due_at < NEVER
            if is_stopping() or not claim(number, ahead - done - 1, started, self._busy_seconds, unsent):
                return done
            result = self._execute(leased, body, number)
            ended = clock()
            seconds = ended - started
            self._busy_seconds += seconds
            if type(result) is bytes:
                outbox.succeeded(token, number, result, seconds, ended)
                if log.wants_successes and not (seconds < SHORT_SECONDS and log.add(seconds)):
                    log.succeeded(leased.attempt(number, None, started, seconds))
            elif isinstance(result, Failure):
                self._failed(leased, result, leased.attempt(number, result, started, seconds))
            if ended > outbox.due_at:
                self._report(broker)
            if seconds > LOOK_SECONDS and not self._cleared(leased.task):
                return done + 1
        return len(delivery.bodies)

    def _execute(self, leased: LeasedJobs, body: bytes, number: int) -> bytes | Failure:
        """Run one job; meanwhile the connection is free for the other thread."""
        self._line.release()
        result = leased.task.run(body, leased.delivery.origin, number)
        self._line.acquire()
        if os.getpid() != self._pid:
            os._exit(1)  # a fork that the task made came back here; the lease is its parent's
        return result

    def _failed(self, leased: LeasedJobs, failure: Failure, attempt: FinishedAttempt) -> None:
        delivery = leased.delivery
        if not failure.permanent:
            retry_in = leased.task.policy.retry_in(delivery.failures + 1, random.random())
            attempt = attempt._replace(retry_in=retry_in)
        nack = Nack(
            delivery.token, attempt.number, failure.error, attempt.retry_in, failure.cause, attempt.seconds
        )
        self._outbox.add(nack, time.monotonic())
        self._attempt_log.write(attempt)
        if failure.untrusted:
            terms, name = delivery.terms, job_id(delivery.origin, attempt.number)
            self._log.error("pickle_refused", job_id=name, task=terms.shown_task, queue=terms.queue)

    def _give_up(self, deliveries: Sequence[Delivery], number: int) -> None:
        """Give up jobs that were read ahead: those of the first lease from *number* on, and all other leases.

        If this process leaves, it gives them back; otherwise the supervisor has taken them back already.
        """
        for delivery in deliveries:
            first = max(number, delivery.first) if delivery is deliveries[0] else delivery.first
            self._holdings.drop(delivery.token, first)
            if self._stopping.is_set() or self._changed:
                self._outbox.add(Release(delivery.token, first), time.monotonic())

    # --- for the thread that receives orders ----------------------------------------------------------

    def _report_aside(self, rejoin: bool) -> None:
        """Report outcomes while the main thread runs a task; at any other time it reports by itself.

        Any call makes the connection again if it is broken; its hello names the leases that are held.
        """
        if self._broker is not None and self._line.acquire(blocking=False):
            try:
                if rejoin:
                    self._broker.ping()
                self._flush(self._broker)
            except Exception as error:  # noqa: BLE001 - this thread has to hear the next order
                self._log.debug("manager_unreachable", manager=self._options.manager, error=str(error))
            finally:
                self._line.release()

    def _interrupt(self) -> None:
        if self._broker is not None:
            self._broker.interrupt()
