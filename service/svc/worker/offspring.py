"""The processes that tasks start, and their end.

A consumer and the forkserver are *subreapers*: a process whose parent has ended becomes a child of the
nearest subreaper, even if it has detached itself. So all processes that tasks have started are descendants.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import NamedTuple

#: Seconds that killed processes may take to end: the kernel frees their memory one after the other.
END_SECONDS = 2.0
#: The options of `waitid` that return a child that has ended and is not collected, and leave it so.
ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT
_PAUSE_SECONDS = 0.002
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 1, 36, 37


class Process(NamedTuple):
    """A process; the time of its start distinguishes it from a later one with the same number."""

    pid: int
    started: int


def adopt_orphans() -> None:
    """Make this process the parent of all orphans below it; on Linux only."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends; on Linux only."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, argument: object) -> None:
    """Set *option* of this process, or read it into the object that *argument* points to: prctl(2).

    A kernel without the option changes nothing.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0)


def adopts_orphans() -> bool:
    """Return whether this process is a subreaper, or process 1 of its container."""
    answer = ctypes.c_int()
    _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer))
    return bool(answer.value) or os.getpid() == 1


def has_children() -> bool:
    """Return whether this process has a child, ended or not; takes a microsecond."""
    try:
        os.waitid(os.P_ALL, 0, ENDED)
    except ChildProcessError:
        return False
    return True


def descendants(root: int, spare: Collection[int] = ()) -> set[Process]:
    """Return the living processes below *root*, without those in *spare* and the processes below these."""
    children: defaultdict[int, list[tuple[Process, bool]]] = defaultdict(list)
    for process, parent, ended in _processes():
        children[parent].append((process, ended))
    found: set[Process] = set()
    pending = [root]
    while pending:
        for child, ended in children.get(pending.pop(), ()):
            if child.pid in spare:
                continue
            if not ended:
                found.add(child)
            # If only its first thread has ended, a process looks ended and still has its children.
            pending.append(child.pid)
    return found


def ancestors(pid: int) -> list[int]:
    """Return process *pid* and those above it, as far as they are there; the nearest first."""
    parents = {process.pid: parent for process, parent, _ in _processes()}
    found: list[int] = []
    while pid in parents and pid not in found:
        found.append(pid)
        pid = parents[pid]
    return found


def end_descendants(
    root: int, spare: Collection[int] = (), keep: Collection[Process] = (), helpers: Collection[int] = ()
) -> None:
    """Kill the processes below *root*.

    Waits up to `END_SECONDS` for their end, and looks again for processes that they have started meanwhile.

    Args:
        root: the process whose descendants have to end.
        spare: processes that live on with all their descendants.
        keep: processes that live on without their descendants.
        helpers: the same as *keep*, by number.
    """
    killed: set[Process] = set()
    deadline = time.monotonic() + END_SECONDS
    while left := {each for each in descendants(root, spare) - set(keep) if each.pid not in helpers}:
        for process in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, signal.SIGKILL)
        killed |= left
        if time.monotonic() >= deadline:
            break
        _reap(left)
        time.sleep(_PAUSE_SECONDS)
    _reap(killed)


def _reap(processes: Collection[Process]) -> None:
    """Collect the *processes* that have ended and are children of this one."""
    for process in processes:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)


def _processes() -> Iterator[tuple[Process, int, bool]]:
    """Yield each process of this host or container, its parent, and whether it has ended uncollected."""
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        try:
            # proc(5): the name stands in brackets and may hold any character; then come the state, the parent
            # and, as the twentieth of these fields, the start in clock ticks since boot.
            with open(f"{entry.path}/stat", "rb") as file:  # noqa: PTH123 - a Path costs as much again
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue  # it has just ended
        yield Process(int(entry.name), int(fields[19])), int(fields[1]), fields[0] == b"Z"


def collect_children(spare: Collection[Process]) -> None:
    """Collect the children of this process that have ended, except *spare*, which their module collects."""
    with contextlib.suppress(ChildProcessError):
        if os.waitid(os.P_ALL, 0, ENDED):
            ended = {each for each, parent, gone in _processes() if gone and parent == os.getpid()}
            _reap(ended - set(spare))
