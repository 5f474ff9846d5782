"""The functions that a worker runs, and their names.

`@task` only marks a function; nothing is registered by an import. `Registry.load` makes the table once,
when a consumer starts. A task name from the wire is looked up in this table only.
"""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Final, ParamSpec, TypeVar, overload

from svc.declarations import written_size
from svc.domain.field_bounds import TASKS_MAX
from svc.domain.job import CALL
from svc.domain.limits import MEMORY_MAX, MEMORY_MIN, NUMBER_MAX, SECONDS_MAX, TIMEOUT_MIN
from svc.domain.names import NAME_MAX, did_you_mean, is_name
from svc.domain.retry import DEFAULT_BACKOFF, DEFAULT_RETRIES
from svc.errors import ArgumentError, ConfigurationError, TaskNotFound
from svc.worker.arguments import Arguments, Signature

P = ParamSpec("P")
R = TypeVar("R")

#: The most jobs that one consumer runs at once; each has a lease, and a hello names them all.
CONCURRENCY_MAX = 1000
#: The most jobs in one list, likewise; and the most seconds that a list may wait for more.
BATCH_MAX = 1000
LINGER_MAX = 60.0
#: The attribute of a function in which `task` stores its options.
_OPTIONS = "task_options"
#: The attribute in which it stores a given name; the client reads it.
_NAME = "task_name"
#: The attribute in which it stores a batch, likewise: the parameters are not those of the jobs then.
_BATCH = "task_batch"
#: The attribute in which `hooks` stores the time of a call: such a function is no task.
HOOK = "task_hook"
_WHOLE, _SECONDS, _BYTES = "a whole number", "a number of seconds", "a whole number of bytes"
#: The kind of each option that is a number, its least and its most, and its value without such a limit.
_BOUNDS: Final[Mapping[str, tuple[str, float, float, object]]] = {
    "retries": (_WHOLE, 0, NUMBER_MAX, DEFAULT_RETRIES),
    "backoff": (_SECONDS, 0, SECONDS_MAX, DEFAULT_BACKOFF),
    "timeout": (_SECONDS, TIMEOUT_MIN, SECONDS_MAX, None),
    "soft_timeout": (_SECONDS, TIMEOUT_MIN, SECONDS_MAX, None),
    "max_rss": (_BYTES, MEMORY_MIN, MEMORY_MAX, None),
    "concurrency": (_WHOLE, 1, CONCURRENCY_MAX, 1),
    "batch": (_WHOLE, 1, BATCH_MAX, None),
    "linger": (_SECONDS, 0, LINGER_MAX, 0.0),
}
_IMPORTLIB = importlib.__file__
_OURS = str(Path(__file__).parent)


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """The options that a task declares; the terms of a job override them.

    Attributes:
        name: the name under which it is submitted; empty for `module:function`.
        retries: attempts after the first.
        backoff: seconds before the first retry, doubled for each further retry.
        timeout: seconds after which the consumer that runs it is killed; None for never.
        soft_timeout: seconds after which `SoftTimeout` is raised in it; None for never.
        max_rss: bytes of memory above which the consumer that runs it is killed; None for no limit.
        keep_children: whether processes that it starts live on after an attempt, until the consumer ends.
        concurrency: how many of its jobs one consumer runs at once; more than 1 for a coroutine only.
        batch: how many jobs one call gets at most, as a list; None if each call is one job.
        linger: seconds that a list which is not full waits for more jobs, from its first one on.
    """

    name: str = ""
    retries: int = DEFAULT_RETRIES
    backoff: float = DEFAULT_BACKOFF
    timeout: float | None = None
    keep_children: bool = False
    soft_timeout: float | None = None
    max_rss: int | None = None
    concurrency: int = 1
    batch: int | None = None
    linger: float = 0.0

    def __post_init__(self) -> None:
        if self.name.startswith(("#", "svc:")) or self.name != self.name.strip():
            raise ConfigurationError(
                f"{self.name!r} cannot name a task; `#` and `svc:` at its start are taken"
            )
        if self.name and not is_name(self.name):
            raise ConfigurationError(
                f"{self.name[:NAME_MAX]!r} cannot name a task; a name has up to {NAME_MAX} characters, "
                "all of them printable"
            )
        for name, bounds in _BOUNDS.items():
            _check_number(name, getattr(self, name), *bounds)
        self._check_limits()
        self._check_lists()

    def _check_lists(self) -> None:
        if self.linger and self.batch is None:
            raise ConfigurationError("linger is for tasks that get lists of jobs; name a batch, too")
        if self.batch is not None and self.concurrency > 1:
            raise ConfigurationError(
                "a task has a batch or a concurrency, not both: a list of jobs is one call, and a consumer "
                "runs one at a time"
            )

    def check_max_rss(self, max_rss: int | None) -> None:
        """See that a job may have *max_rss*, in bytes: of jobs side by side nothing tells whose memory it is.

        Raises:
            ConfigurationError: it may not.
        """
        if self.concurrency > 1 and max_rss is not None:
            raise ConfigurationError("max_rss is for one job at a time; leave it out, or the concurrency")

    def _check_limits(self) -> None:
        self.check_max_rss(self.max_rss)
        if self.timeout and self.soft_timeout and self.soft_timeout >= self.timeout:
            raise ConfigurationError(
                f"the soft_timeout of {self.soft_timeout:g} s does nothing: it is not below the timeout "
                f"of {self.timeout:g} s; make it shorter, or leave one out"
            )


def _check_number(name: str, value: object, kind: str, least: float, most: float, without: object) -> None:
    """See that an option is a number within its bounds; a caller without a type checker may give anything.

    Raises:
        ConfigurationError: it is not, nor is it the value *without* such a limit.
    """
    if value is None and without is None:
        return
    types = (int, float) if kind == _SECONDS else int
    if isinstance(value, types) and not isinstance(value, bool) and least <= value <= most:
        return
    left_out = "; leave it out for none" if without is None else ""
    extent = f"{least:.10g} to {most:.16g}"
    if kind == _BYTES:
        extent = f"{written_size(int(least))} to {written_size(int(most))}"
    raise ConfigurationError(f"the {name} of a task is {kind} from {extent}, not {_shown(value)}{left_out}")


def _shown(value: object) -> str:
    try:
        return f"{value!r:.40}"
    except ValueError:
        return "a number of thousands of digits"


@overload
def task(fn: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    retries: int | None = None,
    backoff: float | None = None,
    timeout: float | None = None,
    keep_children: bool = False,
    soft_timeout: float | None = None,
    max_rss: int | None = None,
    concurrency: int = 1,
    batch: int | None = None,
    linger: float = 0.0,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def task(  # noqa: PLR0913 - each is an option of a task
    fn: Callable[P, R] | None = None,
    /,
    *,
    name: str | None = None,
    retries: int | None = None,
    backoff: float | None = None,
    timeout: float | None = None,
    keep_children: bool = False,
    soft_timeout: float | None = None,
    max_rss: int | None = None,
    concurrency: int = 1,
    batch: int | None = None,
    linger: float = 0.0,
    **unknown: object,
) -> Callable[P, R] | Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark a function as a task; it can still be called as before.

    Use it without options (`@task`) or with them: *name* replaces `module:function`, *retries* after the
    first attempt (default 3), *backoff* seconds before the first retry (default 1, doubled each time),
    and *timeout* seconds after which a running attempt is killed (default: none). After *soft_timeout*
    seconds `svc.SoftTimeout` is raised in the task, which may clean up. Above *max_rss* bytes of memory, of
    the consumer and the processes below it, an attempt is killed. Processes that an attempt has started end
    with it, unless *keep_children* is set. One consumer runs up to *concurrency* of its jobs at once if it is
    a coroutine function. With a *batch*, each call gets a list of up to so many jobs (`ListedJob`) and
    returns a list with an outcome for each; a smaller list waits up to *linger* seconds for more.

    Raises:
        ConfigurationError: an option is out of range, or *name* is reserved, or the function is no coroutine
            function and *concurrency* is over 1, or it is a generator function and has a *batch*.
        TypeError: there is no such option; the message has all names.
    """
    for given in unknown:
        names = [each.name for each in fields(TaskOptions)]
        near = did_you_mean(given, names) or "."
        raise TypeError(f"a task has no option {given!r}{near} Options are {', '.join(names)}")
    options = TaskOptions(
        name or "",
        DEFAULT_RETRIES if retries is None else retries,
        DEFAULT_BACKOFF if backoff is None else backoff,
        timeout,
        keep_children,
        soft_timeout,
        max_rss,
        concurrency,
        batch,
        linger,
    )

    def mark(function: Callable[P, R]) -> Callable[P, R]:
        if options.concurrency > 1 and not inspect.iscoroutinefunction(function):
            remedy = "" if inspect.isasyncgenfunction(function) else "write `async def`, or "
            raise ConfigurationError(
                f"{function!r:.200} is no coroutine function, so it cannot have a concurrency of "
                f"{options.concurrency}; {remedy}start more consumers"
            )
        if options.batch is not None:
            if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
                raise ConfigurationError(
                    f"{function!r:.200} is a generator function, so it cannot have a batch: it has to return "
                    "a list with an outcome for each job"
                )
            setattr(function, _BATCH, options.batch)
        setattr(function, _OPTIONS, options)
        if options.name:
            setattr(function, _NAME, options.name)
        return function

    return mark if fn is None else mark(fn)


@dataclass(frozen=True)
class Task:
    """A function and the name by which jobs ask for it; its signature is read when the first job needs it."""

    name: str
    function: Callable[..., Any]
    options: TaskOptions = TaskOptions()
    #: Makes the function that ends itself after so many seconds; None if the supervisor has to see to that.
    within: Callable[[float], Callable[..., Any]] | None = None
    #: Whether it clears up after itself: no look for changes to the process is needed, nor for processes.
    leaves_nothing: bool = False

    @cached_property
    def signature(self) -> Signature:
        """The parameters of the function."""
        return Signature(self.function)

    def bind(self, args: Sequence[Any], kwargs: dict[str, Any], *, convert: bool = True) -> Arguments:
        """Return the arguments, converted to the function's annotations unless *convert* is false.

        Raises:
            ArgumentError: they do not fit; the message names the parameter.
        """
        try:
            return self.signature.bind(args, kwargs, convert)
        except ArgumentError as error:
            raise ArgumentError(f"{self.name}: {error}") from None


class Registry:
    """The tasks of one worker, by name."""

    def __init__(self, tasks: Sequence[Task] = ()) -> None:
        """Hold *tasks* and the task that every worker has: the call of a pickled callable.

        Raises:
            ConfigurationError: two different functions have one name, or there are too many.
        """
        self._tasks: dict[str, Task] = {}
        for each in (Task(CALL, _call), *tasks):
            known = self._tasks.setdefault(each.name, each)
            if known.function is not each.function:
                raise ConfigurationError(f"two functions have the task name {each.name!r}; rename one")
        if len(self._tasks) > TASKS_MAX:
            raise ConfigurationError(
                f"there are {len(self._tasks)} tasks and a worker may know {TASKS_MAX}; name fewer modules"
            )

    @classmethod
    def load(cls, modules: Sequence[str], own: Sequence[Task] = ()) -> Registry:
        """Import *modules* and return their tasks, and those of svc's *own* that the worker was given.

        These are the functions marked with `@task`, under their name or as `module:function`, and every
        public function that a module itself defines, as `module:function`.

        Raises:
            ConfigurationError: a module cannot be imported, or two functions have one name.
        """
        return cls([*own, *(each for module in modules for each in _tasks_of(_import(module)))])

    def names(self) -> list[str]:
        """Return all names by which a job can ask for a task, sorted."""
        return sorted(filter(is_name, self._tasks))

    def get(self, name: str) -> Task:
        """Return the task with that name.

        Raises:
            TaskNotFound: there is none; the message has the most similar names.
        """
        found = self._tasks.get(name)
        if found is not None:
            return found
        hint = did_you_mean(name, self._tasks) or "; start a worker with its module in --tasks"
        raise TaskNotFound(f"this worker has no task {name[:NAME_MAX]!r}{hint}")


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        why = f"{type(error).__name__}: {error}{_module_meant(name)}{place_of(error)}"
        raise ConfigurationError(f"the task module {name!r} cannot be imported: {why}") from error


def _module_meant(name: str) -> str:
    """Return the end of a sentence that says how to write *name*, if that is a file or a task."""
    module, colon, _ = name.partition(":")
    if colon and module:
        return f"; write the module's name: --tasks {module}"
    path = Path(name)
    if path.suffix != ".py" and len(path.parts) < 2:
        return ""
    elsewhere = path.is_absolute() or ".." in path.parts
    module = path.stem if elsewhere else ".".join(path.with_suffix("").parts)
    return f"; write the module's name: --tasks {module}"


def place_of(error: BaseException) -> str:
    """Return the traceback of *error*, each frame on its own line, without frames of svc and importlib."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<frozen importlib", _OURS)) and frame.filename != _IMPORTLIB
    ]
    return "\n" + "".join(traceback.format_list(frames)).rstrip() if frames else ""


def _tasks_of(module: ModuleType) -> Iterator[Task]:
    for name, value in sorted(vars(module).items()):
        # A static look-up: an access must not trigger a lazy proxy among the names of a module.
        options = inspect.getattr_static(value, _OPTIONS, None)
        home = f"{module.__name__}:{name}"
        if isinstance(options, TaskOptions) and callable(value):
            yield from _marked(value, options, home)
        elif inspect.isfunction(value) and value.__module__ == module.__name__ and _is_public(name, value):
            yield Task(home, value)


def _is_public(name: str, function: Callable[..., Any]) -> bool:
    return not (name.startswith("_") or hasattr(function, HOOK))


def _marked(function: Callable[..., Any], options: TaskOptions, home: str) -> Iterator[Task]:
    """Yield a marked function under its own name, or under the places of its discovery and definition."""
    if options.name:
        yield Task(options.name, function, options)
    public = not home.partition(":")[2].startswith("_")
    if public or not options.name:
        yield Task(home, function, options)
        origin = f"{function.__module__}:{getattr(function, '__qualname__', '')}"
        if origin != home:
            yield Task(origin, function, options)


def _call(target: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call the first argument with the others."""
    return target(*args, **kwargs)
