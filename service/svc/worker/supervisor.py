"""The supervisor: watches the consumers, replaces them, and handles the signals of the worker.

It has one thread with one loop, which waits until a consumer ends or sends a message, a signal comes, or time
is up. Then it checks every consumer once. It never waits for the manager: the reporter's thread does that.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Collection
from functools import partial
from multiprocessing import connection

import structlog

from svc.chance import CHANCE
from svc.domain.commands import Extend, Hello
from svc.domain.replies import Extended
from svc.errors import ConfigurationError, ServiceError
from svc.wire import PROTOCOL_VERSION
from svc.worker.consumer_exit import Killed
from svc.worker.consumer_pool import ConsumerPool, WorkerState
from svc.worker.consumer_process import ConsumerProcess
from svc.worker.job_reports import JobReports
from svc.worker.lifetime import Lifetime
from svc.worker.loaded_tasks import LoadedTasks
from svc.worker.options import ConfigureLogging, Connect, WorkerOptions
from svc.worker.orders import BROKEN, ENDING, NUDGE, READY, REJOIN, WORN
from svc.worker.output_reader import OutputReader
from svc.worker.recycling import Recycling
from svc.worker.reporter import Reporter
from svc.worker.signals import signals_to

#: Seconds between two checks: while a job has a timeout or others wait behind it, and otherwise.
_TICK_CLOSE, _TICK_FAR = 0.05, 1.0
#: Seconds without a turn of the loop after which it counts as hung; it makes at least one a second.
_HUNG_SECONDS = 5.0
#: Seconds that the last reports may take.
_LAST_REPORTS_SECONDS = 3.0


class Supervisor:
    """Runs one worker.

    Args:
        options: the settings of the worker.
        connect: makes a connection to the manager, here and, pickled, in each consumer.
        configure_logging: sets logging up in a consumer; picklable.
        started: called once, when the first consumer has loaded the tasks.
    """

    def __init__(
        self,
        options: WorkerOptions,
        connect: Connect,
        configure_logging: ConfigureLogging,
        started: Callable[[], None] = lambda: None,
    ) -> None:
        self._options = options
        self._started = started
        self._log = structlog.get_logger().bind(worker=options.name)
        self._outputs = OutputReader(options.output_bytes, self._output_came)
        self._consumer_pool = ConsumerPool(options, connect, configure_logging, self._wake, self._outputs)
        self._recycling = Recycling(options, self._consumer_pool, self._log)
        self._reporter = Reporter(
            connect,
            self._hello,
            self._extend,
            self._refuse,
            self._ask_to_rejoin,
            self._renewed,
            self._is_turning,
            options.manager,
        )
        self._reporter.carry(self._outputs)
        self._job_reports = JobReports(self._reporter, self._wake)
        self._turned_at = time.monotonic()
        self._lifetime = Lifetime(options, self._turned_at)
        self._tasks = LoadedTasks(options, self._log)
        self._stop_requests = 0
        self._reloads = False
        #: Consumers whose tasks have sent a stop signal.
        self._offenders: deque[str] = deque()
        self._stop_deadline: float | None = None
        self._fatal: ServiceError | None = None
        self._rejoining = False
        self._resumed = False
        #: The manager's last answer with orders, or without those of the one before.
        self._told = Extended()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)

    def run(self) -> int:
        """Run the worker until it is stopped or every consumer has had its pill; return the exit code 0.

        SIGTERM and SIGINT stop it if this is the process's main thread; the second signal stops it at once.
        SIGHUP has the tasks loaded again.

        Raises:
            AuthenticationFailed: the manager refused the authkey at the first connection.
            ProtocolMismatch: it speaks another version.
            ConfigurationError: the task modules cannot be loaded, a hook of the start failed, or there is no
                shared memory.
        """
        self._consumer_pool.require_shared_memory()
        self._outputs.start()
        with signals_to(self._signalled, self.reload), self._wake_reader, self._wake_writer:
            try:
                self._consumer_pool.fill_vacancies(time.monotonic())
                while not self._consumer_pool.gone:
                    ready = self._wait()
                    self._turn(time.monotonic(), ready)
            finally:
                self._finish()
        if self._fatal is not None:
            raise self._fatal
        return 0

    def stop(self) -> None:
        """Ask for an orderly end; the second call asks for a fast one. Safe in threads and in handlers."""
        self._stop_requests += 1
        if self._stop_requests > 1:
            self._consumer_pool.end_wait_for_forkserver()
        self._wake()

    def reload(self) -> None:
        """Load the tasks again, in new consumers that replace all others one by one. Thread-safe."""
        self._reloads = True
        self._wake()

    def _signalled(self, sender: int) -> None:
        """Stop, unless it was a task of this worker that asked for it; from the thread for signals."""
        consumer = self._consumer_pool.consumer_above(sender) if sender else ""
        if not consumer:
            self.stop()
            return
        self._offenders.append(consumer)
        self._wake()

    def snapshot(self) -> WorkerState:
        """Return the current state of the worker. Thread-safe."""
        consumers, busy_seconds = self._consumer_pool.count()
        return WorkerState(
            self._options,
            consumers,
            dict(self._consumer_pool.restarts),
            busy_seconds,
            self._reporter.reconnects,
            self._stop_deadline is not None,
            self._reporter.connected,
            self._outputs.dropped,
            self._reporter.round_trip,
        )

    # --- the loop -------------------------------------------------------------------------------------

    def _wait(self) -> Collection[object]:
        """Sleep until something happens or a check is due; return the waitables that became readable."""
        now = time.monotonic()
        children = self._consumer_pool.children
        closely = [child.watch(now, child.needs_watching(child.slot.look())) for child in children]
        times = [
            now + (_TICK_CLOSE if any(closely) else _TICK_FAR),
            self._consumer_pool.next_start(),
            self._recycling.next_look(now),
            self._stop_deadline,
            *(child.next_check(now) for child in children),
        ]
        pause = min(at for at in times if at is not None) - now
        waitables = [self._wake_reader, *(each for child in children for each in child.waitables())]
        ready = set(connection.wait(waitables, max(0.0, pause)))
        with contextlib.suppress(BlockingIOError):
            self._wake_reader.recv(4096)
        return ready

    def _turn(self, now: float, ready: Collection[object]) -> None:
        """Check every consumer once; *ready* are the waitables that became readable."""
        self._turned_at = now
        self._note_limit(now)
        if self._stop_requests and self._stop_deadline is None:
            self._begin_stop(now)
        rejoining, self._rejoining = self._rejoining, False
        told = self._told
        for child in list(self._consumer_pool.children):
            if rejoining:
                child.order(REJOIN)
            child.stacks.note(ready)
            ended = child.ended(ready)
            if ended or child.pipe in ready:
                child.read(partial(self._take_message, child, now))
            if ended:
                self._reap(child, now)
            else:
                child.obey(told, now)
                recall = child.check(now, self._options.grace, self._options.import_timeout)
                if recall is not None:
                    self._reporter.post(recall)
        self._job_reports.answer()
        while self._offenders:
            name = self._offenders.popleft()
            self._log.warning("stop_signal_refused", consumer=name, **self._consumer_pool.end_offender(name))
        if self._stop_deadline is not None and (now >= self._stop_deadline or self._stop_requests > 1):
            self._end_grace()
        if self._resumed and self._stop_deadline is None:
            self._refill(now)
        self._consumer_pool.fill_vacancies(now)
        self._begin_reload(now)
        self._recycling.turn(now)
        self._reporter.warn_of_silence(now)
        self._consumer_pool.end_stopped(now)
        self._consumer_pool.reap_orphans()

    def _note_limit(self, now: float) -> None:
        """Stop the worker if it has reached a limit of its own."""
        if not self._lifetime.bounded:
            return
        consumers, busy_seconds = self._consumer_pool.count()
        limit = self._lifetime.limit(now, consumers, busy_seconds, connected=self._reporter.connected)
        if limit and not self._stop_requests:
            self._log.info("worker_limit_reached", limit=limit)
            self._stop_requests += 1

    def _begin_reload(self, now: float) -> None:
        """Begin to replace all consumers, if that was asked for."""
        reloads, self._reloads = self._reloads, False
        if reloads and self._stop_deadline is None:
            self._log.info("worker_reloading", consumers=len(self._consumer_pool.children))
            self._consumer_pool.renew_forkserver()
            self._recycling.reload(now)
            self._tasks.reloading = True

    def _refill(self, now: float) -> None:
        """Replace the consumers that a drain has ended, if the drain was lifted before all had gone."""
        self._resumed = False
        places = self._consumer_pool.refill(now)
        if places:
            self._log.info("worker_resumed", consumers=places)

    def _take_message(self, child: ConsumerProcess, now: float, kind: bytes, body: bytes) -> bool:
        """Handle a message; return whether there is such a kind."""
        if self._job_reports.take(child, kind, body) or child.cancelled.take(kind, body, now):
            return True
        if kind == NUDGE:
            child.watch(now, needed=True)
        elif kind == WORN:
            self._recycling.note(child, body.decode())
        elif kind == ENDING:
            child.note_ending(now)
        elif kind == READY:
            child.began()
            if self._tasks.take(child.name, body.decode()):
                self._started()
                self._reporter.start()
        elif kind == BROKEN and not self._tasks.known:
            self._refuse(ConfigurationError(body.decode()))
        elif kind == BROKEN:
            self._log.error("tasks_not_loaded", consumer=child.name, error=body.decode())
        else:
            return False
        return True

    def _reap(self, child: ConsumerProcess, now: float) -> None:
        """Report the end of a consumer, and plan its replacement."""
        self._job_reports.forget(child.name)
        ended = self._consumer_pool.reap(child, now)
        self._consumer_pool.end_orphans(child.forkserver)
        self._reporter.post(*ended.reports(CHANCE.random()))
        stopping = self._stop_deadline is not None
        ended.log(self._log, child.pid, expected=self._fatal is not None, stopping=stopping)
        fault = self._tasks.fault(ended)
        if fault is not None:
            self._refuse(fault)
        settled = self._recycling.settle(child, ended)
        if self._stop_deadline is None and not (settled or ended.pilled) and self._fatal is None:
            self._consumer_pool.replace(ended)

    # --- the end --------------------------------------------------------------------------------------

    def _begin_stop(self, now: float) -> None:
        """Begin the shutdown.

        1. No consumer is replaced any more, and the manager is told that the worker takes no new jobs.
        2. Consumers get the order to stop: each finishes its job, gives back the jobs that it read ahead,
           reports and leaves. Meanwhile leases are renewed, and timeouts and crashes handled.
        3. When the grace is over (or at a second signal), consumers that still run are killed, and their jobs
           go back uncharged: `_end_grace`.
        4. The remaining reports are delivered, and the supervisor leaves: `_finish`.
        """
        grace = self._options.grace if self._fatal is None else 0.0
        self._stop_deadline = now + grace
        self._consumer_pool.close_vacancies()
        self._recycling.close()
        self._reporter.post(self._extend())
        for child in self._consumer_pool.children:
            child.stop()
        if self._began:
            # After the order, so that no consumer takes another job once this is read.
            self._log.info("worker_stopping", grace_s=grace, consumers=len(self._consumer_pool.children))

    def _end_grace(self) -> None:
        for child in self._consumer_pool.children:
            if child.killed is None:
                with child.slot.held():
                    child.kill(Killed.GRACE)

    def _finish(self) -> None:
        """Kill the remaining consumers, deliver the last reports, and log the end."""
        for child in self._consumer_pool.children:
            child.kill(Killed.GRACE)
        self._outputs.finish()
        self._reporter.close(_LAST_REPORTS_SECONDS)
        if self._stop_deadline is None and self._fatal is None and self._consumer_pool.gone:
            self._log.info("worker_drained", consumers=self._consumer_pool.pilled)
        elif self._began:
            self._log.info("worker_stopped")

    @property
    def _began(self) -> bool:
        """Whether there is more to log of its end than the reason why it can never work."""
        return self._fatal is None or self._tasks.known

    def _wake(self) -> None:
        """End the wait of the loop."""
        with contextlib.suppress(OSError):
            self._wake_writer.send(b"!")

    def _output_came(self) -> None:
        """Have new output of tasks sent; the thread that reads it calls this."""
        self._reporter.output_came()

    def _ask_to_rejoin(self) -> None:
        """Let busy consumers notice that the manager was away; the reporter's thread calls this.

        A restarted manager knows no leases; it hands out the jobs again unless their holders claim them in
        time.
        """
        self._rejoining = True
        self._wake()

    def _renewed(self, reply: Extended) -> None:
        """Note that a drain has ended, and the orders; the reporter's thread calls this."""
        if self._consumer_pool.drained and not reply.drain:
            self._resumed = True
            self._wake()
        if reply.stops or self._told.stops or reply.take_back:
            self._told = reply
            self._wake()

    def _refuse(self, error: ServiceError) -> None:
        """End because this worker can never work; the reporter's thread calls this too."""
        self._fatal = self._fatal or error
        self.stop()

    def _is_turning(self) -> bool:
        """Return whether the loop ran recently: if it hangs, it must not keep jobs from other workers."""
        return time.monotonic() - self._turned_at < _HUNG_SECONDS

    # --- messages to the manager ----------------------------------------------------------------------

    def _hello(self) -> Hello:
        options = self._options
        return Hello(
            PROTOCOL_VERSION,
            "worker",
            options.name,
            options.name,
            options.host,
            os.getpid(),
            self._tasks.names,
            list(options.queues),
            http=options.http,
            release=options.release,
            life=options.life,
        )

    def _extend(self) -> Extend:
        consumers, _ = self._consumer_pool.count()
        restarts = sum(self._consumer_pool.restarts.values())
        stopping = self._stop_deadline is not None
        return Extend(
            consumers["busy"],
            consumers["idle"],
            consumers["starting"],
            restarts,
            stopping,
            self._consumer_pool.names(),
            told=True,
            round_trip=self._reporter.round_trip,
            claims=self._consumer_pool.claims() if self._reporter.claims_due else [],
            takes_back=True,
        )
