"""Tasks that leave processes behind, or change their process."""

from __future__ import annotations

import locale
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable

from svc.worker.registry import task
from tests.support.leftovers import SLEEP, WAYS, sleep

#: A process that this module keeps for all its tasks.
MODULE_PROCESS = subprocess.Popen(SLEEP)


def start(way: str, path: str, then: str) -> int:
    """Start a process, write its number to *path*, and go on as *then* says; return this process's number."""
    pid = WAYS[way]()
    with open(f"{path}.new", "w", encoding="ascii") as file:  # noqa: PTH123
        file.write(f"{pid} {os.getpid()}")
    os.rename(f"{path}.new", path)  # noqa: PTH104
    if then == "fail":
        raise ValueError
    if then == "crash":
        os._exit(3)
    if then == "wait":
        sleep()
    return os.getpid()


@task(keep_children=True)
def start_and_keep(way: str, path: str, then: str) -> int:
    return start(way, path, then)


def module_process() -> bool:
    """Return whether the module's own process lives."""
    return MODULE_PROCESS.poll() is None


# --- the state of the process -----------------------------------------------------------------------


def _other_locale() -> None:
    locale.setlocale(locale.LC_ALL, "C" if locale.setlocale(locale.LC_ALL) != "C" else "C.UTF-8")


def _other_environment() -> None:
    os.environ["CHANGED"] = "1"
    del os.environ["PATH"]


CHANGES: dict[str, Callable[[], object]] = {
    "directory": lambda: os.chdir("/"),
    "umask": lambda: os.umask(0o077),
    "environment": _other_environment,
    "blocked signals": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM}),
    "recursion": lambda: sys.setrecursionlimit(sys.getrecursionlimit() + 1),
    "cpus": lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
    "stream": lambda: setattr(sys, "stdout", sys.stderr),
    "locale": _other_locale,
    "handler": lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN),
    "timer": lambda: signal.setitimer(signal.ITIMER_VIRTUAL, 500.0),
    "limit": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200)),
    "user": lambda: os.setresgid(-1, 65534, -1),
    "priority": lambda: os.nice(1),
    "descriptor": lambda: os.close(1),
    "closed": sys.stdout.close,
}


def change(what: str) -> int:
    """Change the state of this process, and return the process's number."""
    CHANGES[what]()
    return os.getpid()


def state() -> tuple[int, object]:
    """Return this process's number, and the part of its state that another task could have changed."""
    umask = os.umask(0o022)
    os.umask(umask)
    return os.getpid(), [
        os.getcwd(),  # noqa: PTH109
        umask,
        "CHANGED" in os.environ,
        "PATH" in os.environ,
        sys.stdout is sys.stderr,
        sys.stdout.closed,
        locale.setlocale(locale.LC_ALL),
        str(signal.getsignal(signal.SIGUSR1)),
        signal.getitimer(signal.ITIMER_VIRTUAL)[0],
        resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        sys.getrecursionlimit(),
        sorted(os.sched_getaffinity(0)),
        os.getegid(),
        os.nice(0),
        os.path.exists("/proc/self/fd/1"),  # noqa: PTH110
    ]
