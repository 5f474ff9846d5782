"""Memory use and limits of this process's control groups; cgroup v2 and v1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

#: Limits at or above this many bytes mean "none"; v1 uses the largest page-aligned number for that.
_NO_LIMIT = 1 << 60

_FILES = (("memory.current", "memory.max"), ("memory.usage_in_bytes", "memory.limit_in_bytes"))
#: Lines of memory.stat for memory that the kernel cannot reclaim without swap (v1 includes the groups below
#: under `total_`). File caches count as used too, but are given up before a process is killed.
_KEPT = {"memory.max": ("anon", "shmem", "sock"), "memory.limit_in_bytes": ("total_rss", "total_shmem")}


class Memory(NamedTuple):
    """Memory in use and its limit, in bytes; None if it is not known or there is no limit."""

    used: int | None
    limit: int | None


class MemoryUse(NamedTuple):
    """Memory in use and its limit, in bytes."""

    used: int
    limit: int


def read_memory(mount: Path = Path("/sys/fs/cgroup"), process: Path = Path("/proc/self/cgroup")) -> Memory:
    """Return the current memory of the control group of this process.

    Args:
        mount: the directory at which control groups are mounted.
        process: the file that names the groups of the process.
    """
    for folder in _folders(mount, process):
        for used_name, limit_name in _FILES:
            used = _number(folder / used_name)
            if used is not None:
                return Memory(used, _number(folder / limit_name))
    return Memory(None, None)


def read_tightest(
    mount: Path = Path("/sys/fs/cgroup"), process: Path = Path("/proc/self/cgroup")
) -> MemoryUse | None:
    """Return the current memory of the group nearest to its limit: this process's own, or one above it.

    Its `used` is the memory that the kernel cannot reclaim: if that reaches the limit, the kernel kills a
    process. The result is None if no group has a limit. The arguments are as for `read_memory`.
    """
    groups = [group for folder in _upwards(mount, process) if (group := _bounded(folder)) is not None]
    return max(groups, key=lambda group: group.used / group.limit, default=None)


def _bounded(folder: Path) -> MemoryUse | None:
    for _, name in _FILES:
        limit = _number(folder / name)
        if limit:
            return MemoryUse(_kept(folder, _KEPT[name]), limit)
    return None


def _kept(folder: Path, names: tuple[str, ...]) -> int:
    lines = (line.split() for line in _read(folder / "memory.stat").splitlines())
    return sum(int(value) for name, value in lines if name in names)


def _upwards(mount: Path, process: Path) -> Iterator[Path]:
    """Yield the folders of the process's groups and of those above them, each once."""
    seen: set[Path] = set()
    for folder in _folders(mount, process):
        for each in (folder, *folder.parents):
            if each in seen or not each.is_relative_to(mount):
                break
            seen.add(each)
            yield each


def _folders(mount: Path, process: Path) -> Iterator[Path]:
    """Yield the folders that may hold the group's files; in a container, its group is the mount's root."""
    for line in _read(process).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield mount / path.lstrip("/")
        elif "memory" in controllers.split(","):
            yield mount / "memory" / path.lstrip("/")
    yield mount
    yield mount / "memory"


def _number(file: Path) -> int | None:
    content = _read(file).strip()
    number = int(content) if content.isdigit() else None
    return number if number is not None and number < _NO_LIMIT else None


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
