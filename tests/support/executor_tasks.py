"""Tasks for the tests of the executor."""

from __future__ import annotations

import builtins
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from svc.worker.registry import task

#: Called once, by the next `add` of this process.
HOOK: list[Callable[[], object]] = []


class Awkward(Exception):
    """Can be pickled, but not unpickled."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__("awkward")


class Noteless(Exception):
    """Ends who tells it more."""

    def add_note(self, note: str) -> None:
        raise SystemExit(note)


class Deadly(Exception):
    """Ends who unpickles it."""

    def __reduce__(self) -> tuple[Callable[[str], Exception], tuple[str]]:
        return _end, (str(self),)


def _end(message: str) -> Exception:
    raise GeneratorExit(message)


def fail_with(kind: str) -> None:
    raise {"noteless": Noteless, "deadly": Deadly}[kind]("as told")


def add(a: int, b: int) -> int:
    if HOOK:
        HOOK.pop()()
    return a + b


@task(retries=0)
def marked(number: int) -> tuple[int, int]:
    return number, number + 1


@task(retries=3)
def stubborn() -> None:
    raise ValueError("again")


def as_it_is(value: object) -> object:
    return value


async def later(value: int) -> int:
    return value


def fail(message: str) -> None:
    raise ValueError(message)


def fail_unpicklably() -> None:
    raise ValueError(threading.Lock())


def fail_and_unpickle_not() -> None:
    raise Awkward(1, 2)


def fail_hugely() -> None:
    raise ValueError("x" * 100_000)


def leave() -> None:
    sys.exit(3)


def die() -> None:
    os._exit(9)


def raised(kind: type[BaseException]) -> None:
    """Raise an error of this kind when a process unpickles a `Poison`."""
    raise kind("poison")


class Poison:
    """Can be pickled; when it is unpickled, it raises the chosen error."""

    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind

    def __reduce__(self) -> tuple[Callable[..., None], tuple[type[BaseException]]]:
        return raised, (self.kind,)


class Unheard(BaseException):
    """An error that is not an Exception."""


def poison(name: str) -> Poison:
    kinds = {"Unheard": Unheard, **vars(builtins)}
    return Poison(kinds[name])


def wait_for(path: str) -> int:
    """Wait until *path* can be read; return this process's id."""
    Path(path).read_bytes()
    return os.getpid()
