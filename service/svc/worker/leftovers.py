"""Clears up after tasks: the processes that they leave behind, and changes to the consumer's process.

A task must not leave the state of the process changed for the next one.
"""

from __future__ import annotations

import contextlib
import importlib
import locale
import math
import operator
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from svc.worker import control_group
from svc.worker.offspring import children_check, descendants, end_descendants, has_children
from svc.worker.stragglers import end_stragglers

#: Seconds that a job runs before it is looked at by itself, and between two looks at the process's state.
#: Such a look takes some 14 µs, and a job that does nothing 4: so all looks take 2 % of the time at most.
LOOK_SECONDS = 0.001
_SIGNALS: Final = [int(number) for number in signal.valid_signals()]
#: The functions below those of `signal`, which make enumeration members each time and are far slower, and
#: below `locale.setlocale`.
_handler_of: Callable[[int], Any] = importlib.import_module("_signal").getsignal
_set_mask: Callable[[int, Iterable[int]], set[int]] = importlib.import_module("_signal").pthread_sigmask
_locale_of: Callable[[int], str] = importlib.import_module("_locale").setlocale
#: Returns whether a timer runs; whether a stream is closed; device and inode of an open file.
_runs: Callable[[tuple[float, float]], bool] = (0.0, 0.0).__lt__
_is_closed = operator.attrgetter("closed")
_file_of = operator.attrgetter("st_dev", "st_ino")
_TIMERS: Final = [getattr(signal, name) for name in dir(signal) if name.startswith("ITIMER_")]
_LIMITS: Final = sorted({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")})
#: The last parts of `ProcessState._look`, in order: these cannot be restored.
_FIXED: Final = (
    "locale",
    "signal handlers",
    "interval timers",
    "resource limits",
    "user and groups",
    "priority",
    "standard files",
    "standard streams",
)


class Leftovers:
    """Clears up after tasks, in a process that belongs to one consumer alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Take everything that is there for the modules' own; *clock* gives seconds that never go back."""
        self._state = ProcessState()
        self._has_children = children_check()
        #: The processes that live on: of modules, and of tasks that keep them.
        self._kept = descendants(os.getpid()) if has_children() else set()
        self._clock = clock
        self._looked_at = -math.inf
        self._looked = True

    def clear(self, *, keep_children: bool) -> list[str]:
        """End or keep the processes that were started since the last call, and restore the process's state.

        The state is left to `catch_up` if it was looked at a moment ago. Returns names of changes that cannot
        be put back: the process has to be replaced.
        """
        if self._has_children():
            self._settle(keep=keep_children)
        self._looked = False
        return self.catch_up()

    def catch_up(self) -> list[str]:
        """Put the state back if that is due; return as `clear` does. To be called before the next jobs."""
        if self._looked:
            return []
        now = self._clock()
        if now < self._looked_at + LOOK_SECONDS:
            return []
        self._looked_at, self._looked = now, True
        return self._state.restore()

    def _settle(self, *, keep: bool) -> None:
        if keep:
            self._kept = descendants(os.getpid())
        else:
            end_stragglers(self._kept)

    def end(self) -> None:
        """End all processes, because this one ends."""
        if has_children():
            control_group.end_others()
            end_descendants(os.getpid())


class ProcessState:
    """The state of this process at one moment, to compare with later and to restore.

    The working directory, the environment, the umask, the blocked signals (of which the interruption of a
    task is one), the CPUs, Python's limit on recursion, `sys.stdin`, `stdout` and `stderr`, and whether the
    descriptors 1 and 2 block, are restored.
    Libraries may depend on the rest of the state, so if that has changed, the process has to be replaced.
    """

    def __init__(self) -> None:
        """Save the current state."""
        self._directory = _directory()
        self._environment, self._variables = dict(os.environ), dict(environment())
        self._umask = os.umask(0o022)
        os.umask(self._umask)
        self._blocked = _set_mask(signal.SIG_BLOCK, ())
        self._cpus = os.sched_getaffinity(0)
        self._recursion = sys.getrecursionlimit()
        self._streams = (sys.stdin, sys.stdout, sys.stderr)
        self._blocking = [*map(_blocks, (1, 2))]
        self._there = [stream for stream in self._streams if stream is not None]
        self._kept = self._look()
        self._kept[0] = self._variables  # the environment itself changes

    def is_kept(self) -> bool:
        """Return whether all is as it was."""
        return self._look() == self._kept

    def _look(self) -> list[object]:
        """Return all that is compared.

        A consumer calls this after each job that is not short. After a sleep the caches are cold, and then a
        function of Python costs more than a system call. So this is one function.
        """
        directory: str | None
        blocking: list[bool | None]
        files: list[tuple[int, int] | None]
        try:
            directory = os.getcwd()  # noqa: PTH109 - as in `_directory`
            blocking = [*map(os.get_blocking, (1, 2))]
            files = [*map(_file_of, map(os.fstat, range(3)))]
        except OSError:  # a descriptor is closed, or there is no directory
            directory, blocking = _directory(), [*map(_blocks, (1, 2))]
            files = [*map(_identity, range(3))]
        return [
            environment(),
            (sys.stdin, sys.stdout, sys.stderr),
            directory,
            os.umask(self._umask),
            _set_mask(signal.SIG_BLOCK, ()),
            os.sched_getaffinity(0),
            sys.getrecursionlimit(),
            blocking,
            _locale_of(locale.LC_ALL),
            [*map(_handler_of, _SIGNALS)],
            [*map(_runs, map(signal.getitimer, _TIMERS))],
            [*map(resource.getrlimit, _LIMITS)],
            (os.getresuid(), os.getresgid(), os.getgroups()),
            os.getpriority(os.PRIO_PROCESS, 0),
            files,
            [*map(_is_closed, self._there)],
        ]

    def restore(self) -> list[str]:
        """Restore the state as far as possible; return the names of other parts that have changed."""
        if self.is_kept():
            return []
        if self._directory is not None and _directory() != self._directory:
            with contextlib.suppress(OSError):
                os.chdir(self._directory)
        if environment() != self._variables:
            os.environ.clear()
            os.environ.update(self._environment)
        os.umask(self._umask)
        if _set_mask(signal.SIG_BLOCK, ()) != self._blocked:
            _set_mask(signal.SIG_SETMASK, self._blocked)
        if os.sched_getaffinity(0) != self._cpus:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, self._cpus)
        if sys.getrecursionlimit() != self._recursion:
            sys.setrecursionlimit(self._recursion)
        sys.stdin, sys.stdout, sys.stderr = self._streams
        for descriptor, blocking in enumerate(self._blocking, 1):
            if _blocks(descriptor) not in (blocking, None):
                os.set_blocking(descriptor, bool(blocking))
        fixed, saved = (parts[-len(_FIXED) :] for parts in (self._look(), self._kept))
        return [name for name, now, before in zip(_FIXED, fixed, saved, strict=True) if now != before]


def _blocks(descriptor: int) -> bool | None:
    """Return whether a descriptor blocks, or None if it is closed."""
    try:
        return os.get_blocking(descriptor)
    except OSError:
        return None


def _directory() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - a Path costs ten times as much
    except OSError:
        return None


def environment() -> Mapping[Any, Any]:
    """Return the environment in its internal form of bytes: decoding it for a comparison takes 20 µs."""
    kept: Mapping[Any, Any] = getattr(os.environ, "_data", os.environ)
    return kept


def _identity(descriptor: int) -> tuple[int, int] | None:
    """Return the device and inode of an open file, or None if the descriptor is closed."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino
