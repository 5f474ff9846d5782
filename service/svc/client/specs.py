"""Descriptions of jobs by their callers: tasks, options, and the terms that follow from them. Pure."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import FunctionType
from typing import Any

import msgspec

from svc import codec
from svc.annotations import Demands, demands_of, signature_of
from svc.callables import name_of
from svc.domain.job import CALL, DEFAULT_QUEUE, NewChunk, Terms, check_chunk
from svc.domain.limits import SECONDS_MAX, TIMEOUT_MIN
from svc.domain.names import did_you_mean, shown_name
from svc.errors import BadRequest, CodecError

#: Advice for a missing pickle key.
NEEDED = (
    "make one with `svc auth generate --pickle`, give it to submitters and workers, and name it with "
    "pickle_key_file or SVC_PICKLE_KEY_FILE"
)

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

#: The types of the options, and the words for them.
_TYPES: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}
_OF_TERMS = ("queue", "priority", "codec", "retries", "backoff", "timeout", "soft_timeout", "max_rss")
_KINDS = {"str": "a text", "int": "a whole number", "float": "a number of seconds", "bool": "True or False"}

#: The task of a job: the name of a task, a function that workers can import, or any callable.
TaskLike = str | Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Options:
    """The terms of a job that its caller may choose; None leaves the choice to the task.

    Attributes:
        queue: the queue of the job.
        priority: jobs of a higher priority are taken first.
        delay: seconds until the job is ready.
        key: the same key with the same task and arguments is the same job; keyword arguments may have any
            order, and the task gets them in the order of their names.
        retries: attempts after the first failed one.
        backoff: seconds before the first retry; doubled for each further retry.
        timeout: seconds after which an attempt is killed.
        codec: `plain`, or `pickle` for arguments that are not plain data.
        strict: whether to refuse a task that no connected worker knows.
        soft_timeout: seconds after which `SoftTimeout` is raised in the task.
        max_rss: bytes of memory above which an attempt is killed.
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
    soft_timeout: float | None = None
    max_rss: int | None = None

    def changed(self, changes: Mapping[str, Any]) -> Options:
        """Return options with *changes*.

        Raises:
            TypeError: there is no such option; the message has all names.
        """
        names = [each.name for each in fields(self)]
        for name in changes:
            if name not in names:
                near = did_you_mean(name, names) or "."
                raise TypeError(f"there is no option {name!r}{near} Options are {', '.join(names)}")
        return replace(self, **changes)

    def check(self) -> None:
        """See that jobs may have these options.

        Raises:
            BadRequest: an option is of a wrong kind, or out of bounds; the message names it.
        """
        _check_codec(self)
        _check_bounds(Terms("any", **{name: getattr(self, name) for name in _OF_TERMS}), self)


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
        typed_terms: the terms of those jobs whose arguments need extension types.
        demands: checks the arguments against the function's annotations; None if there is nothing to check.
    """

    task: TaskLike
    options: Options
    name: str | None
    terms: Terms
    typed_terms: Terms
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
            soft_timeout=options.soft_timeout,
            max_rss=options.max_rss,
            label="" if name is not None or isinstance(task, str) else shown_name(name_of(task)),
            typed=True,
            large=True,
        )
        _check_bounds(terms, options)
        if terms.codec == codec.PICKLE and not signs:
            raise CodecError(f"a pickled job has to be signed; {NEEDED}")
        is_data = isinstance(task, FunctionType) and terms.codec == codec.PLAIN and not _gets_lists(task)
        typed_terms = msgspec.structs.replace(terms, codec=codec.TYPED)
        return cls(task, options, name, terms, typed_terms, demands_of(task) if is_data else None)

    def parameter_names(self, count: int) -> list[str]:
        """Return a name for each of the first *count* values of a body: its parameter's, or its number."""
        task = self.task
        names: list[str] = []
        if not isinstance(task, str) and not _gets_lists(task):
            parameters = signature_of(task).parameters.values()
            names = [each.name for each in parameters if each.kind in _POSITIONAL]
        names += [str(number) for number in range(len(names) + 1, count + 1)]
        return names[:count] if self.name is not None else ["0 (the callable)", *names][:count]


def _check_bounds(terms: Terms, options: Options) -> None:
    """See that jobs may have *terms*, which follow from *options*.

    Raises:
        BadRequest: an option is of a wrong kind, or out of bounds; the message names it.
    """
    try:
        check_chunk(NewChunk(0, terms, [], options.delay, options.key))
    except ValueError as error:
        _check_types(options)
        _check_times(options)
        raise BadRequest(f"the job is out of bounds: {error}") from None
    if options.delay < 0:
        raise BadRequest(f"the job is out of bounds: delay: {options.delay:g} s have passed already")
    _check_times(options)


def _check_types(options: Options) -> None:
    """See that each option is of its kind.

    Raises:
        BadRequest: one is not; says what it has to be.
    """
    for each in fields(options):
        kind, value = str(each.type).removesuffix(" | None"), getattr(options, each.name)
        fits = isinstance(value, _TYPES[kind]) and isinstance(value, bool) == (kind == "bool")
        if fits or value is None:
            continue
        words = "a number of bytes, as a whole number" if each.name == "max_rss" else _KINDS[kind]
        raise BadRequest(f"the option {each.name} of a job is {words}, not {value!r:.60}")


def _check_times(options: Options) -> None:
    """See that the timeouts leave time to run in, which the bounds of older clients' jobs do not ask for.

    Raises:
        BadRequest: one is too short, or the soft one is not shorter than the other.
    """
    for name, value in (("timeout", options.timeout), ("soft_timeout", options.soft_timeout)):
        if value is not None and value < TIMEOUT_MIN:
            raise BadRequest(
                f"the job is out of bounds: {name}: {value:g} s is too short; it takes {TIMEOUT_MIN:g} s at "
                "least, or leave it out for none"
            )
    if options.timeout and options.soft_timeout and options.soft_timeout >= options.timeout:
        raise BadRequest(
            f"the soft_timeout (--soft-timeout) of {options.soft_timeout:g} s does nothing: it is not below "
            f"the timeout (--job-timeout) of {options.timeout:g} s; make it shorter, or leave one out"
        )


def _gets_lists(task: Callable[..., Any]) -> bool:
    """Return whether *task* has a batch: its parameter is a list of jobs, and no argument of theirs."""
    return getattr(task, "task_batch", None) is not None


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


def checked_grace(grace: float) -> float:
    """Return the *grace* of a cancel.

    Raises:
        BadRequest: it is no number of seconds within the bounds.
    """
    kind = type(grace) is int or isinstance(grace, float)
    if not (kind and 0 <= grace <= SECONDS_MAX):
        raise BadRequest(
            f"the grace of a cancel is a number of seconds from 0 to {SECONDS_MAX:.0f}, not {grace!r:.40}"
        )
    return float(grace)


def _check_kinds(task: object, options: Options) -> None:
    """See to what no bound of a chunk says, as it is no part of one or any name would do.

    Raises:
        BadRequest: the task or an option is of a wrong kind.
    """
    if not (isinstance(task, str) or callable(task)):
        raise BadRequest(f"a task is a name or a callable, not {task!r:.60}")
    _check_codec(options)


def _check_codec(options: Options) -> None:
    """See to the options of which no bound of a chunk tells.

    Raises:
        BadRequest: the codec is unknown, or `strict` is of a wrong kind.
    """
    if options.codec not in codec.CODECS:
        raise BadRequest(f"{options.codec!r:.60} is not a codec; codecs are {', '.join(codec.CODECS)}")
    if not isinstance(options.strict, bool):
        raise BadRequest(f"strict is True or False, not {options.strict!r:.60}")
