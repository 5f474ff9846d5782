"""Processor time and memory of processes, as the kernel counts them."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

#: The numbers that are summed up to find out how slow a machine is, and the seconds that two virtual cores
#: of 2.0 GHz take for them.
_SUMMED, _SUM_SECONDS = 1_000_000, 0.020
_TICK = 1 / os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


def slowness() -> float:
    """Return how much longer a fixed computation takes now than on the machine of the bounds, at least 1.

    A virtual machine whose host is busy is up to four times slower at times, by its own processor's clock.
    """
    least = math.inf
    for _ in range(5):
        began = time.thread_time()
        sum(range(_SUMMED))
        least = min(least, time.thread_time() - began)
    return max(1.0, least / _SUM_SECONDS)


def cpu_seconds(pids: list[int]) -> float:
    """Return the processor time, in seconds, that the processes have used so far, all together.

    It includes that of their children that have ended.
    """
    return sum(_ticks(pid) for pid in pids) * _TICK


def processor_clock(pid: int) -> Callable[[], float]:
    """Return a function that returns the processor time of a process in seconds, to the nanosecond."""
    # The clock id of clock_getcpuclockid(3), which Python lacks.
    clock = ~pid << 3 | 2
    return lambda: time.clock_gettime(clock)


@contextmanager
def parts_cpu(parts: Mapping[str, list[int]]) -> Iterator[dict[str, float]]:
    """Yield a mapping that has, after the block, the processor seconds of each part and of this `client`."""
    before = {part: cpu_seconds(pids) for part, pids in parts.items()}
    own = time.process_time()
    spent: dict[str, float] = {}
    yield spent
    spent["client"] = time.process_time() - own
    spent |= {part: cpu_seconds(pids) - before[part] for part, pids in parts.items()}


def resident_bytes(pid: int) -> int:
    """Return the bytes that a process has resident, or 0 if it has ended."""
    return _status_bytes(pid, "VmRSS:")


def peak_bytes(pid: int) -> int:
    """Return the most bytes that a process ever had resident, or 0 if it has ended."""
    return _status_bytes(pid, "VmHWM:")


def family(pid: int) -> list[int]:
    """Return *pid* and all its living descendants."""
    # `children` in /proc is not used, since many kernels are built without it.
    parents = {int(stat.parent.name): _parent(_read(stat)) for stat in _PROC.glob("[0-9]*/stat")}
    found = [pid]
    for parent in found:
        found += [child for child, known in parents.items() if known == parent]
    return found


def _parent(stat: str) -> int:
    # The command's name, in parentheses, may contain anything; the fields are counted from its end.
    fields = stat.rpartition(")")[2].split()
    return int(fields[1]) if fields else 0


def _status_bytes(pid: int, field: str) -> int:
    for line in _read(_PROC / str(pid) / "status").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    return 0


def _ticks(pid: int) -> int:
    # The command's name, in parentheses, may contain anything; the fields are counted from its end.
    fields = _read(_PROC / str(pid) / "stat").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) if fields else 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
