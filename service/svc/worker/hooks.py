"""Hooks: a user's functions that a consumer calls once at its start and once at its end.

`@on_start` and `@on_stop` only mark a function. `Hooks.load` finds the marked ones among the names of the
task modules, in the order of their definition.
"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

import structlog

from svc.errors import ConfigurationError
from svc.worker.registry import HOOK, place_of

Function = TypeVar("Function", bound=Callable[[], object])
_START: Final = "start"
_STOP: Final = "stop"


def on_start(function: Function) -> Function:
    """Mark a function without parameters that each consumer calls before its first job.

    It loads a model or opens a pool of connections, for instance, and keeps it in a global variable for the
    tasks. A consumer takes jobs only after all such functions have returned. If one raises, the consumer has
    failed to start, as if its task module could not be imported. It is no task.

    Raises:
        ConfigurationError: it is no function, or a coroutine function or generator.
    """
    return cast("Function", _marked(function, _START))


def on_stop(function: Function) -> Function:
    """Mark a function without parameters that each consumer calls after its last job, if it leaves in order.

    The last one of a module is called first. If one raises, that is logged, and the others are called. A
    consumer that dies or is killed calls none. All together have the worker's grace. It is no task.

    Raises:
        ConfigurationError: it is no function, or a coroutine function or generator.
    """
    return cast("Function", _marked(function, _STOP))


def _marked(function: Any, kind: str) -> Any:
    # A call of these would do nothing but make an object.
    lazy = (
        inspect.iscoroutinefunction(function)
        or inspect.isgeneratorfunction(function)
        or inspect.isasyncgenfunction(function)
    )
    if lazy or not callable(function) or isinstance(function, type):
        raise ConfigurationError(
            f"@on_{kind} marks a plain function, without `async` and `yield`, and not {function!r}"[:500]
        )
    setattr(function, HOOK, kind)
    return function


@dataclass(frozen=True, slots=True)
class Hooks:
    """The hooks of one consumer, each with its name."""

    _starting: Sequence[tuple[str, Callable[[], object]]]
    _stopping: Sequence[tuple[str, Callable[[], object]]]

    @classmethod
    def load(cls, modules: Sequence[str]) -> Hooks:
        """Return the hooks in *modules*, which have been imported; one with two names counts once."""
        found: dict[int, tuple[str, str, Callable[[], object]]] = {}
        for module in modules:
            for name, value in vars(importlib.import_module(module)).items():
                kind = inspect.getattr_static(value, HOOK, None)
                if kind in (_START, _STOP):
                    found.setdefault(id(value), (kind, f"{module}:{name}", value))
        hooks = found.values()
        return cls(
            [(name, function) for kind, name, function in hooks if kind == _START],
            [(name, function) for kind, name, function in hooks if kind == _STOP],
        )

    @property
    def has_stop(self) -> bool:
        """Whether there is anything to call at the end."""
        return bool(self._stopping)

    def start(self) -> None:
        """Call the hooks of the start, in their order.

        Raises:
            ConfigurationError: one has raised; says which, and where.
        """
        for name, function in self._starting:
            error = _error_of(function)
            if error is not None:
                raise ConfigurationError(f"the hook {name} of @on_start failed: {_told(error)}") from error

    def stop(self) -> None:
        """Call the hooks of the end, the last one first; log the failed ones."""
        log = structlog.get_logger()
        for name, function in reversed(self._stopping):
            error = _error_of(function)
            if error is not None:
                log.error("stop_hook_failed", hook=name, error=_told(error))


def _error_of(function: Callable[[], object]) -> BaseException | None:
    process = os.getpid()
    try:
        function()
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt of a hook are failures of it
        found: BaseException | None = error
    else:
        found = None
    if os.getpid() != process:
        os._exit(1)  # a fork that the hook made came back here; the consumer is its parent
    return found


def _told(error: Any) -> str:
    return f"{type(error).__name__}: {error}{place_of(error)}"
