"""The interface for plain BaseManager clients: the shared `tasks`, `results` and `jobs`.

Each method turns a call into commands of the queue, and the replies into the value or exception of the
stdlib's queue. Nothing that a client sends is executed. A job's arguments are read only to pass them to
another plain client.
"""

from __future__ import annotations

import math
import queue
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from svc import codec
from svc.broker.host import QueueHost
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.field_bounds import JOB_ID_MAX
from svc.domain.job import (
    DEFAULT_QUEUE,
    ITEM,
    ITEM_CODEC,
    PILL,
    RESULTS_QUEUE,
    NewChunk,
    Terms,
    check_chunk,
    put_origin,
)
from svc.domain.limits import SECONDS_MAX
from svc.domain.members import Member
from svc.domain.names import NAME_MAX, is_free_name
from svc.errors import JournalError, ServiceError
from svc.server.plain_values import as_answer, as_put, as_taken, pickled

#: The shared objects, and the methods that a client may call on each.
QUEUE_METHODS = (
    "put", "get", "task_done", "join", "qsize", "empty", "full", "put_nowait", "get_nowait",
)  # fmt: skip
EXPOSED: dict[str, tuple[str, ...]] = {
    "tasks": QUEUE_METHODS,
    "results": QUEUE_METHODS,
    "jobs": ("call", "submit", "result", "show"),
}
#: The result of a job that a plain consumer acknowledged: `task_done` passes none.
_NO_RESULT = b""
_ITEM = Terms(ITEM, codec=ITEM_CODEC)
_PILL = Terms(PILL, codec=ITEM_CODEC)
_RESULT = Terms(ITEM, RESULTS_QUEUE, codec=ITEM_CODEC)
#: The commands of `get()`.
_LEASE = (c.Lease(1, math.inf),)
_JOB_FIELDS = frozenset(
    ("task", "args", "kwargs", "queue", "priority", "delay", "key", "retries", "backoff", "timeout")
)


Return = Callable[[object], None]


class SharedObjects:
    """Serves the calls of all connections, one at a time; `done` gets the value or the exception."""

    def __init__(self, host: QueueHost) -> None:
        """Serve the queue of *host*."""
        self._host = host
        self._origin = put_origin(host.incarnation)
        self._next_number = 0
        #: The member for calls made here: only they may use the reserved names.
        self._inside = Member("plain", inside=True)
        self._inside.reads_all = False
        self._methods: dict[tuple[str, str], Callable[..., None]] = {
            (typeid, name): getattr(self, f"_{typeid}_{name}")
            for typeid, names in EXPOSED.items()
            for name in names
            if name != "call"
        }

    def method(self, typeid: str, name: str) -> Callable[..., None]:
        """Return the method for `typeid.name`, to pass to `carry_out`.

        Raises:
            AttributeError: clients have no such method.
        """
        found = self._methods.get((typeid, name))
        if found is None:
            raise AttributeError(f"{typeid!r} has no method {name!r} for clients")
        return found

    def carry_out(
        self,
        method: Callable[..., None],
        member: Member,
        args: Sequence[Any],
        kwds: Mapping[str, Any],
        done: Return,
    ) -> None:
        """Call *method* for *member*; it calls *done* now or in a later turn."""
        if member.role == "client":
            member.role = "plain"
        try:
            method(member, done, *args, **kwds)
        except JournalError:
            raise  # it has to end the manager
        except (TypeError, ValueError, ArithmeticError, LookupError, ServiceError) as error:
            # A stock client knows only the stdlib's classes.
            known = isinstance(error, TypeError | ValueError) and not isinstance(error, ServiceError)
            done(error if known else ValueError(str(error)))

    # --- tasks --------------------------------------------------------------------------------------

    def _tasks_put(
        self, member: Member, done: Return, item: object, block: bool = True, timeout: float | None = None
    ) -> None:
        self._put(done, self._chunk_of(item))

    def _tasks_put_nowait(self, member: Member, done: Return, item: object) -> None:
        self._tasks_put(member, done, item)

    def _tasks_get(
        self, member: Member, done: Return, block: bool = True, timeout: float | None = None
    ) -> None:
        lease = _LEASE if block is True and timeout is None else (c.Lease(1, _patience(block, timeout)),)
        self._host.call(lease, member, partial(_granted, member, done))

    def _tasks_get_nowait(self, member: Member, done: Return) -> None:
        self._tasks_get(member, done, False)

    def _tasks_task_done(self, member: Member, done: Return) -> None:
        lease = next(iter(member.leases.values()), None)
        if lease is None and member.pills:
            # A plain consumer may call task_done() for its pill as for any other item.
            member.pills -= 1
            done(None)
            return
        if lease is None:
            raise ValueError("task_done() called too many times")
        ack = c.Ack(lease.token, lease.chunk.first + lease.start, [_NO_RESULT], [0.0])
        self._host.call((ack,), member, partial(_acknowledged, done))

    def _tasks_join(self, member: Member, done: Return) -> None:
        self._host.call((c.Join(DEFAULT_QUEUE, math.inf),), member, partial(_acknowledged, done))

    def _tasks_qsize(self, member: Member, done: Return) -> None:
        done(self._host.takeable(DEFAULT_QUEUE))

    def _tasks_empty(self, member: Member, done: Return) -> None:
        done(not self._host.takeable(DEFAULT_QUEUE))

    def _tasks_full(self, member: Member, done: Return) -> None:
        done(self._host.is_full(DEFAULT_QUEUE))

    # --- results ------------------------------------------------------------------------------------

    def _results_put(
        self, member: Member, done: Return, item: object, block: bool = True, timeout: float | None = None
    ) -> None:
        self._put(done, self._chunk(_RESULT, pickled(item)))

    def _results_put_nowait(self, member: Member, done: Return, item: object) -> None:
        self._results_put(member, done, item)

    def _results_get(
        self, member: Member, done: Return, block: bool = True, timeout: float | None = None
    ) -> None:
        def deliver(replies: list[r.Reply]) -> None:
            taken = replies[0]
            if isinstance(taken, r.Outcomes) and taken.outcomes:
                done(as_taken(taken.outcomes[0]))
            else:
                done(queue.Empty())

        self._host.call([c.Take(_patience(block, timeout))], member, deliver)

    def _results_get_nowait(self, member: Member, done: Return) -> None:
        self._results_get(member, done, False)

    def _results_task_done(self, member: Member, done: Return) -> None:
        """Do nothing: a result that was returned is already removed from the queue."""
        done(None)

    def _results_join(self, member: Member, done: Return) -> None:
        self._host.call((c.Join(RESULTS_QUEUE, math.inf),), member, partial(_acknowledged, done))

    def _results_qsize(self, member: Member, done: Return) -> None:
        done(self._host.takeable(RESULTS_QUEUE))

    def _results_empty(self, member: Member, done: Return) -> None:
        done(not self._host.takeable(RESULTS_QUEUE))

    def _results_full(self, member: Member, done: Return) -> None:
        done(False)

    # --- jobs ---------------------------------------------------------------------------------------

    def _jobs_submit(self, member: Member, done: Return, task: str, *args: object, **kwargs: object) -> None:
        chunk = self._chunk(Terms(_free(task)), codec.encode_arguments(codec.PLAIN, args, kwargs))
        job = f"{self._origin}-{chunk.first}"
        self._put(done, chunk, job)

    def _jobs_result(self, member: Member, done: Return, job: str, timeout: float | None = None) -> None:
        def deliver(replies: list[r.Reply]) -> None:
            outcomes = replies[0]
            if isinstance(outcomes, r.Refused):
                done(KeyError(outcomes.message))
            elif isinstance(outcomes, r.Outcomes) and outcomes.outcomes:
                done(as_answer(outcomes.outcomes[0]))
            else:
                done(TimeoutError(f"job {job} has not ended yet"))

        self._host.call([c.Await([_job_id(job)], _patience(True, timeout))], member, deliver)

    def _jobs_show(self, member: Member, done: Return, job: str) -> None:
        def deliver(replies: list[r.Reply]) -> None:
            views = replies[0]
            if isinstance(views, r.Views) and views.jobs:
                view = views.jobs[0]
                names = ("id", "task", "queue", "state", "failures", "crashes", "interruptions", "reason")
                done({name: getattr(view, name) for name in names})
            else:
                done(KeyError(f"there is no job {job}"))

        self._host.call([c.Get([_job_id(job)])], member, deliver)

    # --- shared -------------------------------------------------------------------------------------

    def _put(self, done: Return, chunk: NewChunk, value: object = None) -> None:
        self._host.call((c.Submit(self._origin, [chunk]),), self._inside, partial(_accepted, done, value))

    def _chunk_of(self, item: object) -> NewChunk:
        """Return the chunk for `put(item)`: a pill, a job for any worker, or an item for plain clients."""
        if item is None:
            return self._chunk(_PILL, pickled(None))
        if isinstance(item, tuple) and _is_call(item):
            args = item[1] if len(item) > 1 else ()
            kwargs = item[2] if len(item) > 2 else {}
            return self._job({"task": item[0], "args": args, "kwargs": kwargs})
        if isinstance(item, dict) and isinstance(item.get("task"), str) and _JOB_FIELDS.issuperset(item):
            return self._job(item)
        return self._chunk(_ITEM, pickled(item))

    def _job(self, fields: Mapping[str, Any]) -> NewChunk:
        retries, backoff, timeout = (fields.get(name) for name in ("retries", "backoff", "timeout"))
        terms = Terms(
            task=_free(fields["task"]),
            queue=_free(fields.get("queue", DEFAULT_QUEUE)),
            priority=int(fields.get("priority", 0)),
            retries=None if retries is None else int(retries),
            backoff=None if backoff is None else float(backoff),
            timeout=None if timeout is None else float(timeout),
            answer=True,
        )
        args, kwargs = fields.get("args", ()), fields.get("kwargs", {})
        if not isinstance(args, tuple | list) or not isinstance(kwargs, dict):
            raise TypeError("'args' must be a list or tuple, and 'kwargs' a dict")
        body = codec.encode_arguments(codec.PLAIN, args, kwargs)
        return self._chunk(terms, body, float(fields.get("delay", 0.0)), _key(fields.get("key")))

    def _chunk(self, terms: Terms, body: bytes, delay: float = 0.0, key: str = "") -> NewChunk:
        """Return a job as a chunk; it gets the next number only if its values are valid.

        Raises:
            ValueError: a value from the client is out of bounds.
        """
        chunk = NewChunk(self._next_number, terms, [body], delay, key)
        check_chunk(chunk)
        self._next_number += 1
        return chunk


def _accepted(done: Return, value: object, replies: list[r.Reply]) -> None:
    """Answer a put with *value*, or with an exception if it was refused."""
    accepted = replies[0]
    if isinstance(accepted, r.Refused):
        done(ValueError(accepted.message))
    elif isinstance(accepted, r.Accepted) and accepted.notes and accepted.notes[0].code:
        note = accepted.notes[0]
        full = note.code in ("queue_full", "journal_full", "draining")
        done(queue.Full() if full else ValueError(note.message))
    else:
        done(value)


def _granted(member: Member, done: Return, replies: list[r.Reply]) -> None:
    grant = replies[0]
    if isinstance(grant, r.Grant) and grant.deliveries:
        done(as_put(grant.deliveries[0]))
    elif isinstance(grant, r.Grant) and grant.pill:
        member.pills += 1
        done(None)
    elif isinstance(grant, r.Refused):
        done(ValueError(grant.message))
    else:
        done(queue.Empty())


def _acknowledged(done: Return, _replies: list[r.Reply]) -> None:
    done(None)


def _free(name: object) -> str:
    """Return the name of a task or queue that a client may choose.

    Raises:
        ValueError: the name is invalid or reserved. Under a reserved name, every body is a pickle that the
            manager has made itself.
    """
    if not isinstance(name, str) or not is_free_name(name):
        raise ValueError(
            f"{name!r:.{NAME_MAX}} cannot name a task or a queue; a name is text of 1 to {NAME_MAX} "
            "printable characters and begins with no '#'"
        )
    return name


def _key(key: object) -> str:
    """Return the key that a client chose, or an empty text if it chose none.

    Raises:
        ValueError: the key is empty, or no text.
    """
    if key is None:
        return ""
    if not isinstance(key, str) or not key:
        raise ValueError(f"{key!r:.{NAME_MAX}} cannot be a key; keys are text of 1 to {NAME_MAX} characters")
    return key


def _job_id(job: object) -> str:
    if not isinstance(job, str):
        raise TypeError(f"a job is named by its id, which is text, not {type(job).__name__}")
    if len(job) > JOB_ID_MAX:
        raise ValueError(f"a job's id has at most {JOB_ID_MAX} characters, not {len(job)}")
    return job


def _is_call(item: tuple[Any, ...]) -> bool:
    return (
        1 < len(item) < 4
        and isinstance(item[0], str)
        and ":" in item[0]
        and isinstance(item[1], tuple | list)
        and (len(item) < 3 or isinstance(item[2], dict))
    )


def _patience(block: object, timeout: object) -> float:
    if not block:
        return 0.0
    if timeout is None:
        return math.inf
    if not isinstance(timeout, int | float) or not 0 <= timeout <= SECONDS_MAX:
        raise ValueError(f"'timeout' must be a non-negative number of seconds, {SECONDS_MAX:.0f} at most")
    return float(timeout)
