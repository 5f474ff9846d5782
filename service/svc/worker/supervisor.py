"""The supervisor: watches the consumers, replaces them, and handles the signals of the worker.

It has one thread with one loop, which waits until a consumer ends or sends a message, a signal comes, or time
is up. Then it checks every consumer once. It never waits for the manager: the reporter's thread does that.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import time
from collections import deque
from multiprocessing import connection

import structlog

from svc.domain.commands import Extend, Hello, Recall
from svc.errors import ConfigurationError, ServiceError
from svc.wire import PROTOCOL_VERSION
from svc.worker.child import LONG_SECONDS, Child
from svc.worker.consumer_exit import Ending, Killed
from svc.worker.consumer_pool import ConsumerPool, WorkerSnapshot
from svc.worker.offspring import adopts_orphans, end_descendants
from svc.worker.options import ConfigureLogging, Connect, WorkerOptions
from svc.worker.orders import BROKEN, NUDGE, READY
from svc.worker.process import describe_exit, forkserver_pid, helper_pids, reap_strangers
from svc.worker.reporter import Reporter
from svc.worker.signals import stop_signals_to

#: Seconds between two checks: while a job has a timeout or others wait behind it, and otherwise.
_TICK_CLOSE, _TICK_FAR = 0.05, 1.0
#: Seconds without a turn of the loop after which it counts as hung; it makes at least one a second.
_HUNG_SECONDS = 5.0
#: Consumers that may end while they import the task modules, before any consumer has finished that.
_STILLBORN_MAX = 3
#: Seconds that the last reports may take.
_FAREWELL_SECONDS = 3.0


class Supervisor:
    """Runs one worker.

    Args:
        options: the settings of the worker.
        connect: makes a connection to the manager, here and, pickled, in each consumer.
        configure_logging: sets logging up in a consumer; picklable.
    """

    def __init__(self, options: WorkerOptions, connect: Connect, configure_logging: ConfigureLogging) -> None:
        self._options = options
        self._log = structlog.get_logger().bind(worker=options.name)
        self._consumer_pool = ConsumerPool(options, connect, configure_logging)
        self._reporter = Reporter(
            connect,
            self._hello,
            self._extend,
            self._refuse,
            self._ask_to_rejoin,
            self._renewed,
            self._turns,
            options.manager,
        )
        self._turned_at = time.monotonic()
        self._adopts_orphans = adopts_orphans()
        self._tasks: list[str] | None = None
        self._stop_requests = 0
        #: Consumers whose tasks have sent a stop signal.
        self._offenders: deque[str] = deque()
        self._stop_deadline: float | None = None
        self._fatal: ServiceError | None = None
        self._rejoining = False
        self._resumed = False
        self._stillborn = 0
        self._alarm, self._bell = socket.socketpair()
        self._alarm.setblocking(False)
        self._bell.setblocking(False)

    def run(self) -> int:
        """Run the worker until it is stopped or every consumer has had its pill; return the exit code 0.

        SIGTERM and SIGINT stop it if this is the process's main thread; the second signal stops it at once.

        Raises:
            AuthenticationFailed: the manager refused the authkey at the first connection.
            ProtocolMismatch: it speaks another version.
            ConfigurationError: the task modules cannot be loaded, or there is no shared memory.
        """
        self._consumer_pool.require_shared_memory()
        with stop_signals_to(self._signalled), self._alarm, self._bell:
            try:
                self._consumer_pool.fill_vacancies(time.monotonic())
                while not self._consumer_pool.gone:
                    self._wait()
                    self._turn(time.monotonic())
            finally:
                self._farewell()
        if self._fatal is not None:
            raise self._fatal
        return 0

    def stop(self) -> None:
        """Ask for an orderly end; the second call asks for a fast one. Safe in threads and in handlers."""
        self._stop_requests += 1
        self._ring()

    def _signalled(self, sender: int) -> None:
        """Stop, unless it was a task of this worker that asked for it; from the thread for signals."""
        consumer = self._consumer_pool.consumer_above(sender) if sender else ""
        if not consumer:
            self.stop()
            return
        self._offenders.append(consumer)
        self._ring()

    def snapshot(self) -> WorkerSnapshot:
        """Return the current state of the worker. Thread-safe."""
        consumers, busy_seconds = self._consumer_pool.count()
        return WorkerSnapshot(
            self._options.name,
            self._options.host,
            self._options.start_method,
            consumers,
            dict(self._consumer_pool.restarts),
            busy_seconds,
            self._options.cpu,
            self._reporter.reconnects,
            self._stop_deadline is not None,
            self._reporter.connected,
        )

    # --- the loop -------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Sleep until something happens or a check is due."""
        now = time.monotonic()
        children = self._consumer_pool.children
        closely = [child.watch(now, child.needs_watching(child.slot.look())) for child in children]
        times = [
            now + (_TICK_CLOSE if any(closely) else _TICK_FAR),
            self._consumer_pool.next_start(),
            self._stop_deadline,
        ]
        pause = min(at for at in times if at is not None) - now
        waitables = [self._alarm, *(each for child in children for each in child.waitables())]
        connection.wait(waitables, max(0.0, pause))
        with contextlib.suppress(BlockingIOError):
            self._alarm.recv(4096)

    def _turn(self, now: float) -> None:
        """Check every consumer once."""
        self._turned_at = now
        if self._stop_requests and self._stop_deadline is None:
            self._begin_stop(now)
        rejoining, self._rejoining = self._rejoining, False
        for child in list(self._consumer_pool.children):
            if rejoining:
                child.rejoin()
            ended = child.ended()
            self._hear(child, now)
            if ended:
                self._bury(child, now)
            else:
                self._oversee(child, now)
        while self._offenders:
            self._end_offender(self._offenders.popleft())
        if self._stop_deadline is not None and (now >= self._stop_deadline or self._stop_requests > 1):
            self._end_grace()
        if self._resumed:
            self._refill(now)
        self._consumer_pool.fill_vacancies(now)
        self._reporter.complain_of_silence(now)
        if self._adopts_orphans:
            reap_strangers(self._own_pids())

    def _refill(self, now: float) -> None:
        """Replace the consumers that a drain has ended, if the drain was lifted before all had gone."""
        self._resumed = False
        places = self._consumer_pool.refill(now)
        if places:
            self._log.info("worker_resumed", consumers=places)

    def _hear(self, child: Child, now: float) -> None:
        """Handle the messages of a consumer."""
        for message in child.messages():
            kind, text = message[:1], message[1:].decode()
            if kind == NUDGE:
                child.watch(now, needed=True)
            elif kind == READY:
                self._loaded(text.split("\n"))
            elif kind == BROKEN and self._tasks is None:
                self._refuse(ConfigurationError(text))
            elif kind == BROKEN:
                self._log.error("tasks_not_loaded", consumer=child.name, error=text)

    def _loaded(self, names: list[str]) -> None:
        """Join the manager as soon as the first consumer knows the tasks of this worker."""
        if self._tasks is not None:
            return
        self._tasks = names
        self._reporter.start()
        cpu = self._options.cpu
        self._log.info(
            "worker_started",
            consumers=self._options.consumers,
            cpu=cpu.count,
            cpu_source=cpu.source,
            tasks=len(names),
        )

    def _end_offender(self, name: str) -> None:
        """End a consumer whose task has told the worker to stop: that is for operators."""
        self._log.warning("stop_signal_refused", consumer=name)
        for child in self._consumer_pool.children:
            if child.name == name:
                with child.slot.held():
                    if child.slot.peek().busy:
                        child.kill(Killed.OFFENDED)

    def _oversee(self, child: Child, now: float) -> None:
        """Act on the state of the job that a consumer executes."""
        look = child.slot.look()
        if look.overrun(now):
            child.kill_overrun(now)
        elif look.busy and now - look.started >= LONG_SECONDS:
            child.flush(look)
            taken = child.take_back(now) if look.ahead else None
            if taken is not None:
                self._reporter.post(Recall(child.name, taken.token, taken.number, taken.last))
        elif child.lingers(look, now, self._options.grace):
            child.kill(Killed.LINGERED)
        elif child.hangs(look, now, self._options.import_timeout):
            child.kill(Killed.HUNG)

    def _bury(self, child: Child, now: float) -> None:
        """Report the end of a consumer, and plan its replacement."""
        ending = self._consumer_pool.bury(child, now)
        self._end_orphans(child.forkserver)
        self._reporter.post(*ending.reports(random.random()))
        self._log_attempt(ending)
        if ending.orderly:
            self._log.info("consumer_left", consumer=child.name, pilled=ending.pilled)
        elif ending.killed is not None:
            self._log.warning(
                "consumer_killed", consumer=child.name, pid=child.pid, reason=ending.killed.value
            )
        elif self._fatal is None:
            self._log.warning(
                "consumer_died",
                consumer=child.name,
                pid=child.pid,
                cause=ending.error.message,
                executing=ending.look.busy,
            )
        self._note_start(ending)
        if self._stop_deadline is None and not ending.pilled and self._fatal is None:
            self._consumer_pool.replace(ending)

    def _log_attempt(self, ending: Ending) -> None:
        """Write the log record of an attempt whose consumer cannot write it any more."""
        look = ending.look
        if look.busy:
            self._log.warning(
                "attempt_finished",
                consumer=ending.consumer,
                job_id=look.job_id,
                task=look.task,
                queue=look.queue,
                attempt=look.attempt,
                outcome=ending.outcome,
                run_s=round(ending.seconds, 6),
                error_type=ending.error.type,
                error=ending.error.message,
            )

    def _note_start(self, ending: Ending) -> None:
        """Give up if no consumer ever finishes the import of the task modules."""
        if not ending.stillborn or self._tasks is not None:
            return
        self._stillborn += 1
        if self._stillborn < _STILLBORN_MAX:
            return
        modules = ", ".join(self._options.tasks) or "none"
        how = describe_exit(ending.code)
        if ending.killed is Killed.HUNG:
            how = f"it took longer than {self._options.import_timeout:g} s"
        said = f"the process that imports the task modules ({modules}) ends each time: {how}"
        self._refuse(ConfigurationError("\n".join(filter(None, (said, ending.trace)))))

    def _end_orphans(self, forkserver: int) -> None:
        """End processes whose consumer is gone: their parent is now the forkserver, or this process."""
        if forkserver and forkserver == forkserver_pid():
            end_descendants(forkserver, spare={child.pid for child in self._consumer_pool.children})
        if self._adopts_orphans:
            end_descendants(os.getpid(), spare=self._own_pids())

    def _own_pids(self) -> set[int]:
        return helper_pids() | {child.pid for child in self._consumer_pool.children}

    # --- the end --------------------------------------------------------------------------------------

    def _begin_stop(self, now: float) -> None:
        """Begin the shutdown.

        1. No consumer is replaced any more, and the manager is told that the worker takes no new jobs.
        2. Consumers get the order to stop: each finishes its job, gives back the jobs that it read ahead,
           reports and leaves. Meanwhile leases are renewed, and timeouts and crashes handled.
        3. When the grace is over (or at a second signal), consumers that still run are killed, and their jobs
           go back uncharged: `_end_grace`.
        4. The remaining reports are delivered, and the supervisor leaves: `_farewell`.
        """
        grace = self._options.grace if self._fatal is None else 0.0
        self._stop_deadline = now + grace
        self._consumer_pool.close_vacancies()
        self._log.info("worker_stopping", grace_s=grace, consumers=len(self._consumer_pool.children))
        self._reporter.post(self._extend())
        for child in self._consumer_pool.children:
            child.stop()

    def _end_grace(self) -> None:
        for child in self._consumer_pool.children:
            if child.killed is None:
                with child.slot.held():
                    child.kill(Killed.GRACE)

    def _farewell(self) -> None:
        """Kill the remaining consumers, deliver the last reports, and log the end."""
        for child in self._consumer_pool.children:
            child.kill(Killed.GRACE)
        self._reporter.close(_FAREWELL_SECONDS)
        if self._stop_deadline is None and self._consumer_pool.gone:
            self._log.info("worker_drained", consumers=self._consumer_pool.pilled)
        else:
            self._log.info("worker_stopped")

    def _ring(self) -> None:
        """End the wait of the loop."""
        with contextlib.suppress(OSError):
            self._bell.send(b"!")

    def _ask_to_rejoin(self) -> None:
        """Let busy consumers notice that the manager was away; the reporter's thread calls this.

        A restarted manager knows no leases; it hands out the jobs again unless their holders claim them in
        time.
        """
        self._rejoining = True
        self._ring()

    def _renewed(self, draining: bool) -> None:
        """Note that a drain has ended; the reporter's thread calls this."""
        if self._consumer_pool.drained and not draining:
            self._resumed = True
            self._ring()

    def _refuse(self, error: ServiceError) -> None:
        """End because this worker can never work; the reporter's thread calls this too."""
        self._fatal = self._fatal or error
        self.stop()

    def _turns(self) -> bool:
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
            self._tasks or [],
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
        )
