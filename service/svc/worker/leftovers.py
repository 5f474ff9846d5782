"""Clears up after tasks: the processes that they leave behind, and changes to the consumer's process.

A task must not leave the state of the process changed for the next one.
"""

from __future__ import annotations

import contextlib
import importlib
import locale
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from svc.worker.offspring import collect_children, descendants, end_descendants, has_children
from svc.worker.process import helper_pids

#: Seconds that a job runs before it is looked at by itself, and between two looks at the process's state.
#: Such a look takes some 12 µs, and a job that does nothing 4: so all looks take 2 % of the time at most.
LOOK_SECONDS = 0.001
_SIGNALS: Final = [int(number) for number in signal.valid_signals()]
#: The function below `signal.getsignal`, which makes an enumeration member each time and is far slower.
_handler_of: Callable[[int], Any] = importlib.import_module("_signal").getsignal
_TIMERS: Final = [getattr(signal, name) for name in dir(signal) if name.startswith("ITIMER_")]
_LIMITS: Final = sorted({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")})
#: The parts that `_fixed` returns, in order.
_FIXED: Final = (
    "locale",
    "signal handlers",
    "interval timers",
    "resource limits",
    "standard files",
    "standard streams",
)


class Leftovers:
    """Clears up after tasks, in a process that belongs to one consumer alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Take everything that is there for the modules' own; *clock* gives seconds that never go back."""
        self._state = _ProcessState()
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
        if has_children():
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
            # multiprocessing's helper processes live on: other tasks rely on them.
            end_descendants(os.getpid(), keep=self._kept, helpers=helper_pids())
            collect_children(self._kept)

    def end(self) -> None:
        """End all processes, because this one ends."""
        if has_children():
            end_descendants(os.getpid())


class _ProcessState:
    """The state of this process at one moment, to compare with later and to restore.

    The working directory, the environment, the umask and `sys.stdin`, `stdout` and `stderr` are restored.
    Libraries may depend on the rest of the state, so if that has changed, the process has to be replaced.
    """

    def __init__(self) -> None:
        """Save the current state."""
        self._directory = _directory()
        self._environment, self._variables = dict(os.environ), dict(_variables())
        self._umask = os.umask(0o022)
        os.umask(self._umask)
        self._streams = (sys.stdin, sys.stdout, sys.stderr)
        self._fixed = _fixed()

    def restore(self) -> list[str]:
        """Restore the state as far as possible; return the names of other parts that have changed.

        A consumer calls this for each grant. So it is written for speed: 12 µs.
        """
        if self._directory is not None and _directory() != self._directory:
            with contextlib.suppress(OSError):
                os.chdir(self._directory)
        if _variables() != self._variables:
            os.environ.clear()
            os.environ.update(self._environment)
        os.umask(self._umask)
        sys.stdin, sys.stdout, sys.stderr = self._streams
        fixed = _fixed()
        if fixed == self._fixed:
            return []
        return [name for name, now, saved in zip(_FIXED, fixed, self._fixed, strict=True) if now != saved]


def _directory() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - a Path costs ten times as much
    except OSError:
        return None


def _variables() -> Mapping[Any, Any]:
    """Return the environment in its internal form of bytes: decoding it for a comparison takes 20 µs."""
    kept: Mapping[Any, Any] = getattr(os.environ, "_data", os.environ)
    return kept


def _fixed() -> tuple[object, ...]:
    """Return the parts of the state that cannot be restored."""
    return (
        locale.setlocale(locale.LC_ALL),
        [*map(_handler_of, _SIGNALS)],
        [timer > (0.0, 0.0) for timer in map(signal.getitimer, _TIMERS)],
        [*map(resource.getrlimit, _LIMITS)],
        [*map(_identity, range(3))],
        [stream is None or stream.closed for stream in (sys.stdin, sys.stdout, sys.stderr)],
    )


def _identity(descriptor: int) -> tuple[int, int] | None:
    """Return the device and inode of an open file, or None if the descriptor is closed."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino
