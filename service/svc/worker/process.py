"""The settings of a consumer process in the kernel, and helpers for the end of processes."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import select
import signal
import sys
import types
from collections.abc import Collection, Iterator, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from svc.worker.offspring import ENDED, adopt_orphans, die_with_parent
from svc.worker.signals import AWAITED_SIGNALS, INTERRUPT_SIGNAL, STOP_SIGNALS

#: The addition to a consumer's `oom_score_adj` (proc(5)): it counts as a tenth of the memory that there is.
OOM_SCORE_ADDED = 100
_OOM_SCORE, _OOM_SCORE_MAX = Path("/proc/self/oom_score_adj"), 1000


def guard(title: str) -> None:
    """Make this process a consumer: it ignores stop signals, has its own session, and dies with its parent.

    The kernel, out of memory, chooses it before its supervisor.

    Because of its own session, it can be killed together with the processes that a task starts, and a Ctrl-C
    at the terminal reaches only the supervisor. *title* is the name that `ps` shows if setproctitle is
    installed.
    """
    for number in STOP_SIGNALS:
        # A handler and not SIG_IGN, which programs that a task starts would inherit.
        signal.signal(number, _ignore)
    os.register_at_fork(after_in_child=_restore_defaults)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, AWAITED_SIGNALS)
    os.setsid()
    adopt_orphans()
    _die_with_parent()
    _stand_before_the_supervisor()
    _set_title(title)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # So the output of a task can be seen while it runs, is not lost with a killed process, and is written
        # in whole lines: with PYTHONUNBUFFERED each argument of `print` would be written by itself.
        sys.stdout.reconfigure(line_buffering=True, write_through=False)


def _ignore(_number: int, _frame: types.FrameType | None) -> None:
    pass


def _restore_defaults() -> None:
    """Restore the default signal handlers in a process that a task forks."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends.

    The parent is the forkserver or, with spawn, the supervisor. The forkserver lives as long as any process
    holds the writing end of its `alive` pipe, and each of its children inherits one. This process has to
    close it, or no process would end when the supervisor is killed. In the other cases (a parent that died
    before this call, a Python without that attribute) the thread that listens to the supervisor sees the end
    of its pipe.
    """
    die_with_parent()
    server = getattr(forkserver, "_forkserver", None)
    alive = getattr(server, "_forkserver_alive_fd", None)
    if server is not None and alive is not None:
        os.close(alive)
        server._forkserver_alive_fd = None  # noqa: SLF001 - there is no public way


def _stand_before_the_supervisor() -> None:
    """Let the kernel, out of memory, kill this process or the task's children, and not the supervisor.

    A process may raise its own score without privilege; where it cannot, nothing changes.
    """
    with contextlib.suppress(OSError, ValueError):
        score = int(_OOM_SCORE.read_text(encoding="ascii"))
        _OOM_SCORE.write_text(str(min(score + OOM_SCORE_ADDED, _OOM_SCORE_MAX)), encoding="ascii")


def _set_title(title: str) -> None:
    with contextlib.suppress(ImportError):
        importlib.import_module("setproctitle").setproctitle(title)


@contextlib.contextmanager
def signals_held_back() -> Iterator[None]:
    """Start processes that a stop signal cannot kill before they have installed their handlers.

    Processes inherit the signal mask: the forkserver keeps it for life, a consumer lifts it in `guard`.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def main_hidden() -> Iterator[None]:
    """Start processes that do not import the main script again: consumers need nothing from it.

    Otherwise multiprocessing imports the whole command line into every consumer.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


#: The environment variable by which Python leaves the working directory out of its path, and our value of it.
SAFE_PATH, SET_BY_SVC = "PYTHONSAFEPATH", "svc"


def start_forkserver(preload: Sequence[str]) -> None:
    """Start the process that forks consumers, and let it import *preload* meanwhile.

    If it runs already, it stays as it is.
    """
    forkserver.set_forkserver_preload(list(preload))
    with signals_held_back(), main_hidden(), _safe_path():
        forkserver.ensure_running()


@contextlib.contextmanager
def _safe_path() -> Iterator[None]:
    """Let a Python that starts meanwhile import nothing from the working directory.

    multiprocessing starts its processes by `python -c`, for which a user's `types.py` or `queue.py` hides the
    module of the standard library. The forkserver takes the variable back (see `subreaper`).
    """
    if os.environ.get(SAFE_PATH):
        yield
        return
    os.environ[SAFE_PATH] = SET_BY_SVC
    try:
        yield
    finally:
        del os.environ[SAFE_PATH]


def kill(pid: int) -> None:
    """Kill a consumer and the processes that its task has started with SIGKILL, if it still exists."""
    with contextlib.suppress(ProcessLookupError):
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            os.kill(pid, signal.SIGKILL)


def interrupt(pid: int) -> None:
    """Send a consumer the signal on which it looks for an order in its slot, if it still exists."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, INTERRUPT_SIGNAL)


def describe_exit(code: int) -> str:
    """Return a description of an exit code; a negative code is the number of a signal."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    hint = "; perhaps the host or the container ran out of memory" if -code == signal.SIGKILL else ""
    return f"killed by signal {-code} ({name}){hint}"


def reap_orphans(known: set[int]) -> None:
    """Collect ended children that no other code waits for: orphans that became ours because we are process 1.

    *known* are the children that multiprocessing waits for; this function leaves them alone.
    """
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, ENDED)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid in known:
            return
        with contextlib.suppress(ChildProcessError):
            os.waitpid(ended.si_pid, os.WNOHANG)


def helper_pids() -> set[int]:
    """Return the helper processes of multiprocessing: forkserver and resource tracker."""
    from multiprocessing import resource_tracker

    tracker = getattr(getattr(resource_tracker, "_resource_tracker", None), "_pid", None)
    return {pid for pid in (forkserver_pid(), tracker, *_retired) if pid}


def forkserver_pid() -> int:
    """Return the forkserver's process number, or 0 if there is none."""
    pid = getattr(getattr(forkserver, "_forkserver", None), "_forkserver_pid", None)
    return pid if isinstance(pid, int) else 0


#: Forkservers that fork no more: the descriptors that keep each alive.
_retired: dict[int, int] = {}


def retire_forkserver() -> None:
    """Let the next process be forked by a new forkserver; the old one lives until `end_retired` ends it."""
    server: Any = getattr(forkserver, "_forkserver", None)
    pid = forkserver_pid()
    if not pid or server is None:
        return
    _retired[pid] = server._forkserver_alive_fd  # noqa: SLF001 - there is no public way
    server._forkserver_address = server._forkserver_alive_fd = server._forkserver_pid = None  # noqa: SLF001


def end_retired(used: Collection[int]) -> None:
    """End the retired forkservers that have no consumers any more; *used* are those that have."""
    for pid in [pid for pid in _retired if pid not in used]:
        if _retired[pid] >= 0:
            os.close(_retired[pid])
            _retired[pid] = -1
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                continue
        del _retired[pid]


def has_ended(server: int, seconds: float) -> bool:
    """Return whether the forkserver *server* has ended, or ends within *seconds*; on Linux only."""
    if sys.platform != "linux":
        return False
    if server != forkserver_pid() and server not in _retired:
        return True  # multiprocessing has noticed its end and started another
    try:
        handle = os.pidfd_open(server)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], seconds)[0])
    finally:
        os.close(handle)
