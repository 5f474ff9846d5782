"""A control group for the processes of a test: limits for memory, CPU and processes, as for a container."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Self

_ROOT = Path("/sys/fs/cgroup")
_CONTROLLERS = ("memory", "cpu", "pids")
#: The text for "no limit": version 2 has a word for it, version 1 a number (and a word for processes).
_FREE = {"memory.limit_in_bytes": "-1", "cpu.cfs_quota_us": "-1"}
_CPU_PERIOD = 100_000


class Cgroup:
    """One group in each hierarchy of version 1, or the one of version 2; this needs root."""

    def __init__(self, name: str) -> None:
        """Make the group.

        Raises:
            OSError: it cannot be made here; the message has the reason.
        """
        self._version2 = (_ROOT / "cgroup.controllers").exists()
        own = f"svc-faults-{os.getpid()}-{name}"
        if self._version2:
            (_ROOT / "cgroup.subtree_control").write_text("+memory +cpu +pids")
            self._folders = dict.fromkeys(_CONTROLLERS, _ROOT / own)
        else:
            self._folders = {each: _ROOT / each / _place(each) / own for each in _CONTROLLERS}
        for folder in self._folders.values():
            folder.mkdir(exist_ok=self._version2)

    @property
    def prefix(self) -> tuple[str, ...]:
        """The words before a command that make it, and all its children, run in the group."""
        files = [str(folder / "cgroup.procs") for folder in dict.fromkeys(self._folders.values())]
        enter = "".join(f'echo $$ > "${place + 1}" && ' for place in range(len(files)))
        return ("/bin/sh", "-c", f'{enter}shift {len(files)} && exec "$@"', "sh", *files)

    def limit_memory(self, size: int | None) -> None:
        """Let the kernel kill a process if the group needs more than *size* bytes; None for no limit.

        Raises:
            OSError: the processes have more already, and the kernel cannot reduce that.
        """
        if self._version2:
            self._write("memory", "memory.swap.max", "max" if size is None else "0")
        self._write("memory", "memory.max" if self._version2 else "memory.limit_in_bytes", size)

    def memory(self) -> int:
        """Return the bytes that belong to the processes alone, without pages that could be read again."""
        name = "anon" if self._version2 else "rss"
        lines = (self._folders["memory"] / "memory.stat").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.split()[0] == name)

    def kills(self) -> int:
        """Return how many processes the kernel has killed because the group exceeded its limit."""
        file = "memory.events" if self._version2 else "memory.oom_control"
        lines = (self._folders["memory"] / file).read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.split()[0] == "oom_kill")

    def limit_cpu(self, share: float | None) -> None:
        """Limit the group to this share of one CPU; None for no limit."""
        quota = None if share is None else max(1000, int(share * _CPU_PERIOD))
        if self._version2:
            self._write("cpu", "cpu.max", f"{'max' if quota is None else quota} {_CPU_PERIOD}")
        else:
            self._write("cpu", "cpu.cfs_quota_us", quota)

    def limit_processes(self, count: int | None) -> None:
        """Forbid the group a new process or thread if it has *count*; None for no limit."""
        self._write("pids", "pids.max", count)

    def tasks(self) -> int:
        """Return the number of processes and threads in the group."""
        return int((self._folders["pids"] / "pids.current").read_text())

    def close(self) -> None:
        """Remove the group; its processes must have ended."""
        for folder in dict.fromkeys(self._folders.values()):
            for _ in range(1500):
                with contextlib.suppress(OSError):
                    folder.rmdir()
                if not folder.exists():
                    break
                time.sleep(0.02)  # the kernel notices the end of the last process a little later

    def _write(self, controller: str, file: str, value: int | str | None) -> None:
        text = _FREE.get(file, "max") if value is None else str(value)
        (self._folders[controller] / file).write_text(text)


class WriteLimit:
    """For the length of a block, a group of processes of which a disk takes only some writes per second."""

    def __init__(self, path: Path, per_second: int) -> None:
        """Limit writes to the disk of *path*; this needs root, and in version 2 the controller `io`."""
        device = path.stat().st_dev
        self._disk = f"{os.major(device)}:{os.minor(device)}"
        self._limit = per_second
        self._version2 = (_ROOT / "cgroup.controllers").exists()
        self._parent = _ROOT if self._version2 else _ROOT / "blkio"
        self._folder = self._parent / f"svc-faults-{os.getpid()}-writes"

    def __enter__(self) -> Self:
        """Make the group.

        Raises:
            OSError: it cannot be made here, or *path* is on no disk.
        """
        if self._version2:
            (_ROOT / "cgroup.subtree_control").write_text("+io")
        self._folder.mkdir()
        try:
            if self._version2:
                (self._folder / "io.max").write_text(f"{self._disk} wiops={self._limit}")
            else:
                limit = f"{self._disk} {self._limit}"
                (self._folder / "blkio.throttle.write_iops_device").write_text(limit)
        except OSError:
            self._folder.rmdir()
            raise
        return self

    def add(self, pid: int) -> None:
        """Take a process into the group; its writes from now on are counted."""
        (self._folder / "cgroup.procs").write_text(str(pid))

    def __exit__(self, *_: object) -> None:
        """Let all processes go, and remove the group."""
        for pid in (self._folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (self._parent / "cgroup.procs").write_text(pid)
        self._folder.rmdir()


def _place(controller: str) -> str:
    """Return this process's place in a hierarchy of version 1, whose limits then apply to the group too."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path.lstrip("/")
    raise OSError(f"there is no cgroup controller {controller!r}")
