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
from typing import Any, Final

from svc import codec
from svc.broker.host import QueueHost
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.admission import PASSING
from svc.domain.field_bounds import JOB_ID_MAX
from svc.domain.job import (
    DEFAULT_QUEUE,
    RESULTS_QUEUE,
    SHELL,
    Terms,
)
from svc.domain.limits import SECONDS_MAX, TIMEOUT_MIN
from svc.domain.members import Member
from svc.domain.names import NAME_MAX, is_free_name
from svc.domain.plain_commands import ITEM_TERMS, PILL_TERMS, RESULT_TERMS
from svc.errors import JournalError, ServiceError
from svc.server.plain_values import as_answer, as_put, as_raised, as_taken, pickled, shown

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
#: The commands of `get()`.
_LEASE = (c.Lease(1, math.inf),)
#: Characters of a text that is read as a number.
_NUMBER_TEXT_MAX: Final = 64
_JOB_FIELDS = frozenset(
    (
        *("task", "args", "kwargs", "queue", "priority", "delay", "key", "retries", "backoff", "timeout"),
        *("soft_timeout", "max_rss"),
    )
)


def _number(value: object) -> int | float | str:
    """Return a number, or a text that may be one.

    Raises:
        TypeError: it is neither.
        ValueError: the text is too long for a number: to read it, and to tell of it, would take long.
    """
    if isinstance(value, str) and len(value) > _NUMBER_TEXT_MAX:
        raise ValueError(f"{shown(value)} is too long for a number")
    if not isinstance(value, int | float | str):
        raise TypeError(f"a number was expected, not {type(value).__name__}")
    return value


def _whole(value: object) -> int:
    return int(_number(value))


def _float(value: object) -> float:
    return float(_number(value))


def _timeout(value: object) -> float:
    """Return the seconds of a timeout; the other bounds are those of all jobs.

    Raises:
        ValueError: it leaves no time to run in.
    """
    seconds = _float(value)
    if 0 <= seconds < TIMEOUT_MIN:
        raise ValueError(f"a timeout takes {TIMEOUT_MIN:g} s at least, or leave it out for none")
    return seconds


#: The numbers among them that override those of the task.
_NUMBERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "retries": _whole,
    "backoff": _float,
    "timeout": _timeout,
    "soft_timeout": _timeout,
    "max_rss": _whole,
}

Return = Callable[[object], None]


class SharedObjects:
    """Serves the calls of all connections, one at a time; `done` gets the value or the exception."""

    def __init__(self, host: QueueHost) -> None:
        """Serve the queue of *host*."""
        self._host = host
        self._methods: dict[tuple[str, str], Callable[..., None]] = {
            (typeid, name): getattr(self, f"_{typeid}_{name}")
            for typeid, names in EXPOSED.items()
            for name in names
            if name != "call"
        }

    def method(self, typeid: object, name: object) -> Callable[..., None]:
        """Return the method for `typeid.name`, to pass to `carry_out`.

        Raises:
            AttributeError: clients have no such method.
        """
        texts = isinstance(typeid, str) and isinstance(name, str)
        found = self._methods.get((str(typeid), str(name))) if texts else None
        if found is None:
            raise AttributeError(f"{shown(typeid)} has no method {shown(name)} for clients")
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
            done(as_raised(error))

    # --- tasks --------------------------------------------------------------------------------------

    def _tasks_put(
        self, member: Member, done: Return, item: object, block: bool = True, timeout: float | None = None
    ) -> None:
        self._put(member, done, _put_of(item, _patience(block, timeout)))

    def _tasks_put_nowait(self, member: Member, done: Return, item: object) -> None:
        self._tasks_put(member, done, item, False)

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
        self._put(member, done, c.Put(RESULT_TERMS, pickled(item), wait=_patience(block, timeout)))

    def _results_put_nowait(self, member: Member, done: Return, item: object) -> None:
        self._results_put(member, done, item, False)

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
        done(self._host.is_full(RESULTS_QUEUE))

    # --- jobs ---------------------------------------------------------------------------------------

    def _jobs_submit(self, member: Member, done: Return, task: str, *args: object, **kwargs: object) -> None:
        put = c.Put(Terms(_free_task(task)), codec.encode_arguments(codec.PLAIN, args, kwargs))
        self._host.call((put,), member, partial(_accepted, done, named=True))

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

    def _put(self, member: Member, done: Return, put: c.Put) -> None:
        self._host.call((put,), member, partial(_accepted, done))


def _put_of(item: object, wait: float) -> c.Put:
    """Return the command for `put(item)`: a pill, a job for any worker, or an item for plain clients."""
    if item is None:
        return c.Put(PILL_TERMS, pickled(None), wait=wait)
    if isinstance(item, tuple) and _is_call(item):
        args = item[1] if len(item) > 1 else ()
        kwargs = item[2] if len(item) > 2 else {}
        return _job({"task": item[0], "args": args, "kwargs": kwargs}, wait)
    if isinstance(item, dict) and isinstance(item.get("task"), str) and _JOB_FIELDS.issuperset(item):
        return _job(item, wait)
    return c.Put(ITEM_TERMS, pickled(item), wait=wait)


def _job(fields: Mapping[str, Any], wait: float) -> c.Put:
    numbers = {name: fields.get(name) for name in _NUMBERS}
    terms = Terms(
        task=_free_task(fields["task"]),
        queue=_free(fields.get("queue", DEFAULT_QUEUE)),
        priority=_whole(fields.get("priority", 0)),
        answer=True,
        **{name: _NUMBERS[name](value) for name, value in numbers.items() if value is not None},
    )
    args, kwargs = fields.get("args", ()), fields.get("kwargs", {})
    if not isinstance(args, tuple | list) or not isinstance(kwargs, dict):
        raise TypeError("'args' must be a list or tuple, and 'kwargs' a dict")
    body, key, written = codec.encode_arguments(codec.PLAIN, args, kwargs), _key(fields.get("key")), b""
    if key and (in_order := codec.by_name(kwargs)) is not kwargs:
        written, body = body, codec.encode_arguments(codec.PLAIN, args, in_order)
    return c.Put(terms, body, _float(fields.get("delay", 0.0)), key, wait, written)


def _accepted(done: Return, replies: list[r.Reply], *, named: bool = False) -> None:
    """Answer a put: with None, or with the job's id if it is *named*; with an exception if it was refused."""
    accepted = replies[0]
    if isinstance(accepted, r.Refused):
        done(ValueError(accepted.message))
    elif isinstance(accepted, r.Accepted):
        (note,) = accepted.notes
        if note.code:
            done(queue.Full() if note.code in PASSING else ValueError(note.message))
        else:
            done(note.id if named else None)


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
            f"{shown(name)} cannot name a task or a queue; a name is text of 1 to {NAME_MAX} "
            "printable characters and begins with no '#'"
        )
    return name


def _free_task(name: object) -> str:
    """Return the name of a task that a plain client may choose.

    Raises:
        ValueError: the name is invalid or reserved, or asks for a shell command: the right to that is looked
            at in a submit of svc's own clients.
    """
    if name == SHELL:
        raise ValueError(f"{SHELL} is for svc's own clients; submit shell commands with `svc run`")
    return _free(name)


def _key(key: object) -> str:
    """Return the key that a client chose, or an empty text if it chose none.

    Raises:
        ValueError: the key is empty, or no text.
    """
    if key is None:
        return ""
    if not isinstance(key, str) or not key:
        raise ValueError(f"{shown(key)} cannot be a key; keys are text of 1 to {NAME_MAX} characters")
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
