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
from collections.abc import Callable, Collection, Iterator
from functools import cache
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


@cache
def children_check() -> Callable[[], bool]:
    """Return a quicker `has_children`, for use after each job or command: it makes no exception each time."""
    if sys.platform != "linux":
        return has_children
    waitid = ctypes.PyDLL(None).waitid
    return lambda: waitid(os.P_ALL, 0, None, ENDED) == 0


def descendants(root: int, spare: Collection[int] = ()) -> set[Process]:
    """Return the living processes below *root*, without those in *spare* and the processes below these."""
    return set(groups_below(root, spare))


def groups_below(root: int, spare: Collection[int] = ()) -> dict[Process, int]:
    """Return the same, and the process group of each."""
    children: defaultdict[int, list[_Seen]] = defaultdict(list)
    for seen in _processes():
        children[seen.parent].append(seen)
    found: dict[Process, int] = {}
    pending = [root]
    while pending:
        # Taken out, as numbers that were given again meanwhile may make a circle.
        for child in children.pop(pending.pop(), ()):
            if child.process.pid in spare:
                continue
            if not child.ended:
                found[child.process] = child.group
            # If only its first thread has ended, a process looks ended and still has its children.
            pending.append(child.process.pid)
    return found


def ancestors(pid: int) -> list[int]:
    """Return process *pid* and those above it, as far as they are there; the nearest first."""
    parents = {seen.process.pid: seen.parent for seen in _processes()}
    found: list[int] = []
    while pid in parents and pid not in found:
        found.append(pid)
        pid = parents[pid]
    return found


def end_descendants(
    root: int, spare: Collection[int] = (), keep: Collection[Process] = (), helpers: Collection[int] = ()
) -> None:
    """Kill the processes below *root*.

    Waits up to `END_SECONDS` for their end, and looks again for processes that they have started meanwhile,
    until two looks in a row have found none: during one a process may fork and end. The process group of each
    is killed with it, if none of *keep* can be in it.

    Args:
        root: the process whose descendants have to end.
        spare: processes that live on with all their descendants.
        keep: processes that live on without their descendants.
        helpers: the same as *keep*, by number.
    """
    killed: set[Process] = set()
    deadline = time.monotonic() + END_SECONDS
    others = {0, 1, os.getpgrp(), *map(_group_of, (root, *spare, *helpers))}
    found_none = False
    while time.monotonic() < deadline:
        found = groups_below(root, spare)
        left = {each: found[each] for each in found.keys() - set(keep) if each.pid not in helpers}
        if not left and (found_none or not killed):
            break
        found_none = not left
        _kill(left, set() if keep else set(left.values()) - others)
        killed |= left.keys()
        _reap(left)
        if left:
            time.sleep(_PAUSE_SECONDS)
    _reap(killed)


def _group_of(pid: int) -> int:
    """Return the process group of a process; 0 if it has ended."""
    try:
        return os.getpgid(pid)
    except OSError:
        return 0


def _kill(processes: Collection[Process], groups: Collection[int]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        for group in groups:
            os.killpg(group, signal.SIGKILL)
    for process in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, signal.SIGKILL)


def _reap(processes: Collection[Process]) -> None:
    """Collect the *processes* that have ended and are children of this one."""
    for process in processes:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)


class _Seen(NamedTuple):
    """A process, its parent, its group, and whether it has ended uncollected."""

    process: Process
    parent: int
    group: int
    ended: bool


def _processes() -> Iterator[_Seen]:
    """Yield each process of this host or container.

    Ends after `END_SECONDS`: processes that start faster than they are read would go on for ever.
    """
    deadline = time.monotonic() + END_SECONDS
    for entry in os.scandir("/proc"):
        if time.monotonic() > deadline:
            return
        if not entry.name.isdecimal():
            continue
        try:
            # proc(5): the name stands in brackets and may hold any character; then come the state, the
            # parent, the group and, as the twentieth of these fields, the start in clock ticks since boot.
            with open(f"{entry.path}/stat", "rb") as file:  # noqa: PTH123 - a Path costs as much again
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue  # it has just ended
        process = Process(int(entry.name), int(fields[19]))
        yield _Seen(process, int(fields[1]), int(fields[2]), fields[0] == b"Z")


def collect_children(spare: Collection[Process]) -> None:
    """Collect the children of this process that have ended, except *spare*, which their module collects."""
    with contextlib.suppress(ChildProcessError):
        if os.waitid(os.P_ALL, 0, ENDED):
            ended = {seen.process for seen in _processes() if seen.ended and seen.parent == os.getpid()}
            _reap(ended - set(spare))
