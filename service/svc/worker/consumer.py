"""A consumer process: takes jobs, runs them in order, and reports their outcomes, until told to stop.

The main thread does all of that. A second thread receives the supervisor's orders (`orders`): to stop; to
report, if finished outcomes wait behind a long job or the manager was away and does not know the jobs that
run here. The threads share the connection with one lock, which is free only while a task runs.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

import structlog

from svc.broker.base import Broker
from svc.chance import CHANCE
from svc.domain.job import job_id
from svc.domain.limits import BODY_BYTES_MAX
from svc.domain.replies import PILL_PUT_BY_HAND, Delivery, Grant
from svc.worker import context
from svc.worker.capture import Capture
from svc.worker.channel import PipeChannel, submitter_of
from svc.worker.consumer_connection import ConsumerConnection, check_descriptors
from svc.worker.exchange import Exchange
from svc.worker.failure import Failure
from svc.worker.interruption import Interruption
from svc.worker.leftovers import LOOK_SECONDS, Leftovers
from svc.worker.options import Connect, WorkerOptions
from svc.worker.orders import NUDGE, WORN, Orders
from svc.worker.outbox import (
    NEVER,
    SHORT_SECONDS,
    AttemptLog,
    FinishedAttempt,
    Holdings,
    LeasedJobs,
    Outbox,
    give_back,
)
from svc.worker.peak_memory import MEASURED_SECONDS, PeakMemory
from svc.worker.registry import Registry
from svc.worker.requests import Requests
from svc.worker.runner import ResolvedTask, Runner
from svc.worker.slot import Phase, Slot
from svc.worker.value_sender import LineRecorder
from svc.worker.values import values_of
from svc.worker.wear import Wear


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
        interruption: ends an attempt by an exception; None as for *leftovers*.
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
        interruption: Interruption | None = None,
    ) -> None:
        self._options = options
        self._registry = registry
        self._slot = slot
        self._pipe = pipe
        self._interruption = interruption or Interruption(slot)
        self._line = threading.Lock()
        self._holdings = Holdings()
        self.connection = ConsumerConnection(options, name, registry, self._holdings, connect)
        recorder = LineRecorder(self._line, lambda: self.connection.broker)
        takes_reports, submitter = self.connection.takes_reports, submitter_of(options, connect)
        self._channel = PipeChannel(pipe, takes_reports, submitter, recorder)
        self._orders = Orders(
            pipe, self._report_aside, self._end_wait, self._channel.answered, self._channel.ended
        )
        self._stopping = self._orders.stopping
        self._pause = functools.partial(self.connection.pause_reporting, self._stopping)
        pause = functools.partial(self.connection.pause, self._stopping)
        self._connect = connect
        self._pid = os.getpid()
        self._outbox = Outbox()
        self._log = structlog.get_logger().bind(worker=options.name, consumer=name)
        backoff = self.connection.backoff
        self._requests = Requests(self._outbox, self._holdings, options.lease_wait, pause, backoff, self._log)
        #: Whether jobs that were to come behind the last one may have been taken back.
        self._may_be_recalled = False
        self._attempt_log = AttemptLog(options.name, name)
        self._busy_seconds = 0.0
        self._leftovers = leftovers
        limits = (options.recycle_jobs, options.recycle_rss)
        self._wear = Wear(*limits, self._tell_wear) if any(limits) else None
        self._peak_memory = PeakMemory()
        #: Takes the output of tasks.
        self.capture = Capture()
        #: The lease of an attempt that a cancel has ended.
        self._cancelled = 0
        #: Changes to the process that cannot be put back: it leaves, and is replaced.
        self._changed: list[str] = []

    def run(self) -> None:
        """Work until stopped or pilled, then leave."""
        self._orders.start()
        with self._line:
            broker = self.connection.made(self._stopping)
            if broker is None:
                self._rest(Phase.STOPPING)
            else:
                self._leave(broker, self._serve(broker))
        self._orders.left.set()

    def _serve(self, broker: Broker) -> Phase:
        """Take and run jobs until there is a reason to leave; return the phase that stands for it."""
        limit, keys = min(broker.welcome.max_job_bytes, BODY_BYTES_MAX), self._options.pickle_keys
        options = self._options
        values = values_of(options, self._connect)
        runner = Runner(self._registry, options.accept, limit, keys, options.default_timeout, values)
        while not (self._stopping.is_set() or self._changed):
            grant = self._take(broker)
            if grant.patience:
                self._requests.ask(broker)
            if pill := grant.pill or self._work(broker, runner, grant):
                return Phase.PILLED if pill == PILL_PUT_BY_HAND else Phase.DRAINED
        return Phase.RENEWING if self._changed else Phase.STOPPING

    # --- the manager ----------------------------------------------------------------------------------

    def _take(self, broker: Broker) -> Grant:
        """Report outcomes and take the next jobs."""
        self._rest(Phase.IDLE)
        if self._may_be_recalled:
            self._may_be_recalled = False
            if self._slot.take_recall():
                self._requests.recall()
        return self._requests.take(broker)

    def _report(self, broker: Broker) -> None:
        """Report outcomes between two jobs; if the manager is away, go on while there is room for more."""
        self._rest(Phase.IDLE)
        self._attempt_log.end()
        while (error := self._requests.report(broker)) and self._outbox.full and not self._stopping.is_set():
            self._pause(error)

    def _leave(self, broker: Broker, phase: Phase) -> None:
        """Report the remaining outcomes and end the membership; only the supervisor can end this early.

        A stopping consumer without outcomes does not wait for a manager that is away to say goodbye.
        """
        self._requests.recover()
        self._slot.rest(phase, self._busy_seconds, unsent=self._requests.owed)
        while error := self._requests.leave(broker):
            if phase is Phase.STOPPING and not self._requests.owed:
                self._rest(Phase.UNTOLD)
                break
            self._pause(error)
        broker.close()

    def _rest(self, phase: Phase) -> None:
        self._slot.rest(phase, self._busy_seconds, unsent=self._outbox.due_at < NEVER)

    # --- jobs -----------------------------------------------------------------------------------------

    def _work(self, broker: Broker, runner: Runner, grant: Grant) -> int:
        """Run the jobs of a grant until the rest is taken back or the worker stops; return a pill, or 0."""
        deliveries = grant.deliveries
        received = time.monotonic()
        ahead = sum(len(delivery.bodies) for delivery in deliveries)
        if not self._cleared():
            self._give_up(deliveries, 0)
            return 0
        for index, delivery in enumerate(deliveries):
            leased = LeasedJobs(delivery, runner.resolve(delivery.terms), received)
            if leased.task.runs_many and not self._stopping.is_set():
                if self._slot.rest_between(self._busy_seconds, self._outbox.due_at < NEVER):
                    rest = [*deliveries[index:], *self._requests.withdraw(broker)]
                    return self._run_many(broker, runner, leased, rest)
                self._give_up(deliveries[index:], delivery.first)
                break
            self._begin(leased, deliveries[-1].token, ahead, grant.patience)
            self._peak_memory.begin()
            running = context.begin(delivery, leased.task.limits.timeout, self._channel)
            done = self._run(broker, leased, running, ahead)
            context.end(running)
            if self._channel.used:
                self._channel.forget(delivery.token)
            if self._wear is not None:
                self._wear.add(done)
            self._attempt_log.end()
            if 0 < done < len(delivery.bodies):
                self.capture.settle(delivery, delivery.first + done - 1)
            ahead -= done
            if done < len(delivery.bodies):
                self._give_up(deliveries[index:], delivery.first + done)
                break
            if not self._cleared(leased.task):
                self._give_up(deliveries[index + 1 :], 0)
                break
        return 0

    def _run_many(self, broker: Broker, runner: Runner, first: LeasedJobs, rest: Sequence[Delivery]) -> int:
        """Run many jobs of one task at once, from the *first* of a grant on; return a pill or 0."""
        calls = (self._failed, self._requests.note_sent, self._pause, self._stopping.is_set, self._wear)
        name, log = first.task.terms.task, self._attempt_log
        exchange = Exchange(broker, name, self._outbox, self._holdings, log, *calls)
        if first.task.batch is not None:
            from svc.worker.job_lists import Surroundings, run_lists

            around = Surroundings(self._slot, self._channel, self.capture, self._line, self._cleared)
            pill, seconds = run_lists(exchange, runner, rest, around, self._busy_seconds)
        else:
            from svc.worker.side_by_side import run_round  # most workers never need asyncio

            shared = (self._slot, runner, rest, self._channel, self._busy_seconds, self.capture)
            pill, seconds = run_round(exchange, *shared)
        self._busy_seconds += seconds
        self._cleared(first.task)
        return pill

    def _tell_wear(self, reason: str) -> None:
        """Ask the supervisor for a successor; this process works on until it is told to leave."""
        self._channel.send(WORN + reason.encode())

    def _cleared(self, task: ResolvedTask | None = None) -> bool:
        """Clear up after jobs of *task*, or earlier ones; return False if the process has to be replaced."""
        leftovers = self._leftovers
        if not self._changed:
            if self._interruption.happened:
                self._changed = ["interrupted task"]
            elif leftovers is None or (task is not None and task.leaves_nothing):
                pass
            elif task is None:
                self._changed = leftovers.catch_up()
            else:
                self._changed = leftovers.clear(keep_children=task.keep_children) + task.coroutines.changes
            if self._changed:
                self._log.warning("consumer_renewed", changed=self._changed)
                check_descriptors()  # while the slot shows the job: it is charged
        return not self._changed

    def _begin(self, leased: LeasedJobs, last: int, ahead: int, patience: float) -> None:
        """Write the current lease into the slot, and wake the supervisor if it has to watch."""
        task, asks = leased.task, self._requests.brings_more(last)
        self._may_be_recalled = asks
        watch, names = ahead > 1 or asks or any(task.limits), task.names
        if self._slot.begin(leased.delivery, last, task.policy, task.limits, names, watch, patience, asks):
            self._channel.send(NUDGE)

    def _run(self, broker: Broker, leased: LeasedJobs, running: context.Running, ahead: int) -> int:
        """Run the jobs of one lease; return the number of jobs that were run.

        While a task runs, the connection is free for the other thread. A job may do nothing, so this loop is
        written for speed. The caller clears up after the last one.
        """
        delivery, outbox, clock = leased.delivery, self._outbox, time.monotonic
        token, first, origin, run = delivery.token, delivery.first, delivery.origin, leased.task.run
        last = first + len(delivery.bodies) - 1
        is_stopping, claim, capture = self._stopping.is_set, self._slot.claim, self.capture
        set_current, free, take = context.set_current, self._line.release, self._line.acquire
        succeeded, getpid, wants_successes = outbox.succeeded, os.getpid, self._attempt_log.wants_successes
        for number, body in enumerate(delivery.bodies, first):
            ahead -= 1
            started = clock()
            if is_stopping() or not claim(number, ahead, started, self._busy_seconds, outbox.due_at < NEVER):
                return number - first
            running.number, running.started = number, started
            set_current((running, number))
            free()
            result = run(body, origin, number)
            take()
            if getpid() != self._pid:
                os._exit(1)  # a fork that the task made came back here; the lease is its parent's
            ended = clock()
            seconds = ended - started
            self._busy_seconds += seconds
            settles = seconds > LOOK_SECONDS or capture.wrote or number == last
            peak = self._settle(leased, number, seconds, number == last) if settles else 0
            if type(result) is bytes:
                succeeded(token, number, result, seconds, ended, peak)
                if wants_successes:
                    self._log_success(leased, number, started, seconds)
            elif self._ended_otherwise(leased, result, leased.attempt(number, None, started, seconds, peak)):
                return number - first + 1
            if ended > outbox.due_at:
                self._report(broker)
            if seconds > LOOK_SECONDS and number < last and not self._cleared(leased.task):
                return number - first + 1
        return len(delivery.bodies)

    def _log_success(self, leased: LeasedJobs, number: int, started: float, seconds: float) -> None:
        log = self._attempt_log
        if not (seconds < SHORT_SECONDS and log.add(seconds)):
            log.succeeded(leased.attempt(number, None, started, seconds))

    def _settle(self, leased: LeasedJobs, number: int, seconds: float, is_last: bool) -> int:
        """Mark the output of a job that wrote some, was not short or is the last; return its peak memory.

        A job that is to be timed out has no outcome, and waits here for the end of the process.
        """
        self._slot.stay_if_doomed()
        if is_last or self.capture.wrote or not leased.task.leaves_nothing:
            self.capture.settle(leased.delivery, number)
        return self._peak_memory.take() if seconds >= MEASURED_SECONDS else 0

    def _ended_otherwise(self, leased: LeasedJobs, result: bytes | Failure, attempt: FinishedAttempt) -> bool:
        """Take a failure or a large result; return whether this process has to be replaced."""
        if isinstance(result, Failure):
            self._failed(leased, result, attempt._replace(failure=result))
            return self._interruption.happened and not self._cleared(leased.task)
        token, number = leased.delivery.token, attempt.number
        self._outbox.stored(token, number, result, attempt.seconds, time.monotonic(), attempt.peak)
        self._attempt_log.write(attempt)
        return False

    def _failed(self, leased: LeasedJobs, failure: Failure, attempt: FinishedAttempt) -> None:
        delivery = leased.delivery
        if self._interruption.is_cancelled(delivery.token, attempt.number):
            # The manager has the cancel on record, and the lease is gone from there on.
            self._cancelled = delivery.token
            self._holdings.drop(delivery.token, attempt.number)
            self._attempt_log.write(attempt._replace(cancelled=True))
            return
        retry_in = failure.retry_in(leased.task.policy, delivery.failures + 1, CHANCE.random())
        attempt = attempt._replace(retry_in=retry_in)
        left = self._channel.unrecorded(delivery.token, attempt.number)
        if left is not None:
            self._outbox.add(left, time.monotonic())
        nack = failure.nack(delivery.token, attempt.number, retry_in, attempt.seconds, attempt.peak)
        self._outbox.add(nack, time.monotonic())
        self._attempt_log.write(attempt)
        if failure.untrusted:
            terms, name = delivery.terms, job_id(delivery.origin, attempt.number)
            self._log.error("pickle_refused", job_id=name, task=terms.shown_task, queue=terms.queue)

    def _give_up(self, deliveries: Sequence[Delivery], number: int) -> None:
        """Give up jobs that were read ahead: those of the first lease from *number* on, and all other leases.

        They are given back here, too, if the supervisor has taken them back: so none is lost if its mark was
        left from an earlier job, and to give one back twice changes nothing.
        """
        self._requests.recall()
        for delivery in deliveries:
            first = max(number, delivery.first) if delivery is deliveries[0] else delivery.first
            if delivery.token == self._cancelled:
                self._holdings.drop(delivery.token, first)
            else:
                give_back(self._outbox, self._holdings, delivery.token, first)

    # --- for the thread that receives orders ----------------------------------------------------------

    def _end_wait(self) -> None:
        """End the main thread's wait at the manager, because the worker stops."""
        self.connection.interrupt(idle=not (self._slot.look().busy or self._requests.owed))

    def _report_aside(self, rejoin: bool) -> None:
        """Report outcomes while the main thread runs a task; at any other time it reports by itself.

        Any call makes the connection again if it is broken; its hello names the leases that are held.
        """
        broker = self.connection.broker
        if broker is not None and self._line.acquire(blocking=False):
            try:
                self._attempt_log.end()
                if rejoin:
                    broker.ping()
                self._requests.flush(broker)
            except Exception as error:  # noqa: BLE001 - this thread has to hear the next order
                self._log.debug("manager_unreachable", manager=self._options.manager, error=str(error))
            finally:
                self._line.release()
