"""Runs many jobs of one task at once in a consumer: coroutines on its event loop.

The main thread runs the loop. A thread of its own exchanges outcomes for jobs with the manager, so the loop
never waits for that. Each job has a lease and a timeout of its own, and ends by itself. The slot shows the
job whose time is over first: if the loop is blocked, the supervisor ends the consumer for that job.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from svc.domain.job import Cause, ErrorInfo
from svc.domain.replies import Delivery
from svc.worker import context
from svc.worker.attempt_limits import AttemptLimits
from svc.worker.capture import Capture
from svc.worker.channel import PipeChannel
from svc.worker.coroutines import CANCEL_SECONDS, STUCK, TaskLoop, end_all, stack_of
from svc.worker.deadlines import Deadlines
from svc.worker.exchange import EndedJob, Exchange
from svc.worker.failure import Failure
from svc.worker.orders import NUDGE
from svc.worker.outbox import LeasedJobs
from svc.worker.runner import Runner
from svc.worker.slot import Phase, Slot

#: Seconds that a job may take to end once it was cancelled for its timeout. It has failed by then.
_LAST_SECONDS = 0.2
#: Seconds beyond a timeout after which the supervisor ends the consumer, because its loop is blocked.
SUPERVISOR_SECONDS = 0.3
#: Seconds for which a request for more jobs waits while others run, and while it was answered with none.
_WAIT, _PAUSE = 1.0, 0.05


@dataclass(eq=False, slots=True)
class _RunningJob:
    """A job that runs, and all that it has begun."""

    leased: LeasedJobs
    started: float
    running: context.Running
    task: asyncio.Task[Any] | None = None
    begun: weakref.WeakSet[asyncio.Task[Any]] = field(default_factory=weakref.WeakSet)
    generators: weakref.WeakSet[AsyncGenerator[Any, Any]] = field(default_factory=weakref.WeakSet)
    #: They hold the job, and its arguments, until they are cancelled or called.
    timers: list[asyncio.TimerHandle] = field(default_factory=list)
    #: Whether its soft timeout is over, and whether its timeout is.
    asked: bool = False
    late: bool = False
    #: Whether its job is cancelled, and whether its outcome is told.
    cancelled: bool = False
    told: bool = False


#: Set once all jobs are reported: to None, or to the error that ended them.
_Over = asyncio.Future[BaseException | None]
#: The attempt to which the code that runs belongs.
_owner: contextvars.ContextVar[_RunningJob | None] = contextvars.ContextVar("svc_attempt", default=None)


class SideBySide:
    """Up to *limit* jobs of one task, until none is left, or a pill comes, or the worker stops.

    Attributes:
        pill: the pill that came meanwhile, or 0.
    """

    def __init__(
        self,
        loop: TaskLoop,
        exchange: Exchange,
        slot: Slot,
        limit: int,
        lease: Callable[[Delivery], LeasedJobs],
        channel: PipeChannel,
        busy_seconds: float,
        capture: Capture,
    ) -> None:
        self.pill = 0
        self._tasks = loop
        self._exchange = exchange
        self._slot = slot
        self._limit, self._lease = limit, lease
        self._alone = False
        self._channel = channel
        self._busy_seconds = busy_seconds
        self._capture = capture
        self._pid = os.getpid()
        self._context = contextvars.copy_context()
        self._running = Deadlines[_RunningJob]()
        self._shown: tuple[_RunningJob, bool] | None = None
        #: Between the two threads: jobs that have ended, whether the other thread waits, and a bell for it.
        self._ended: deque[EndedJob] = deque()
        self._waits = False
        self._bell = threading.Event()

    def run(self, first: Sequence[Delivery]) -> None:
        """Run the *first* jobs, and others that come; return when all have ended and are reported."""
        loop = self._tasks.opened()
        # A task would be cancelled by a job that cancels all of them.
        over: _Over = loop.create_future()
        before = loop.get_task_factory()
        self._channel.ordered = partial(loop.call_soon_threadsafe, self._obey)
        self._capture.begin_beside()
        loop.set_task_factory(_owned)  # type: ignore[arg-type]  # the type names no options
        loop.call_soon(_note_generators)
        loop.call_soon(self._start, first, over)
        try:
            while not over.done():
                try:
                    loop.run_until_complete(over)
                except BaseException as error:  # the `SystemExit` of an asyncio task, or `loop.stop`
                    if over.done():
                        raise
                    told = {"message": "the loop was ended by a job", "exception": error}
                    loop.call_exception_handler(told)
                    loop.call_soon(_note_generators)
        finally:
            self._channel.ordered = None
            self._capture.end_beside()
            loop.set_task_factory(before)
        if (fault := over.result()) is not None:
            raise fault

    def _start(self, first: Sequence[Delivery], over: _Over) -> None:
        try:
            self._obey()  # orders that came before: nothing runs under them
            self._begin_all(first)
            args = (len(first), over)
            threading.Thread(target=self._exchange_all, args=args, name="exchange", daemon=True).start()
        except BaseException as error:  # noqa: BLE001 - raised by `run`
            over.set_result(error)

    # --- on the loop --------------------------------------------------------------------------------------

    def _begin(self, delivery: Delivery) -> _RunningJob:
        leased = self._lease(delivery)
        task, started = leased.task, time.monotonic()
        timeout, soft_timeout = task.limits.timeout, task.limits.soft_timeout
        running = context.begin(delivery, timeout, self._channel)
        running.number, running.started = delivery.first, started
        attempt = _RunningJob(leased, started, running)
        self._running.add(attempt, started + timeout if timeout else float("inf"))
        loop = asyncio.get_running_loop()
        attempt.task = loop.create_task(self._attempt(attempt))
        if timeout:
            attempt.timers.append(loop.call_later(timeout, self._time_is_over, attempt))
        if soft_timeout:
            attempt.timers.append(loop.call_later(soft_timeout, self._ask_to_end, attempt))
        self._show()
        return attempt

    async def _attempt(self, attempt: _RunningJob) -> None:
        """Run one job, then end all that it has begun."""
        _owner.set(attempt)
        delivery = attempt.leased.delivery
        context.set_current((attempt.running, delivery.first))
        result = await attempt.leased.task.run_beside(delivery.bodies[0], delivery.origin, delivery.first)
        if os.getpid() != self._pid:
            os._exit(1)  # a fork that the job made came back here; the leases are its parent's
        await self._clear(attempt)
        self._tell(attempt, _outcome(attempt, result))

    async def _clear(self, attempt: _RunningJob) -> None:
        left = {task for task in attempt.begun if not task.done()}
        if not (left or attempt.generators):
            return
        _owner.set(None)
        if await end_all(left, attempt.generators, CANCEL_SECONDS):
            self._leave()

    def _ask_to_end(self, attempt: _RunningJob) -> None:
        if attempt.task is not None and not (attempt.told or attempt.late):
            attempt.asked = True
            attempt.task.cancel()

    def _obey(self) -> None:
        """Cancel the jobs that the supervisor has ordered to end, and tell it of those that do not run."""
        running = {attempt.leased.delivery.token: attempt for attempt in self._running}
        for token, number, grace in self._channel.take_end_orders():
            if token in running:
                self._cancel(running[token], grace)
            else:
                self._channel.over(token, number)

    def _cancel(self, attempt: _RunningJob, grace: float) -> None:
        if attempt.task is not None and not attempt.cancelled:
            attempt.cancelled = True
            attempt.task.cancel()
            asyncio.get_running_loop().call_later(grace, self._abandon, attempt)

    def _time_is_over(self, attempt: _RunningJob) -> None:
        if attempt.task is not None and not attempt.told:
            attempt.late = True
            attempt.task.cancel()
            asyncio.get_running_loop().call_later(_LAST_SECONDS, self._abandon, attempt)

    def _abandon(self, attempt: _RunningJob) -> None:
        """Tell the outcome of a job that was cancelled, and goes on; the consumer leaves after the others."""
        if not attempt.told:
            if attempt.task is not None and not attempt.task.done():
                self._leave()
            self._tell(attempt, _timed_out(attempt, stack_of(attempt.task)))

    def _leave(self) -> None:
        if STUCK not in self._tasks.changes:
            self._tasks.changes.append(STUCK)

    def _tell(self, attempt: _RunningJob, result: bytes | Failure) -> None:
        if attempt.told:
            return
        if not attempt.late:
            self._slot.stay_if_doomed()
        attempt.told = True
        outcome = None if attempt.cancelled else result
        self._running.remove(attempt)
        for timer in attempt.timers:
            timer.cancel()
        delivery = attempt.leased.delivery
        context.end(attempt.running)
        self._capture.ended(delivery, delivery.first)
        self._ended.append(EndedJob(attempt.leased, outcome, attempt.started, time.monotonic()))
        self._show()
        if attempt.cancelled:
            self._channel.over(delivery.token, delivery.first)
        self._bell.set()
        if self._waits:
            self._waits = False
            self._exchange.broker.wake()

    def _show(self) -> None:
        """Show the supervisor the job whose time is over first."""
        attempt, alone = self._running.first(), len(self._running) == 1
        if attempt is None:
            self._shown = None
            self._slot.rest(Phase.IDLE, self._busy_seconds, unsent=True)
            return
        if self._shown == (attempt, alone):
            return
        self._shown = (attempt, alone)
        delivery, task = attempt.leased.delivery, attempt.leased.task
        limits = AttemptLimits(task.limits.timeout)
        if self._slot.begin(delivery, delivery.token, task.policy, limits, task.names, any(limits)):
            self._channel.send(NUDGE)
        # So much later the supervisor finds that its time is over: until then that is seen to here.
        started = attempt.started + (SUPERVISOR_SECONDS if limits.timeout else 0.0)
        self._slot.share(delivery.first, started, self._busy_seconds, Phase.BUSY if alone else Phase.SHARED)

    # --- in the thread for the connection -----------------------------------------------------------------

    def _exchange_all(self, held: int, over: _Over) -> None:
        loop, error = over.get_loop(), None
        try:
            self._exchange_until_none(held, loop)
        except BaseException as found:  # noqa: BLE001 - raised in the main thread
            error = found
        loop.call_soon_threadsafe(over.set_result, error)

    def _exchange_until_none(self, held: int, loop: asyncio.AbstractEventLoop) -> None:
        """Report outcomes and take more jobs, until none runs and there is none to take."""
        more = True
        while True:
            self._bell.clear()
            held -= self._collect()
            more = more and not (self._exchange.stopping() or self._tasks.changes or self.pill or self._alone)
            if not (more or held):
                break
            if self._exchange.outbox.full:
                self._exchange.turn()
                continue
            if not more or held >= self._limit:
                self._exchange.turn()
                self._bell.wait(_WAIT)
                continue
            came = self._take(held, loop)
            if came is None:
                continue
            held += came
            if not came and not held:
                break
            if not came:
                self._bell.wait(_PAUSE)
        while self._exchange.outbox.content():
            self._exchange.turn()

    def _collect(self) -> int:
        count = 0
        while self._ended:
            ended = self._ended.popleft()
            self._exchange.settle(ended)
            if self._channel.used:
                self._channel.forget(ended.leased.delivery.token)
            count += 1
        return count

    def _take(self, held: int, loop: asyncio.AbstractEventLoop) -> int | None:
        """Take more jobs; return how many have begun, or None if it is not known whether there are any."""
        self._waits = held > 0
        # One that has ended in between has seen nobody wait.
        grant = self._exchange.turn(self._limit - held, 0.0 if self._ended or not held else _WAIT)
        self._waits = False
        if grant is None:
            return None if held else 0
        self.pill = grant.pill
        task = self._exchange.task
        jobs = [each for each in grant.deliveries if len(each.bodies) == 1 and each.terms.task == task]
        if len(jobs) < len(grant.deliveries):
            self._alone = True  # an older manager does not know that jobs may run beside others
            for other in grant.deliveries:
                if other not in jobs:
                    self._exchange.give_back(other, other.first)
        if jobs:
            loop.call_soon_threadsafe(self._begin_all, jobs, context=self._context)
        return len(jobs)

    def _begin_all(self, deliveries: Sequence[Delivery]) -> None:
        cancelled = dict(self._channel.last_cancelled())
        for delivery in deliveries:
            attempt = self._begin(delivery)
            if delivery.token in cancelled:  # the order has overtaken the job
                self._cancel(attempt, cancelled[delivery.token])


def run_round(
    exchange: Exchange,
    slot: Slot,
    runner: Runner,
    deliveries: Sequence[Delivery],
    channel: PipeChannel,
    busy_seconds: float,
    capture: Capture,
) -> tuple[int, float]:
    """Run jobs side by side, beginning with the first one of a grant, whose other jobs go back.

    Return the pill that came meanwhile, or 0, and the seconds that it took.
    """

    def lease(delivery: Delivery) -> LeasedJobs:
        return LeasedJobs(delivery, runner.resolve(delivery.terms), time.monotonic())

    began, task = time.monotonic(), runner.resolve(deliveries[0].terms)
    exchange.keep_first(deliveries)
    jobs = SideBySide(
        task.coroutines.loop, exchange, slot, task.concurrency, lease, channel, busy_seconds, capture
    )
    jobs.run(deliveries[:1])
    return jobs.pill, time.monotonic() - began


def _outcome(attempt: _RunningJob, result: bytes | Failure) -> bytes | Failure:
    """Return the outcome of an attempt that has ended with *result*, perhaps because its time was over."""
    if attempt.late:
        return _timed_out(attempt, result.error.traceback if isinstance(result, Failure) else "")
    if attempt.asked and isinstance(result, Failure) and result.error.type == "CancelledError":
        seconds = attempt.leased.task.limits.soft_timeout
        text = f"it ran over its soft timeout of {seconds or 0:g} s and was cancelled"
        error = ErrorInfo("SoftTimeout", text, result.error.traceback)
        return Failure(error, Cause.TIMED_OUT, permanent=False)
    return result


def _timed_out(attempt: _RunningJob, stack: str) -> Failure:
    text = f"it ran over its timeout of {attempt.leased.task.limits.timeout or 0:g} s and was cancelled"
    return Failure(ErrorInfo("TimedOut", text, stack), Cause.TIMED_OUT, permanent=False)


def _owned(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
) -> asyncio.Task[Any]:
    """Make an asyncio task, and note the job that has begun it."""
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
    attempt = _owner.get()
    if attempt is not None:
        attempt.begun.add(task)
    return task


def _note_generators() -> None:
    """Note the job that has begun an asynchronous generator; the loop puts the hooks back when it ends."""
    before = sys.get_asyncgen_hooks()

    def begun(generator: AsyncGenerator[Any, Any]) -> None:
        attempt = _owner.get()
        if attempt is not None:
            attempt.generators.add(generator)
        if before.firstiter is not None:
            before.firstiter(generator)

    sys.set_asyncgen_hooks(firstiter=begun)
