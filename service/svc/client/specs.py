"""Descriptions of jobs by their callers: tasks, options, and the terms that follow from them. Pure."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import msgspec

from svc import codec
from svc.annotations import Demands, demands_of
from svc.callables import name_of
from svc.domain.job import CALL, DEFAULT_QUEUE, NewChunk, Terms, check_chunk
from svc.domain.names import shown_name
from svc.errors import BadRequest, CodecError

#: Advice for a missing pickle key.
NEEDED = (
    "make one with `svc auth generate --pickle`, give it to submitters and workers, and name it with "
    "pickle_key_file or SVC_PICKLE_KEY_FILE"
)

#: The task of a job: the name of a task, a function that workers can import, or any callable.
TaskLike = str | Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Options:
    """The terms of a job that its caller may choose; None leaves the choice to the task.

    Attributes:
        queue: the queue of the job.
        priority: jobs of a higher priority are taken first.
        delay: seconds until the job is ready.
        key: the same key with the same task and arguments is the same job.
        retries: attempts after the first failed one.
        backoff: seconds before the first retry; doubled for each further retry.
        timeout: seconds after which an attempt is killed.
        codec: `plain`, or `pickle` for arguments that are not plain data.
        strict: whether to refuse a task that no connected worker knows.
    """

    queue: str = DEFAULT_QUEUE
    priority: int = 0
    delay: float = 0.0
    key: str = ""
    retries: int | None = None
    backoff: float | None = None
    timeout: float | None = None
    codec: str = codec.PLAIN
    strict: bool = False


# One is made for every job: a struct costs a tenth of a frozen dataclass.
class JobSpec(msgspec.Struct, frozen=True):
    """One job to submit."""

    task: TaskLike
    args: Sequence[object] = ()
    kwargs: dict[str, object] = {}
    options: Options = Options()


class JobTemplate(msgspec.Struct, frozen=True):
    """The parts that all jobs of one task and options share.

    Attributes:
        task: the task as its caller named it.
        options: the options that it was submitted with.
        name: the name under which workers know the task; None if each job carries the callable itself.
        terms: the terms of the jobs.
        demands: checks the arguments against the function's annotations; None if there is nothing to check.
    """

    task: TaskLike
    options: Options
    name: str | None
    terms: Terms
    demands: Demands | None

    @classmethod
    def of(cls, task: TaskLike, options: Options, *, signs: bool) -> JobTemplate:
        """Return the template of *task* with *options*; pickles need a key that *signs* them.

        Raises:
            BadRequest: the task is none, or one of the options is out of bounds.
            CodecError: the jobs are pickles, and there is no key.
        """
        _check_kinds(task, options)
        name = task_name(task)
        terms = Terms(
            task=CALL if name is None else name,
            queue=options.queue,
            priority=options.priority,
            codec=codec.PICKLE if name is None else options.codec,
            retries=options.retries,
            backoff=options.backoff,
            timeout=options.timeout,
            label="" if name is not None or isinstance(task, str) else shown_name(name_of(task)),
        )
        try:
            check_chunk(NewChunk(0, terms, [], options.delay, options.key))
        except ValueError as error:
            raise BadRequest(f"the job is out of bounds: {error}") from None
        if options.delay < 0:
            raise BadRequest(f"the job is out of bounds: delay: {options.delay:g} s have passed already")
        if terms.codec == codec.PICKLE and not signs:
            raise CodecError(f"a pickled job has to be signed; {NEEDED}")
        is_data = isinstance(task, FunctionType) and terms.codec == codec.PLAIN
        return cls(task, options, name, terms, demands_of(task) if is_data else None)

    def fits(self, spec: JobSpec) -> bool:
        """Return whether the job in *spec* is of this template."""
        return spec.task is self.task and spec.options is self.options


def task_name(task: TaskLike) -> str | None:
    """Return the name under which workers know *task*, or None if it has to be sent as a pickle.

    A function has the name under which it was registered; otherwise `module:qualname` if another process can
    import it. Lambdas, local functions, bound methods, objects, and the functions of a script cannot be
    imported.
    """
    if isinstance(task, str):
        return task
    registered = getattr(task, "task_name", None)
    if isinstance(registered, str):
        return registered
    if not (inspect.isroutine(task) or inspect.isclass(task)):
        return None
    module, path = getattr(task, "__module__", None), task.__qualname__
    return f"{module}:{path}" if module != "__main__" and _at(module, path) is task else None


def _at(module: str | None, path: str) -> object:
    found: object = sys.modules.get(module or "")
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def _check_kinds(task: object, options: Options) -> None:
    """See to what no bound of a chunk says, as it is no part of one or any name would do.

    Raises:
        BadRequest: the task or an option is of a wrong kind.
    """
    if not (isinstance(task, str) or callable(task)):
        raise BadRequest(f"a task is a name or a callable, not {task!r:.60}")
    if options.codec not in codec.CODECS:
        raise BadRequest(f"{options.codec!r:.60} is not a codec; codecs are {', '.join(codec.CODECS)}")
    if not isinstance(options.strict, bool):
        raise BadRequest(f"strict is True or False, not {options.strict!r:.60}")
