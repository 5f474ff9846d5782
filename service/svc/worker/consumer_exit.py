"""The consequences of a consumer's exit: the charge, the reports to the manager, and the replacement."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from svc.broker.base import Report
from svc.domain.commands import Lost, Nack, Release
from svc.domain.job import SHELL, Cause, ErrorInfo
from svc.domain.retry import RetryPolicy, growing
from svc.worker.attempt_limits import SPARE_SECONDS
from svc.worker.process import describe_exit
from svc.worker.slot import Phase, SlotState

#: Exit code of a consumer whose task modules cannot be loaded.
EXIT_CONFIGURATION = 78
#: Exit code of a consumer whose own descriptors a task has closed: only this can still tell of it.
EXIT_CLOSED = 74
#: Exit code of a consumer that can open no descriptor, and so cannot reach the manager any more.
EXIT_NO_DESCRIPTORS = 71
#: Seconds before a consumer that could not start is replaced; doubled each time in a row.
_START_PAUSE, _START_PAUSE_MAX = 0.5, 30.0
#: Seconds before a consumer that died without a job is replaced.
_IDLE_PAUSE = 1.0


class Killed(enum.Enum):
    """The reason why a consumer was killed by the supervisor, or died with its forkserver."""

    #: Its job ran over its timeout.
    TIMED_OUT = "timed_out"
    #: The worker's grace was over.
    GRACE = "grace"
    #: It was ordered to leave, had nothing more to do, and was still there.
    LINGERED = "lingered"
    #: The forkserver ended, and its consumers with it.
    ORPHANED = "orphaned"
    #: It took too long to import the task modules.
    HUNG = "hung"
    #: Its job took more memory than it may.
    MEMORY = "memory"
    #: Its job was cancelled and did not end within the grace.
    CANCELLED = "cancelled"
    #: Its job sent the worker a signal to stop.
    OFFENDED = "offended"
    #: A task has written into the memory that it shares with its supervisor, or into the pipe to it.
    DAMAGED = "damaged"


#: Ends for which the job that executed is charged with a crash.
_AT_FAULT = (None, Killed.OFFENDED, Killed.DAMAGED)
#: Kills that belong to the usual stop of a worker.
_AT_A_STOP = (Killed.GRACE, Killed.ORPHANED)
_WHY = {Killed.ORPHANED: "the worker's forkserver ended, and all its consumers with it"}
_OFFENDED = "the task sent its worker a signal to stop, and was killed for that"
_ADVICE = {
    EXIT_CLOSED: ", as its pipes and connections were closed; "
    "a task may close only descriptors that it has opened itself",
    EXIT_NO_DESCRIPTORS: ", as it could open no more descriptors; "
    "a task has to close those that it opens, and may not lower RLIMIT_NOFILE",
}
_DAMAGED = "a task wrote to descriptors that are not its own, and its consumer was killed for that"
_UNTOLD = ErrorInfo("Interrupted", "the worker stopped while the manager was away")
_AT_THE_END = "the worker stopped, and killed it when the grace was over"


class ReplacementReason(enum.StrEnum):
    """The reason why a consumer was replaced."""

    #: It died while a job executed.
    CRASHED = "crashed"
    #: The supervisor killed it for a job's timeout.
    TIMED_OUT = "timed_out"
    #: The supervisor killed it because a job took more memory than it may.
    MEMORY = "memory"
    #: The supervisor killed it because a cancelled job did not end.
    CANCELLED = "cancelled"
    #: It died without a job, or together with the forkserver.
    LOST = "lost"
    #: It could not start.
    OTHER = "other"
    #: It left because a task had changed its process in a way that cannot be undone.
    RENEWED = "renewed"
    #: It was worn, and left when its successor was ready.
    RECYCLED = "recycled"


#: Ends by which the job that executed has failed, and the causes of that.
_CAUSES = {Killed.TIMED_OUT: Cause.TIMED_OUT, Killed.MEMORY: Cause.FAILED}
_REASONS = {
    Killed.TIMED_OUT: ReplacementReason.TIMED_OUT,
    Killed.MEMORY: ReplacementReason.MEMORY,
    Killed.CANCELLED: ReplacementReason.CANCELLED,
}
#: Phases of a consumer that leaves by itself, beside those after a pill.
_LEAVING = (Phase.STOPPING, Phase.UNTOLD, Phase.RENEWING)
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class ConsumerExit:
    """The end of a consumer.

    Attributes:
        consumer: its name.
        code: its exit code; a negative one is the number of a signal.
        look: the last look at its slot.
        killed: the reason if the supervisor or the end of the forkserver killed it; else None.
        at: monotonic time in seconds.
        stacks: its stacks at a fatal signal or at the timeout of its job; empty if it has written none.
        peak: the most memory in bytes that was seen of the job that executed, if any was.
        cancelled: whether the job that executed is cancelled, so that the manager has nothing to hear of it.
    """

    consumer: str
    code: int
    look: SlotState
    killed: Killed | None
    at: float
    stacks: str = ""
    peak: int = 0
    cancelled: bool = False

    @property
    def pilled(self) -> bool:
        """Whether it got its pill; then it is not replaced."""
        return self.look.phase in (Phase.PILLED, Phase.DRAINED)

    @property
    def drained(self) -> bool:
        """Whether that was the pill of a drain; then it is replaced once the drain has ended."""
        return self.look.phase is Phase.DRAINED

    @property
    def orderly(self) -> bool:
        """Whether it left by itself, as it was ordered to."""
        return self.code == 0 and (self.pilled or self.look.phase in _LEAVING)

    @property
    def reason(self) -> ReplacementReason:
        """The reason why it has to be replaced."""
        if self.killed in _REASONS:
            return _REASONS[self.killed]
        if self.look.phase is Phase.STARTING:
            return ReplacementReason.OTHER
        if self.look.phase is Phase.RENEWING and self.code == 0:
            return ReplacementReason.RENEWED
        at_fault = self.look.busy and self.killed is not Killed.ORPHANED
        return ReplacementReason.CRASHED if at_fault else ReplacementReason.LOST

    @property
    def outcome(self) -> str:
        """The outcome of the attempt that executed, as the log shows it."""
        if self.cancelled:
            return "cancelled"
        if self.killed in _CAUSES:
            return _CAUSES[self.killed]
        return Cause.CRASHED if self.killed in _AT_FAULT else Cause.INTERRUPTED

    @property
    def failed_to_start(self) -> bool:
        """Whether it ended while it imported the task modules, for another reason than an error of theirs."""
        return self.look.phase is Phase.STARTING and self.code != EXIT_CONFIGURATION

    @property
    def error(self) -> ErrorInfo:
        """The error to record for the job that executed."""
        if self.killed is Killed.TIMED_OUT:
            # A shell command is killed by its consumer; the slot has the later time of the kill of that.
            own = self.look.timeout - (SPARE_SECONDS if self.look.task == SHELL else 0.0)
            said = f"it ran over its timeout of {own:g} s and its consumer was killed"
            return ErrorInfo("TimedOut", said, self.stacks)
        if self.killed is Killed.MEMORY:
            took, limit = f"{self.peak / _MIB:.1f} MiB", f"{self.look.max_rss / _MIB:.1f} MiB"
            said = f"it took {took} of memory, over its max_rss of {limit}, and its consumer was killed"
            return ErrorInfo("MemoryLimitExceeded", said)
        if self.killed is Killed.OFFENDED:
            return ErrorInfo("StopSignalSent", _OFFENDED)
        if self.killed is Killed.DAMAGED:
            return ErrorInfo("ConsumerDied", _DAMAGED)
        if self.killed is Killed.CANCELLED:
            return ErrorInfo("Cancelled", "the job was cancelled and did not end within the grace")
        if self.killed is not None:
            return ErrorInfo("Interrupted", _WHY.get(self.killed, _AT_THE_END))
        said = f"the process that ran it died: {describe_exit(self.code)}"
        return ErrorInfo("ConsumerDied", said + _ADVICE.get(self.code, ""), self.stacks)

    def reports(self, jitter: float) -> list[Report]:
        """Return the reports for the manager, in order; only the job that executed is charged.

        *jitter* in [0, 1) spreads the retries of jobs that timed out together.
        """
        if self.orderly:
            return [Lost(self.consumer, _UNTOLD)] if self.look.phase is Phase.UNTOLD else []
        look, lost = self.look, Lost(self.consumer, self.error, suspect=self._suspects)
        silent = self.cancelled or (self._orphaned and look.unsent) or self._shared_fault
        if not look.busy or silent:
            return [lost]
        if self.killed in _CAUSES:
            return [self._over_limit(_CAUSES[self.killed], jitter), lost]
        if self.killed not in _AT_FAULT:
            suspect, seconds = self._orphaned, self.seconds
            return [Release(look.token, look.number, started=True, seconds=seconds, suspect=suspect), lost]
        return [Lost(self.consumer, self.error, look.token, look.number, self.seconds, peak=self.peak)]

    def log(self, log: Any, pid: int, *, expected: bool, stopping: bool) -> None:
        """Log the end of process *pid*, with the attempt whose record it cannot write any more.

        Without a job that is logged only if it was not *expected*, as it is once the worker can never work. A
        consumer of a worker that is *stopping* may be killed at the end of its grace, or with its forkserver.
        """
        look, error = self.look, self.error
        if look.busy and (self.cancelled or not self._shared_fault):
            log.warning(
                "attempt_finished",
                consumer=self.consumer,
                job_id=look.job_id,
                task=look.task,
                queue=look.queue,
                attempt=look.attempt,
                outcome=self.outcome,
                run_s=round(self.seconds, 6),
                error_type=error.type,
                error=error.message,
            )
        names = {} if look.shared and not self._charged else look.names
        if self.orderly:
            log.info("consumer_left", consumer=self.consumer, pilled=self.pilled)
        elif expected and not look.busy:
            return
        elif stopping and self.killed in _AT_A_STOP:
            log.info("consumer_killed", consumer=self.consumer, pid=pid, reason=self.killed.value, **names)
        elif self.killed is not None:
            log.warning("consumer_killed", consumer=self.consumer, pid=pid, reason=self.killed.value, **names)
        else:
            cause, executing = error.message, look.busy
            log.warning(
                "consumer_died", consumer=self.consumer, pid=pid, cause=cause, executing=executing, **names
            )

    @property
    def _orphaned(self) -> bool:
        return self.killed is Killed.ORPHANED

    @property
    def _charged(self) -> bool:
        """Whether the job in the slot is known to have ended it, also if others executed beside that."""
        return self.killed in _CAUSES and not self._shared_fault

    @property
    def _shared_fault(self) -> bool:
        """Whether several jobs executed, and any of them may be why it died.

        Which of them kept a cancelled one from its end cannot be told either, nor which of a list takes too
        much time or memory.
        """
        unknown = self.killed in (*_AT_FAULT, Killed.ORPHANED, Killed.CANCELLED)
        return (self.look.shared and unknown) or (self.look.listed and self.killed in _CAUSES)

    @property
    def _suspects(self) -> bool:
        """Whether a job that it held may be why it died, and nothing tells which one."""
        if self.look.busy:
            return self._shared_fault or (self._orphaned and self.look.unsent)
        # One that a task has changed, and that then cannot report, has no other bound.
        silenced = self.killed is Killed.LINGERED and self.look.phase is Phase.RENEWING
        return self.killed in _AT_FAULT or ((self._orphaned or silenced) and self.look.unsent)

    @property
    def seconds(self) -> float:
        """The run time of the job that executed."""
        return max(0.0, self.at - self.look.started)

    def _over_limit(self, cause: Cause, jitter: float) -> Nack:
        look = self.look
        retry_in = RetryPolicy(look.retries, look.backoff).retry_in(look.failures + 1, jitter)
        return Nack(look.token, look.number, self.error, retry_in, cause, self.seconds, peak=self.peak)


def pause_before(reason: ReplacementReason, start_failures: int) -> float:
    """Return the seconds before a consumer is replaced, after *start_failures* in a row.

    A consumer that its job has killed is replaced at once, because the job's own budgets limit that. A
    consumer that cannot start would otherwise be started again and again in vain.
    """
    if reason is ReplacementReason.OTHER:
        return growing(_START_PAUSE, _START_PAUSE_MAX, start_failures, jitter=1.0)
    return _IDLE_PAUSE if reason is ReplacementReason.LOST else 0.0
