"""The functions that a worker runs, and their names.

`@task` only marks a function; nothing is registered by an import. `Registry.load` makes the table once,
when a consumer starts. A task name from the wire is looked up in this table only.
"""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any, ParamSpec, TypeVar, overload

from svc.domain.field_bounds import TASKS_MAX
from svc.domain.job import CALL
from svc.domain.limits import SECONDS_MAX
from svc.domain.names import NAME_MAX, did_you_mean, is_name
from svc.domain.retry import DEFAULT_BACKOFF, DEFAULT_RETRIES
from svc.errors import ArgumentError, ConfigurationError, TaskNotFound
from svc.worker.arguments import Arguments, Signature

P = ParamSpec("P")
R = TypeVar("R")

#: The attribute of a function in which `task` stores its options.
_OPTIONS = "task_options"
#: The attribute in which it stores a given name; the client reads it.
_NAME = "task_name"
_IMPORTLIB = importlib.__file__


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """The options that a task declares; the terms of a job override them.

    Attributes:
        name: the name under which it is submitted; empty for `module:function`.
        retries: attempts after the first.
        backoff: seconds before the first retry, doubled for each further retry.
        timeout: seconds after which the consumer that runs it is killed; None for never.
        keep_children: whether processes that it starts live on after an attempt, until the consumer ends.
    """

    name: str = ""
    retries: int = DEFAULT_RETRIES
    backoff: float = DEFAULT_BACKOFF
    timeout: float | None = None
    keep_children: bool = False

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
        if self.retries < 0 or not 0 <= self.backoff <= SECONDS_MAX:
            raise ConfigurationError(
                f"retries and backoff of a task cannot be negative, nor the backoff over {SECONDS_MAX:.0f} s"
            )
        if self.timeout is not None and not 0 < self.timeout <= SECONDS_MAX:
            raise ConfigurationError(
                "the timeout of a task must be more than 0 seconds, "
                f"and {SECONDS_MAX:.0f} at most; leave it out for none"
            )


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
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def task(
    fn: Callable[P, R] | None = None,
    /,
    *,
    name: str | None = None,
    retries: int | None = None,
    backoff: float | None = None,
    timeout: float | None = None,
    keep_children: bool = False,
) -> Callable[P, R] | Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark a function as a task; it can still be called as before.

    Use it without options (`@task`) or with them: *name* replaces `module:function`, *retries* after the
    first attempt (default 3), *backoff* seconds before the first retry (default 1, doubled each time),
    and *timeout* seconds after which a running attempt is killed (default: none). Processes that an attempt
    has started end with it, unless *keep_children* is set.

    Raises:
        ConfigurationError: an option is out of range, or *name* is reserved.
    """
    options = TaskOptions(
        name or "",
        DEFAULT_RETRIES if retries is None else retries,
        DEFAULT_BACKOFF if backoff is None else backoff,
        timeout,
        keep_children,
    )

    def mark(function: Callable[P, R]) -> Callable[P, R]:
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
    def load(cls, modules: Sequence[str]) -> Registry:
        """Import *modules* and return their tasks.

        These are the functions marked with `@task`, under their name or as `module:function`, and every
        public function that a module itself defines, as `module:function`.

        Raises:
            ConfigurationError: a module cannot be imported, or two functions have one name.
        """
        return cls([each for module in modules for each in _tasks_of(_import(module))])

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
        raise ConfigurationError(
            f"the task module {name!r} cannot be imported: {type(error).__name__}: {error}{_place_of(error)}"
        ) from error


def _place_of(error: BaseException) -> str:
    """Return the traceback of *error*, each frame on its own line, without frames of svc and importlib."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen importlib") and frame.filename not in (__file__, _IMPORTLIB)
    ]
    return "\n" + "".join(traceback.format_list(frames)).rstrip() if frames else ""


def _tasks_of(module: ModuleType) -> Iterator[Task]:
    for name, value in sorted(vars(module).items()):
        # A static look-up: an access must not trigger a lazy proxy among the names of a module.
        options = inspect.getattr_static(value, _OPTIONS, None)
        home = f"{module.__name__}:{name}"
        if isinstance(options, TaskOptions) and callable(value):
            yield from _marked(value, options, home)
        elif inspect.isfunction(value) and not name.startswith("_") and value.__module__ == module.__name__:
            yield Task(home, value)


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
