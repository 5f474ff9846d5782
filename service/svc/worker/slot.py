"""What one consumer is doing, in memory that its supervisor shares.

The consumer writes, the supervisor looks; both hold the lock of the slot for that. A consumer that is killed
may leave the lock taken for ever: a supervisor waits for it a moment only, and a slot is never used again.
"""

from __future__ import annotations

import ctypes
import enum
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from multiprocessing.sharedctypes import RawArray
from multiprocessing.synchronize import Lock
from typing import Any, NamedTuple

from svc.domain.job import job_id
from svc.domain.replies import Delivery
from svc.domain.retry import RetryPolicy

_LOCK_PATIENCE = 0.05


class Phase(enum.IntEnum):
    """Where a consumer is in its life."""

    STARTING = 0
    IDLE = 1
    BUSY = 2
    PILLED = 3
    STOPPING = 4
    #: A task has changed the process in a way that cannot be put back; it leaves, and is replaced.
    RENEWING = 5
    #: As PILLED, by the pill of a drain, after whose end it has a successor.
    DRAINED = 6


class Look(NamedTuple):
    """One look at a slot.

    Attributes:
        phase: what the consumer does.
        recalled: whether what it read ahead was taken back from it.
        number: the job that executes, if the phase is BUSY.
        ahead: how many jobs it holds that wait behind that one.
        started: monotonic time at which that job began.
        busy_seconds: time spent in tasks so far, in all.
        unsent: whether outcomes wait to be sent to the manager.
        token: the lease of the job that executes.
        last: the last lease of the same grant.
        failures: how often the job failed before.
        retries: how many retries it has.
        backoff: seconds before the first of them.
        timeout: seconds that it may run, 0 for no limit.
        attempt: which attempt at the job this is, from 1 on.
        origin: the origin of the lease's jobs.
        task: the task of the lease's jobs.
        queue: the queue of the lease's jobs.
    """

    phase: Phase
    recalled: bool
    number: int
    ahead: int
    started: float
    busy_seconds: float
    unsent: bool
    token: int
    last: int
    failures: int
    retries: int
    backoff: float
    timeout: float
    attempt: int = 0
    origin: str = ""
    task: str = ""
    queue: str = ""

    @property
    def job_id(self) -> str:
        """The id of the job that executes."""
        return job_id(self.origin, self.number)

    @property
    def busy(self) -> bool:
        """Whether a job executes."""
        return self.phase is Phase.BUSY

    def overrun(self, now: float) -> bool:
        """Whether the job that executes has run for longer than it may."""
        return self.busy and 0 < self.timeout < now - self.started


# Native alignment: eight bytes are then written in one go, so even a look without the lock tears no number.
_JOB = struct.Struct("@Bxxxxxxxqqdd?")
_LEASE = struct.Struct("@qqqqddq")
_JOB_AT = 0
_LEASE_AT = 48
_RECALLED_AT = 104
_WATCHED_AT = 105
_NAMES_AT = 112
#: Room for three names of 200 characters, each of up to four bytes, in case.
_NAMES = struct.Struct("@H2414s")
_SIZE = _NAMES_AT + _NAMES.size
_BUSY = int(Phase.BUSY)


class Slot:
    """The shared memory of one consumer process."""

    __slots__ = ("_acquire", "_lock", "_memory", "_release", "_view")

    def __init__(self, context: BaseContext) -> None:
        """Make a slot in phase STARTING, to be handed to a process of *context*."""
        self._attach(RawArray(ctypes.c_char, _SIZE), context.Lock())

    def __reduce__(self) -> tuple[Any, ...]:
        return _attached, (self._memory, self._lock)

    def _attach(self, memory: Any, lock: Lock) -> None:
        self._memory = memory
        self._lock = lock
        self._view = memoryview(memory).cast("B")
        self._acquire = lock.acquire
        self._release = lock.release

    # --- the consumer ---------------------------------------------------------------------------------

    def begin(
        self, delivery: Delivery, last: int, policy: RetryPolicy, timeout: float | None, watch: bool
    ) -> bool:
        """Say which lease is worked on next; True if *watch* is wanted and the supervisor does not yet.

        The caller then nudges it, and is not told so again before the supervisor has looked elsewhere.
        """
        with self._lock:
            _LEASE.pack_into(
                self._view,
                _LEASE_AT,
                delivery.token,
                last,
                delivery.failures,
                policy.retries,
                policy.backoff,
                timeout or 0.0,
                delivery.failures + delivery.crashes + delivery.interruptions + 1,
            )
            names = f"{delivery.origin}\0{delivery.terms.shown_task}\0{delivery.terms.queue}".encode()
            _NAMES.pack_into(self._view, _NAMES_AT, min(len(names), _NAMES.size - 2), names)
            # Until the first job is claimed nothing executes: a job's number never meets another lease.
            self._view[_JOB_AT] = Phase.IDLE
            nudge = watch and not self._view[_WATCHED_AT]
            self._view[_WATCHED_AT] |= watch
            return nudge

    def claim(self, number: int, ahead: int, started: float, busy_seconds: float, unsent: bool) -> bool:
        """Begin with one job; False if it was taken back, together with all that were read ahead."""
        self._acquire()
        try:
            if self._view[_RECALLED_AT]:
                self._view[_RECALLED_AT] = 0
                return False
            _JOB.pack_into(self._view, _JOB_AT, _BUSY, number, ahead, started, busy_seconds, unsent)
            return True
        finally:
            self._release()

    def rest(self, phase: Phase, busy_seconds: float, unsent: bool) -> None:
        """Say that no job executes."""
        with self._lock:
            _JOB.pack_into(self._view, _JOB_AT, phase, 0, 0, 0.0, busy_seconds, unsent)

    # --- the supervisor -------------------------------------------------------------------------------

    def look(self) -> Look:
        """Return what the consumer is doing now."""
        with self.held():
            return self.peek()

    def watch(self, closely: bool) -> None:
        """Tell the consumer whether it has to nudge the supervisor when it has something to be watched."""
        with self.held():
            self._view[_WATCHED_AT] = closely

    def recall(self) -> None:
        """Take back what was read ahead: the consumer's next `claim` fails. Call with the slot held."""
        self._view[_RECALLED_AT] = 1

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Keep the consumer from going on to its next job; gives False if the lock was not had in time."""
        got = self._lock.acquire(timeout=_LOCK_PATIENCE)
        try:
            yield got
        finally:
            if got:
                self._lock.release()

    def peek(self) -> Look:
        """Return the same without taking the lock; for a caller that holds it."""
        phase, number, ahead, started, busy_seconds, unsent = _JOB.unpack_from(self._view, _JOB_AT)
        token, last, failures, retries, backoff, timeout, attempt = _LEASE.unpack_from(self._view, _LEASE_AT)
        length, names = _NAMES.unpack_from(self._view, _NAMES_AT)
        origin, task, queue = (*names[:length].decode(errors="replace").split("\0"), "", "", "")[:3]
        return Look(
            Phase(phase),
            bool(self._view[_RECALLED_AT]),
            number,
            ahead,
            started,
            busy_seconds,
            unsent,
            token,
            last,
            failures,
            retries,
            backoff,
            timeout,
            attempt,
            origin,
            task,
            queue,
        )


def _attached(memory: Any, lock: Lock) -> Slot:
    """Return the slot that another process made."""
    slot = Slot.__new__(Slot)
    slot._attach(memory, lock)  # noqa: SLF001 - the rest of `__reduce__`
    return slot
