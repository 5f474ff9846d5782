"""Runs jobs of one task in lists: a call gets many jobs, and returns an outcome for each.

The consumer's main thread takes jobs of that task, each under a lease of its own, until the list is full or
has waited long enough, and calls the task. The outcomes travel with the request for the next list.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from svc.domain.replies import Delivery, Grant
from svc.worker import context
from svc.worker.attempt_limits import AttemptLimits
from svc.worker.capture import Capture
from svc.worker.channel import PipeChannel
from svc.worker.exchange import EndedJob, Exchange
from svc.worker.failure import Failure
from svc.worker.list_call import run_listed
from svc.worker.orders import NUDGE
from svc.worker.outbox import LeasedJobs
from svc.worker.runner import ResolvedTask, Runner
from svc.worker.slot import Phase, Slot

#: Bytes of arguments from which on a list takes no more jobs.
_LIST_BYTES: Final = 64 * 1024 * 1024


class Surroundings(NamedTuple):
    """The parts of a consumer that a list of jobs needs.

    Attributes:
        slot: shows the supervisor what runs.
        channel: takes the reports of jobs, and hears of cancels.
        capture: takes their output.
        line: the lock of the connection, held but for the call of the task.
        cleared: clears up after a task; returns False if the process has to be replaced.
    """

    slot: Slot
    channel: PipeChannel
    capture: Capture
    line: threading.Lock
    cleared: Callable[[ResolvedTask], bool]


class JobLists:
    """Lists of jobs, one after the other, until none is there to take, or a pill comes, or the worker stops.

    Attributes:
        pill: the pill that came meanwhile, or 0.
        seconds: the time in the task.
    """

    def __init__(
        self,
        exchange: Exchange,
        runner: Runner,
        task: ResolvedTask,
        around: Surroundings,
        busy_seconds: float,
    ) -> None:
        self.pill = 0
        self.seconds = 0.0
        self._exchange = exchange
        self._runner = runner
        self._batch, self._linger = task.batch or 1, task.linger
        self._around = around
        self._busy_seconds = busy_seconds
        self._pid = os.getpid()
        self._over = False
        #: The list that runs, its limits and its begin. At a cancel another thread shows another job of it.
        self._showing = threading.Lock()
        self._running: Sequence[LeasedJobs] = ()
        self._limits = AttemptLimits()
        self._began = 0.0
        self._shown: tuple[LeasedJobs, bool] | None = None

    def run(self, first: Delivery) -> None:
        """Run lists, the first of which begins with the job in *first*."""
        channel = self._around.channel
        channel.ordered = self._show_another
        try:
            waiting = [self._leased(first)]
            while waiting:
                self._gather(waiting)
                if self._exchange.stopping():
                    for leased in waiting:
                        self._exchange.give_back(leased.delivery, leased.delivery.first)
                    break
                self._run(waiting)
                waiting = [] if self._over or self.pill else self._take(self._batch, 0.0)
        finally:
            channel.ordered = None
        while self._exchange.outbox.content():
            self._exchange.turn()

    # --- before the call --------------------------------------------------------------------------------

    def _gather(self, waiting: list[LeasedJobs]) -> None:
        """Take more jobs, until the list is full, or has waited for its time, or other work comes first."""
        until = time.monotonic() + self._linger
        size = sum(len(leased.delivery.bodies[0]) for leased in waiting)
        while len(waiting) < self._batch and size < _LIST_BYTES:
            if self.pill or self._over or self._exchange.stopping():
                return
            came = self._take(self._batch - len(waiting), max(0.0, until - time.monotonic()))
            if not came:
                return
            waiting += came
            size += sum(len(leased.delivery.bodies[0]) for leased in came)

    def _take(self, limit: int, wait: float) -> list[LeasedJobs]:
        """Report outcomes and take up to *limit* jobs; wait for the first."""
        grant = self._exchange.turn(limit, wait) or Grant()
        self.pill = self.pill or grant.pill
        jobs: list[LeasedJobs] = []
        for delivery in grant.deliveries:
            if len(delivery.bodies) == 1 and delivery.terms.task == self._exchange.task:
                jobs.append(self._leased(delivery))
            else:  # an older manager does not know that jobs may have leases of their own
                self._over = True
                self._exchange.give_back(delivery, delivery.first)
        return jobs

    def _leased(self, delivery: Delivery) -> LeasedJobs:
        return LeasedJobs(delivery, self._runner.resolve(delivery.terms), time.monotonic())

    # --- the call ---------------------------------------------------------------------------------------

    def _run(self, waiting: Sequence[LeasedJobs]) -> None:
        """Run a list, without the jobs that were cancelled meanwhile, and take its outcomes."""
        cancelled = self._cancelled()
        jobs = [leased for leased in waiting if leased.delivery.token not in cancelled]
        for leased in waiting:
            if leased.delivery.token in cancelled:
                self._exchange.holdings.drop(leased.delivery.token, leased.delivery.first)
        if not jobs:
            return
        limits = _smallest([leased.task.limits for leased in jobs])
        channel, line, began = self._around.channel, self._around.line, time.monotonic()
        called = [
            (leased.task, context.begin(leased.delivery, limits.timeout, channel, listed=True))
            for leased in jobs
        ]
        for _, running in called:
            running.number, running.started = running.delivery.first, began
        self._show(jobs, limits, began)
        line.release()
        outcomes = run_listed(called)
        line.acquire()
        if os.getpid() != self._pid:
            os._exit(1)  # a fork that the task made came back here; the leases are its parent's
        self._around.slot.stay_if_doomed()
        self._settle(jobs, [running for _, running in called], outcomes)
        if not self._around.cleared(jobs[0].task):
            self._over = True

    def _settle(
        self, jobs: Sequence[LeasedJobs], ran: Sequence[context.Running], outcomes: Sequence[bytes | Failure]
    ) -> None:
        exchange, channel, ended = self._exchange, self._around.channel, time.monotonic()
        self.seconds += ended - self._began
        self._hide()
        cancelled = self._cancelled()
        for leased, running, outcome in zip(jobs, ran, outcomes, strict=True):
            token = leased.delivery.token
            context.end(running)
            found = None if token in cancelled else outcome
            exchange.settle(EndedJob(leased, found, self._began, ended), listed=True)
            if channel.used:
                channel.forget(token)
            while exchange.outbox.full:  # one message has to hold them all
                exchange.turn()
        exchange.log.end()

    # --- for the supervisor -----------------------------------------------------------------------------

    def _cancelled(self) -> set[int]:
        """Return the leases that were ordered to end, of the last that were."""
        return {token for token, _ in self._around.channel.last_cancelled()}

    def _show_another(self) -> None:
        """Take note of cancels; from the thread that hears the supervisor's orders."""
        with self._showing:
            if self._running:
                self._show_head()

    def _show(self, jobs: Sequence[LeasedJobs], limits: AttemptLimits, began: float) -> None:
        with self._showing:
            self._running, self._limits, self._began, self._shown = jobs, limits, began, None
            self._show_head()

    def _show_head(self) -> None:
        """Show the first job that is not cancelled, for all; if all are, one as if it ran alone.

        So the supervisor ends the call if nobody wants its outcomes any more, and only then.
        """
        cancelled = self._cancelled()
        head = next((leased for leased in self._running if leased.delivery.token not in cancelled), None)
        alone = head is None or len(self._running) == 1
        head = head or self._running[-1]
        if self._shown == (head, alone):
            return
        self._shown = head, alone
        slot, delivery, task = self._around.slot, head.delivery, head.task
        if slot.begin(delivery, delivery.token, task.policy, self._limits, task.names, any(self._limits)):
            self._around.channel.send(NUDGE)
        phase = Phase.BUSY if alone else Phase.LISTED
        slot.share(delivery.first, self._began, self._busy_seconds + self.seconds, phase)

    def _hide(self) -> None:
        """Show that no job runs; what they have written is that of the job that was shown."""
        with self._showing:
            self._running = ()
            if self._shown is not None:
                head = self._shown[0].delivery
                self._around.capture.settle(head, head.first)
            self._around.slot.rest(Phase.IDLE, self._busy_seconds + self.seconds, unsent=True)


def run_lists(
    exchange: Exchange,
    runner: Runner,
    deliveries: Sequence[Delivery],
    around: Surroundings,
    busy_seconds: float,
) -> tuple[int, float]:
    """Run lists, the first of which begins with the first job of a grant, whose other jobs go back.

    Return the pill that came meanwhile, or 0, and the seconds in the task.
    """
    exchange.keep_first(deliveries)
    lists = JobLists(exchange, runner, runner.resolve(deliveries[0].terms), around, busy_seconds)
    lists.run(deliveries[0])
    return lists.pill, lists.seconds


def _smallest(limits: Sequence[AttemptLimits]) -> AttemptLimits:
    """Return the limits of a list: the smallest of its jobs."""
    if len(set(limits)) == 1:
        return limits[0]
    found = []
    for values in zip(*limits, strict=True):
        some = [value for value in values if value is not None]
        found.append(min(some) if some else None)
    return AttemptLimits(*found)
