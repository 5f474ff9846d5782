"""What this process's control groups say of memory; cgroup v2 and v1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

#: Limits at or above this many bytes stand for "none": v1 says so with the largest page-aligned number.
_NO_LIMIT = 1 << 60

_FILES = (("memory.current", "memory.max"), ("memory.usage_in_bytes", "memory.limit_in_bytes"))
#: Lines of memory.stat with what the kernel cannot take back without swap (v1 counts the groups below it
#: under `total_`). Caches of files count as used too, but are given up before anything is killed.
_KEPT = {"memory.max": ("anon", "shmem", "sock"), "memory.limit_in_bytes": ("total_rss", "total_shmem")}


class Memory(NamedTuple):
    """Memory in use and its limit, in bytes; None where the system does not say or there is none."""

    used: int | None
    limit: int | None


class Bounded(NamedTuple):
    """Memory in use and its limit, in bytes."""

    used: int
    limit: int


def read_memory(mount: Path = Path("/sys/fs/cgroup"), process: Path = Path("/proc/self/cgroup")) -> Memory:
    """Return the memory of the control group of this process, read now.

    Args:
        mount: where control groups are mounted.
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
) -> Bounded | None:
    """Return the memory of the group nearest to its limit: this process's own, or one above it; read now.

    Its `used` is what the kernel cannot take back: at the limit that is what something is killed for. None if
    no group has a limit. The arguments are as for `read_memory`.
    """
    groups = [group for folder in _upwards(mount, process) if (group := _bounded(folder)) is not None]
    return max(groups, key=lambda group: group.used / group.limit, default=None)


def _bounded(folder: Path) -> Bounded | None:
    for _, name in _FILES:
        limit = _number(folder / name)
        if limit:
            return Bounded(_kept(folder, _KEPT[name]), limit)
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
    """Yield where the group's files may be; in a container its own group is the root of the mount."""
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
