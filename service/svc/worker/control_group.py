"""Control groups (cgroup v2): the kernel kills all processes of one at once, also those just being forked.

A worker that may make control groups has one for each consumer, with all processes that its tasks start. So
a process that forks faster than `offspring` finds it ends too. They bound nothing: no controller is used.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from svc.worker.offspring import END_SECONDS

_PREFIX: Final = "svc-worker-"
_PAUSE_SECONDS = 0.001


def make_home() -> str:
    """Return the folder of a new control group for the consumers of this process; "" if it may make none.

    Groups that ended workers have left there are removed.
    """
    own = _own_folder(
        Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace"),
        Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="replace"),
    )
    if own is None:
        return ""
    for left in own.glob(f"{_PREFIX}*"):
        if not Path("/proc", left.name.removeprefix(_PREFIX)).exists():
            _remove(left)
    home = own / f"{_PREFIX}{os.getpid()}"
    try:
        home.mkdir(exist_ok=True)
    except OSError:
        return ""
    if (home / "cgroup.kill").exists():
        return str(home)
    _remove(home)  # a kernel before 5.14
    return ""


def _own_folder(mounts: str, groups: str) -> Path | None:
    """Return the folder of this process's own control group, after its *mounts* and *groups* in /proc."""
    path = next((line[3:] for line in groups.splitlines() if line.startswith("0::/")), None)
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        if path is not None and rest.startswith("cgroup2 "):
            root, mounted = fields.split()[3:5]
            if root in {"/", path} or path.startswith(f"{root}/"):
                return Path(mounted) / path[0 if root == "/" else len(root) :].lstrip("/")
    return None


@contextlib.contextmanager
def worker_group() -> Iterator[str]:
    """Yield the folder of a group for the consumers of this process, and remove it; see `make_home`."""
    home = make_home()
    try:
        yield home
    finally:
        if home:
            _remove(Path(home))


def _remove(folder: Path) -> None:
    """Remove a control group and those in it, unless processes live in one."""
    with contextlib.suppress(OSError):
        for each in folder.iterdir():
            if each.is_dir():
                _remove(each)
        folder.rmdir()


class ControlGroup:
    """The control group of one consumer.

    Args:
        home: the folder of the worker's group.
        pid: the process of the consumer.
    """

    def __init__(self, home: str, pid: int) -> None:
        self._home = Path(home)
        self._folder = self._home / str(pid)

    def join(self) -> bool:
        """Move this process into the group; return False if that is not allowed."""
        try:
            self._folder.mkdir(exist_ok=True)
            self._enter(self._folder)
        except OSError:
            return False
        return True

    def end_others(self, spare: Collection[int]) -> None:
        """Kill all processes of the group but this one, and wait up to `END_SECONDS` for their end.

        Does nothing if one of *spare* is in the group.
        """
        with contextlib.suppress(OSError):
            members = (self._folder / "cgroup.procs").read_text(encoding="ascii").split()
            if set(map(int, members)) & set(spare):
                return
            self._enter(self._home)
            try:
                self._kill()
            finally:
                self._enter(self._folder)

    def end(self) -> None:
        """Kill all processes of the group, and remove it. For the supervisor, if the consumer has ended."""
        with contextlib.suppress(OSError):
            self._kill()
        _remove(self._folder)

    def _enter(self, folder: Path) -> None:
        (folder / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")

    def _kill(self) -> None:
        if not self._populated():
            return
        (self._folder / "cgroup.kill").write_text("1", encoding="ascii")
        deadline = time.monotonic() + END_SECONDS
        while self._populated() and time.monotonic() < deadline:
            time.sleep(_PAUSE_SECONDS)

    def _populated(self) -> bool:
        return "populated 1" in (self._folder / "cgroup.events").read_text(encoding="ascii")


#: The group of this process, if it is a consumer and has one.
_own: list[ControlGroup] = []


def join(home: str) -> None:
    """Move this process, a consumer, into a group of its own in *home*, if that is a folder."""
    group = ControlGroup(home, os.getpid())
    _own[:] = [group] if home and group.join() else []


def end_others(spare: Collection[int] = ()) -> None:
    """Kill all other processes of this process's group, if it has one, and if none of *spare* is in it."""
    for group in _own:
        group.end_others(spare)
