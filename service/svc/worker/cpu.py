"""The number of CPUs that this process may use: affinity and cgroup quota, not only the host's count."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

#: Consumers for each CPU; the predecessor of svc used the same ratio.
CONSUMERS_PER_CPU = 2

Source = Literal["env", "cgroup", "affinity", "host"]


@dataclass(frozen=True, slots=True)
class CpuCount:
    """A number of CPUs and its source; `env` is for callers that override the number."""

    count: int
    source: Source


def cpu_count(root: Path = Path("/"), affinity: int | None = None, host: int | None = None) -> CpuCount:
    """Return the CPUs that this process may use, at least 1.

    It is the smallest of the host's count, the affinity mask and the cgroup's quota (v2 or v1), rounded up.
    *root* is the folder of `/proc` and `/sys`; *affinity* and *host* replace the real counts.
    """
    host = host or os.cpu_count() or 1
    affinity = affinity or len(os.sched_getaffinity(0))
    found = CpuCount(host, "host")
    if affinity < found.count:
        found = CpuCount(affinity, "affinity")
    quota = _quota(root)
    if quota is not None and math.ceil(quota) < found.count:
        found = CpuCount(max(1, math.ceil(quota)), "cgroup")
    return found


def _quota(root: Path) -> float | None:
    """Return the smallest quota, in CPUs, of this process's cgroups and their ancestors."""
    return min((quota for quota in _quotas(root) if quota is not None), default=None)


def _quotas(root: Path) -> Iterator[float | None]:
    for line in _read(root / "proc/self/cgroup").splitlines():
        # proc(5): hierarchy:controllers:path; version 2 has no controllers.
        controllers, _, path = line.partition(":")[2].partition(":")
        if not controllers:
            for folder in _upwards(root / "sys/fs/cgroup", path):
                yield _ratio(_read(folder / "cpu.max"))
        elif "cpu" in controllers.split(","):
            for folder in _upwards(root / "sys/fs/cgroup/cpu", path):
                yield _ratio(f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}")


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """Yield the folder of a cgroup and of its ancestors; in a container only the last one may exist."""
    # From another cgroup namespace a path may begin with `..`; folders above the mount cannot be read.
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for depth in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:depth])


def _ratio(text: str) -> float | None:
    """Return the quota divided by the period; `max` (version 2) and -1 (version 1) mean none."""
    quota, _, period = " ".join(text.split()).partition(" ")
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
