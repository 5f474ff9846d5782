"""The calls of one client: its connections to the manager, and how it reads outcomes.

Short calls use one connection, in the order of their callers. A call that waits has a connection to itself,
and is repeated while the manager is away. The locks are reentrant, because a signal handler may use the
client while its own thread holds them.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from svc import codec, pickling
from svc.broker.backoff import Backoff
from svc.broker.base import Broker
from svc.broker.forks import begin_anew_in_children
from svc.client.specs import NEEDED
from svc.client.values import LargeValuesClient
from svc.domain.job import NewChunk, Outcome
from svc.domain.lifecycle import JobState
from svc.domain.replies import Note
from svc.envelope import PickleKeys
from svc.errors import (
    BadRequest,
    BrokerError,
    ConfigurationError,
    JobCancelled,
    JobFailed,
    ManagerUnreachable,
    ResultTimeout,
)
from svc.large import EXTENSION_HEADS, LargeReference, reference_in

#: Makes a connected broker.
Connect = Callable[[], Broker]
#: Seconds for which a wait keeps asking a manager that does not answer.
PATIENCE_SECONDS = 60.0
#: Threads of one client that can wait at the same time, each on a connection of its own.
WAITERS_MAX = 16
#: Seconds that one call waits at most, so that a dead connection is noticed.
SLICE_SECONDS = 20.0
#: Seconds between two checks of jobs that one call cannot wait for.
ROUND_SECONDS = 0.25
#: Outcomes in the answer to one call.
PAGE = 1000
#: On CPython 3.11 it takes longer to read a member of an enumeration than to decode a small result.
_SUCCEEDED = JobState.SUCCEEDED

T = TypeVar("T")


class Deadline:
    """A time limit for a wait, or none.

    Attributes:
        timeout: the requested seconds; None for no limit.
    """

    def __init__(self, timeout: float | None) -> None:
        """Start the count of *timeout* seconds.

        Raises:
            BadRequest: *timeout* is not a number; such a time would never pass.
        """
        if timeout is not None and math.isnan(timeout):
            raise BadRequest("the timeout is not a number of seconds")
        self.timeout = timeout
        self._end = None if timeout is None else time.monotonic() + timeout

    @property
    def passed(self) -> bool:
        """Whether the time is up."""
        return self._end is not None and time.monotonic() >= self._end

    def slice(self, limit: float | None = None) -> float:
        """Return the seconds that the next call may wait: at most *limit*, which is one slice by default."""
        limit = SLICE_SECONDS if limit is None else limit
        return limit if self._end is None else max(0.0, min(limit, self._end - time.monotonic()))


class Session:
    """One client's connections and keys. Many threads can use it safely.

    Connections are made when they are first needed and kept until `close`.

    Attributes:
        pickle_keys: the keys that sign pickled jobs; None if none can be submitted.
        reader: the keys that verify pickled results; None if these are not opened.
        may_look: False once the manager has refused to describe jobs to this client's key.
        under: returns the token of the job whose task submits; 0 if no job does.
        values: sends and fetches large values.
    """

    def __init__(
        self,
        connect: Connect,
        accept: Collection[str],
        patience: float,
        pickle_keys: PickleKeys | None = None,
    ) -> None:
        """Connect with *connect* at the first use; *patience* is in seconds, as `PATIENCE_SECONDS`.

        Raises:
            ConfigurationError: *accept* names `pickle`, and there are no keys.
        """
        if codec.PICKLE in accept and pickle_keys is None:
            raise ConfigurationError(
                f"pickles are read with the key that signs them, and there is none; {NEEDED}"
            )
        if pickle_keys is not None:
            # If a thread imported it during a fork, the child would hang.
            pickling.pickle_dumps()
        self.under: Callable[[], int] = lambda: 0
        self.pickle_keys = pickle_keys
        self.reader = pickle_keys if codec.PICKLE in accept else None
        self.may_look = True
        self.values = LargeValuesClient(self)
        self._connect = connect
        self._patience = patience
        self._closed = False
        self.begin_anew()
        begin_anew_in_children(self)

    def begin_anew(self) -> None:
        """Start without connections; after a fork, brokers close the earlier ones, and the locks are new."""
        self._main: Broker | None = None
        self._main_lock = threading.RLock()
        self._main_lent = False
        self._idle: list[Broker] = []
        self._all: list[Broker] = []
        self._state_lock = threading.RLock()
        self._free = threading.BoundedSemaphore(WAITERS_MAX)

    def ask(self, question: Callable[[Broker], T]) -> T:
        """Return the answer to a call that does not wait; calls are made in the order of their threads.

        If a signal handler interrupts its own thread in such a call, it gets another connection, because the
        answer to that call is still to come on the main one.
        """
        with self._main_lock:
            if self._main_lent:
                return self._ask_beside(question)
            self._main_lent = True
            try:
                if self._main is None:
                    self._main = self._made()
                return question(self._main)
            finally:
                self._main_lent = False

    def wait(self, question: Callable[[Broker], T], deadline: Deadline) -> T:
        """Return the answer to a call that may wait and is safe to repeat.

        Raises:
            ManagerUnreachable: the manager did not answer for the session's patience, or until *deadline*.
            ResultTimeout: other threads had all connections until *deadline*.
        """
        lost: Deadline | None = None
        backoff: Backoff | None = None
        while True:
            if not self._free.acquire(timeout=deadline.slice()):
                if deadline.passed:
                    raise ResultTimeout("too many threads of this client wait already")
                continue
            # The time until here was spent behind other threads, and says nothing about the manager.
            lost = lost or Deadline(self._patience)
            try:
                return self._ask_beside(question)
            except ManagerUnreachable:
                if lost.passed or deadline.passed:
                    raise
            finally:
                self._free.release()
            backoff = backoff or Backoff()
            time.sleep(deadline.slice(backoff.fail()))

    def again(self, broker: Broker, question: Callable[[Broker], T]) -> T | None:
        """Return the answer to a call over *broker*, which `wait` used before; None if another call uses it.

        Raises:
            ManagerUnreachable: the connection is lost.
        """
        with self._state_lock:
            if broker not in self._idle:
                return None
            self._idle.remove(broker)
        return self._over(broker, question)

    def submit(self, origin: str, chunks: Sequence[NewChunk], strict: bool) -> list[Note]:
        """Submit *chunks*; as `Broker.submit`."""
        return self.ask(lambda broker: broker.submit(origin, chunks, strict=strict, under=self.under()))

    def outcomes(self, ids: Sequence[str], deadline: Deadline) -> list[Outcome]:
        """Return the outcomes of all *ids*, or of those that have ended at *deadline*."""
        found: list[Outcome] = []
        # Page by page: a reply is bounded, and thousands of results may be large.
        for first in range(0, len(ids), PAGE):
            page = ids[first : first + PAGE]
            while True:
                ended = self.wait_page(page, deadline.slice(), deadline)
                if len(ended) >= len(set(page)) or deadline.passed:
                    break
            found += ended
        return found

    def wait_page(self, ids: Sequence[str], seconds: float, deadline: Deadline) -> list[Outcome]:
        """Return the outcomes of *ids*; wait up to *seconds* for all of them."""
        return self.wait(lambda broker: broker.wait(ids, timedelta(seconds=seconds)), deadline)

    def transfer(self, question: Callable[[Broker], T]) -> T:
        """Return the answer to a call about pieces of a large value; each may be repeated."""
        return self.wait(question, Deadline(None))

    def value(self, outcome: Outcome) -> Any:
        """Return the result in *outcome*; as `value_of`, and a large one is fetched."""
        return value_of(outcome, self.reader, self.values.fetch)

    def close(self) -> None:
        """Close all connections. May be called twice."""
        with self._state_lock:
            self._closed = True
            brokers, self._all, self._idle = self._all, [], []
        for broker in brokers:
            broker.close()

    def _ask_beside(self, question: Callable[[Broker], T]) -> T:
        """Return the answer to a call over a connection that no other call uses meanwhile."""
        with self._state_lock:
            broker = self._idle.pop() if self._idle else None
        return self._over(broker or self._made(), question)

    def _over(self, broker: Broker, question: Callable[[Broker], T]) -> T:
        """Return the answer to a call over *broker*, which is idle after it."""
        try:
            return question(broker)
        finally:
            with self._state_lock:
                self._idle.append(broker)

    def _made(self) -> Broker:
        if self._closed:
            raise BrokerError("this client is closed; make a new one")
        broker = self._connect()
        with self._state_lock:
            self._all.append(broker)
        return broker


def value_of(
    outcome: Outcome,
    pickle_keys: PickleKeys | None = None,
    fetch: Callable[[str, LargeReference], Any] | None = None,
) -> Any:
    """Return the result in *outcome*; a pickled one is verified with *pickle_keys*, a large one is fetched.

    Raises:
        JobFailed: the job is dead.
        JobCancelled: it was cancelled.
        CodecError: the result is a pickled object and *pickle_keys* is None.
        UntrustedPickle: the pickle is not signed for this job.
    """
    if outcome.state != _SUCCEEDED:
        raise failure_of(outcome)
    return result_of(outcome.id, outcome.result, pickle_keys, fetch)


def result_of(
    job: str,
    body: bytes,
    pickle_keys: PickleKeys | None = None,
    fetch: Callable[[str, LargeReference], Any] | None = None,
) -> Any:
    """Return the result of *job*, which succeeded, from its encoded form *body*; otherwise as `value_of`."""
    if fetch is not None and body and body[0] in EXTENSION_HEADS:
        reference = reference_in(body)
        if reference is not None:
            return fetch(job, reference)
    return codec.decode_result(body, None if pickle_keys is None else pickle_keys.of(job))


def failure_of(outcome: Outcome) -> JobFailed | JobCancelled:
    """Return the error for a job that did not succeed."""
    if outcome.state == JobState.CANCELLED:
        return JobCancelled(f"job {outcome.id} was cancelled")
    error = outcome.error
    if error is None:
        return JobFailed(f"job {outcome.id} failed", job_id=outcome.id)
    said = f"{error.type}: {error.message}" if error.message else error.type
    return JobFailed(
        f"job {outcome.id} failed: {said}",
        job_id=outcome.id,
        type=error.type,
        message=error.message,
        attempts=outcome.attempts,
        remote_traceback=error.traceback,
    )
