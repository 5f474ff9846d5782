"""What this process's control group says of its memory; cgroup v2 and v1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

#: Limits at or above this many bytes stand for "none": v1 says so with the largest page-aligned number.
_NO_LIMIT = 1 << 60

_FILES = (("memory.current", "memory.max"), ("memory.usage_in_bytes", "memory.limit_in_bytes"))


class Memory(NamedTuple):
    """Memory in use and its limit, in bytes; None where the system does not say or there is none."""

    used: int | None
    limit: int | None


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
