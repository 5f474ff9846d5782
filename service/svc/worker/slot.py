"""The state of one consumer, in memory that it shares with its supervisor.

The consumer writes and the supervisor reads, both under the lock of the slot. A killed consumer may leave
the lock taken for ever. So a supervisor waits for it only briefly, and a slot is never used again.
"""

from __future__ import annotations

import enum
import math
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from multiprocessing.synchronize import Lock
from typing import NamedTuple

from svc.domain.job import Terms, job_id
from svc.domain.replies import Delivery
from svc.domain.retry import RetryPolicy
from svc.worker.attempt_limits import AttemptLimits
from svc.worker.sealed_memory import SealedMemory

_LOCK_PATIENCE = 0.05


class Phase(enum.IntEnum):
    """The phase in a consumer's life."""

    STARTING = 0
    IDLE = 1
    BUSY = 2
    PILLED = 3
    STOPPING = 4
    #: A task has changed the process in a way that cannot be undone; it leaves, and is replaced.
    RENEWING = 5
    #: Like PILLED, but by the pill of a drain: it is replaced when the drain ends.
    DRAINED = 6
    #: Several jobs execute; the slot has the one whose time is over first.
    SHARED = 7
    #: A list of several jobs executes, as one call; the slot has the first of them.
    LISTED = 8
    #: Like STOPPING, but the manager was away: the supervisor has to report the end.
    UNTOLD = 9
    #: What the slot holds makes no sense: a task has written into the memory.
    DAMAGED = 10


class Order(enum.IntEnum):
    """What has to happen in the attempt that executes; a later one is the stronger.

    The first two are exceptions to be raised in its task.
    """

    #: `SoftTimeout`
    SOFT_TIMEOUT = 1
    #: `Cancelled`
    CANCEL = 2
    #: The process is about to be killed, as the attempt has run over its timeout: it tells no outcome.
    KILL = 3


_EXECUTING = (Phase.BUSY, Phase.SHARED, Phase.LISTED)


class SlotState(NamedTuple):
    """A copy of a slot at one moment.

    Attributes:
        phase: the phase of the consumer.
        recalled: whether the jobs that it read ahead were taken back.
        origin: the origin of the lease's jobs.
        task: the task of the lease's jobs.
        queue: the queue of the lease's jobs.
        number: the job that executes, if the phase is BUSY.
        ahead: the number of jobs that it holds behind that one.
        started: monotonic time at which that job began.
        busy_seconds: time spent in tasks so far, in total.
        unsent: whether outcomes wait to be sent to the manager.
        token: the lease of the job that executes.
        last: the last lease of the same grant.
        failures: how often the job has failed before.
        retries: the number of its retries.
        backoff: seconds before the first retry.
        timeout: the longest run time in seconds, 0 for no limit.
        attempt: the number of this attempt at the job, from 1 on.
        soft_timeout: seconds after which `SoftTimeout` is raised in the task, 0 for never.
        max_rss: the largest memory in bytes, 0 for no limit.
        patience: seconds that the job may take before those behind it are taken back; 0 for the usual ones.
        asks: whether other jobs may come behind it, because they were asked for.
    """

    phase: Phase
    recalled: bool = False
    origin: str = ""
    task: str = ""
    queue: str = ""
    number: int = 0
    ahead: int = 0
    started: float = 0.0
    busy_seconds: float = 0.0
    unsent: bool = False
    token: int = 0
    last: int = 0
    failures: int = 0
    retries: int = 0
    backoff: float = 0.0
    timeout: float = 0.0
    attempt: int = 0
    soft_timeout: float = 0.0
    max_rss: int = 0
    patience: float = 0.0
    asks: bool = False

    @property
    def job_id(self) -> str:
        """The id of the job that executes."""
        return job_id(self.origin, self.number)

    @property
    def names(self) -> dict[str, str]:
        """The fields of the log that name the job that executes; none if none does."""
        return {"job_id": self.job_id, "task": self.task} if self.busy else {}

    @property
    def busy(self) -> bool:
        """Whether a job executes."""
        return self.phase in _EXECUTING

    @property
    def shared(self) -> bool:
        """Whether other jobs execute beside it, or with it."""
        return self.phase is Phase.SHARED or self.phase is Phase.LISTED

    @property
    def listed(self) -> bool:
        """Whether others execute in the same call, so that nothing tells which of them takes so long."""
        return self.phase is Phase.LISTED

    @property
    def reads_ahead(self) -> bool:
        """Whether jobs are behind it, or may come there."""
        return self.ahead > 0 or (self.asks and self.phase is Phase.BUSY)

    def overrun(self, now: float) -> bool:
        """Whether the job that executes has run longer than its timeout."""
        return self.busy and 0 < self.timeout < now - self.started

    def over_soft_timeout(self, now: float) -> bool:
        """Whether the job that executes has run longer than its soft timeout."""
        return self.busy and 0 < self.soft_timeout < now - self.started


# Native alignment: eight bytes are then written at once, so even a look without the lock gets whole numbers.
_JOB = struct.Struct("@Bxxxxxxxqqdd?")
_LEASE = struct.Struct("@qqqqddqdqd?")
#: An order, whether it was obeyed, and the attempt that it is for: token and number.
_ORDER = struct.Struct("@BBxxxxxxqq")
_JOB_AT = 0
_LEASE_AT = 48
_RECALLED_AT = 136
_WATCHED_AT = 137
_GUARD_AT = 138
_ORDER_AT = 144
_RAISED_AT = _ORDER_AT + 1
_NAMES_AT = 168
#: Room for three names of 200 characters, of up to four bytes each.
_NAMES = struct.Struct("@H2414s")
_SIZE = _NAMES_AT + _NAMES.size
_IDLE, _BUSY = int(Phase.IDLE), int(Phase.BUSY)
#: Bytes that nobody writes again, so that damage is seen also after the next job has overwritten the rest.
_GUARD = b"svc\0ok"
_PHASES = frozenset(Phase)


def encoded_names(terms: Terms) -> bytes:
    """Return the names of task and queue, as `Slot.begin` takes them."""
    return f"\0{terms.shown_task}\0{terms.queue}".encode()


class Slot:
    """The shared memory of one consumer process."""

    __slots__ = ("_acquire", "_lock", "_memory", "_names", "_release", "_view")

    def __init__(self, context: BaseContext) -> None:
        """Make a slot in phase STARTING, to be passed to a process of *context*."""
        self.__setstate__((SealedMemory(_SIZE), context.Lock()))
        self._view[_GUARD_AT:_ORDER_AT] = _GUARD

    def __getstate__(self) -> tuple[SealedMemory, Lock]:
        """Return the shared parts, from which another process makes its view of the slot."""
        return self._memory, self._lock

    def __setstate__(self, shared: tuple[SealedMemory, Lock]) -> None:
        """Use the *shared* parts of a slot."""
        self._memory, self._lock = shared
        self._view = self._memory.view
        self._acquire, self._release = self._lock.acquire, self._lock.release
        #: The names that this process wrote last.
        self._names = b""

    def close(self) -> None:
        """Give its memory back: the consumer has ended, and nobody looks at the slot any more."""
        self._memory.close()

    # --- the consumer ---------------------------------------------------------------------------------

    def begin(
        self,
        delivery: Delivery,
        last: int,
        policy: RetryPolicy,
        limits: AttemptLimits,
        names: bytes,
        watch: bool,
        patience: float = 0.0,
        asks: bool = False,
    ) -> bool:
        """Write the next lease; return True if *watch* is set and the supervisor does not watch yet.

        Then the caller nudges the supervisor. It gets no second True before the supervisor has stopped
        watching. *names* are those of task and queue, from `encoded_names`.
        """
        view = self._view
        names = delivery.origin.encode() + names
        self._acquire()
        try:
            _LEASE.pack_into(
                view,
                _LEASE_AT,
                delivery.token,
                last,
                delivery.failures,
                policy.retries,
                policy.backoff,
                limits.timeout or 0.0,
                delivery.failures + delivery.crashes + delivery.interruptions + 1,
                limits.soft_timeout or 0.0,
                limits.max_rss or 0,
                patience,
                asks,
            )
            if names != self._names:
                self._names = names
                _NAMES.pack_into(view, _NAMES_AT, min(len(names), _NAMES.size - 2), names)
            # No job executes until the first one is claimed: so a job's number never meets another lease.
            view[_JOB_AT] = _IDLE
            nudge = watch and not view[_WATCHED_AT]
            view[_WATCHED_AT] |= watch
            return nudge
        finally:
            self._release()

    def claim(self, number: int, ahead: int, started: float, busy_seconds: float, unsent: bool) -> bool:
        """Begin one job; False if it was taken back, with all other jobs that were read ahead."""
        self._acquire()
        try:
            if self._view[_RECALLED_AT]:
                self._view[_RECALLED_AT] = 0
                return False
            _JOB.pack_into(self._view, _JOB_AT, _BUSY, number, ahead, started, busy_seconds, unsent)
            return True
        finally:
            self._release()

    def rest_between(self, busy_seconds: float, unsent: bool) -> bool:
        """Note that no job executes; return False if the jobs that were read ahead were taken back.

        Once it is True, they are not taken back any more: the supervisor does that only while a job executes.
        """
        self._acquire()
        try:
            recalled = self._view[_RECALLED_AT]
            self._view[_RECALLED_AT] = 0
            _JOB.pack_into(self._view, _JOB_AT, _IDLE, 0, 0, 0.0, busy_seconds, unsent)
            return not recalled
        finally:
            self._release()

    def take_recall(self) -> bool:
        """Return whether jobs that were to come behind the last one were taken back, and forget that."""
        self._acquire()
        try:
            recalled, self._view[_RECALLED_AT] = self._view[_RECALLED_AT], 0
            return bool(recalled)
        finally:
            self._release()

    def share(self, number: int, started: float, busy_seconds: float, phase: Phase) -> None:
        """Show one job of several that run, with the *phase* that says how, or the only one."""
        self._acquire()
        try:
            _JOB.pack_into(self._view, _JOB_AT, phase, number, 0, started, busy_seconds, False)
        finally:
            self._release()

    def rest(self, phase: Phase, busy_seconds: float, unsent: bool) -> None:
        """Note that no job executes."""
        self._acquire()
        try:
            _JOB.pack_into(self._view, _JOB_AT, phase, 0, 0, 0.0, busy_seconds, unsent)
        finally:
            self._release()

    def current_order(self) -> Order | None:
        """Return the order for the attempt that executes, unless it was obeyed.

        For a signal handler of the consumer's main thread: it takes no lock, as that thread may hold it.
        """
        order, raised, token, number = _ORDER.unpack_from(self._view, _ORDER_AT)
        if not order or raised:
            return None
        look = self.peek()
        return Order(order) if look.busy and (look.token, look.number) == (token, number) else None

    def stay_if_doomed(self) -> None:
        """Wait for the end of this process if its supervisor is about to kill it for this attempt.

        The signal for its stacks may have ended a call in C early: what its task has returned may be wrong.
        """
        if self.current_order() is Order.KILL:
            threading.Event().wait()

    def note_raised(self) -> None:
        """Note that the order was obeyed."""
        self._view[_RAISED_AT] = 1

    def raised(self, token: int, number: int) -> Order | None:
        """Return the last order that was obeyed in an attempt, or None."""
        order, raised, *attempt = _ORDER.unpack_from(self._view, _ORDER_AT)
        return Order(order) if raised and attempt == [token, number] else None

    # --- the supervisor -------------------------------------------------------------------------------

    def passed(self) -> None:
        """Note that the process of the consumer has been started with it, or never will be."""
        self._memory.passed()

    def give_order(self, order: Order) -> bool:
        """Order the attempt that executes to end; return False if it was told so before, and has obeyed.

        Call it with the slot held, and a job executing.
        """
        look = self.peek()
        before, raised, *attempt = _ORDER.unpack_from(self._view, _ORDER_AT)
        if attempt == [look.token, look.number] and before >= order:
            return not raised
        # The order is written last: a handler that runs meanwhile meets none for another attempt.
        _ORDER.pack_into(self._view, _ORDER_AT, 0, 0, look.token, look.number)
        self._view[_ORDER_AT] = order
        return True

    def look(self) -> SlotState:
        """Return the state of the consumer."""
        with self.held():
            return self.peek()

    def watch(self, closely: bool) -> None:
        """Set whether the supervisor watches closely; if not, the consumer nudges it when it should."""
        with self.held():
            self._view[_WATCHED_AT] = closely

    def recall(self) -> None:
        """Take back the jobs that were read ahead: the next `claim` fails. Call it with the slot held."""
        self._view[_RECALLED_AT] = 1

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Keep the consumer from beginning its next job; yields False if the lock did not come in time."""
        got = self._lock.acquire(timeout=_LOCK_PATIENCE)
        try:
            yield got
        finally:
            if got:
                self._lock.release()

    def peek(self) -> SlotState:
        """Return the same as `look` without taking the lock; for a caller that holds it.

        Of a slot that a task has damaged, only the phase DAMAGED.
        """
        phase, *job = _JOB.unpack_from(self._view, _JOB_AT)
        lease = _LEASE.unpack_from(self._view, _LEASE_AT)
        length, names = _NAMES.unpack_from(self._view, _NAMES_AT)
        origin, task, queue = (*names[:length].decode(errors="replace").split("\0"), "", "", "")[:3]
        recalled = bool(self._view[_RECALLED_AT])
        if phase not in _PHASES or self._view[_GUARD_AT:_ORDER_AT] != _GUARD:
            return SlotState(Phase.DAMAGED)
        look = SlotState(Phase(phase), recalled, origin, task, queue, *job, *lease)
        return look if _makes_sense(look) else SlotState(Phase.DAMAGED)


def _makes_sense(look: SlotState) -> bool:
    """Return whether one can reckon with the numbers of *look*; those that a job has brought may be any."""
    numbers = (look.number, look.ahead, look.token, look.last, look.patience)
    return math.isfinite(look.started + look.busy_seconds) and all(number >= 0 for number in numbers)
