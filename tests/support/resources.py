"""The resources of processes, read from `/proc`, and a check that they return to the level before a fault.

*Before* has two meanings. Threads, descriptors and child processes are whole numbers that do not depend on
the amount of work done. They are compared with one standard, taken once when all processes were there and
before any fault, and must be equal. Memory grows with the content of the journal, so it is compared with the
level just before the fault. That comparison would not see a slow leak. But if a fault ends a process, its
replacement has the same journal and no past: the excess of the old process is reported as `aged`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: The share by which a value may be higher afterwards.
SHARE = 0.05
#: A smaller difference in memory does not count: one message of the largest chunk has this size, and an
#: allocator returns memory in steps of a MiB.
MEMORY_FLOOR = 4 << 20
_POLL_SECONDS = 0.1
_LOOKS = 2


@dataclass(frozen=True, slots=True)
class Usage:
    """The resources of a process; `memory` is its own (anonymous, resident) in bytes, `processes` counts it
    and its descendants."""

    pid: int
    threads: int
    descriptors: int
    memory: int
    processes: int = 1


@dataclass(frozen=True, slots=True)
class Excess:
    """Process `who` has `more` of a resource (`what`) than before; `share` is 0.03 for 3 %."""

    what: str
    who: str
    more: float
    share: float

    def __str__(self) -> str:
        more = f"{self.more / (1 << 20):.1f} MiB" if self.what == "memory" else f"{self.more:g}"
        return f"{self.what} +{more} ({self.share:.1%})"


def usage(pid: int, processes: int = 1) -> Usage | None:
    """Return the resources of process *pid*, or None if it has ended."""
    folder = Path(f"/proc/{pid}")
    try:
        status = (folder / "status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        return Usage(
            pid,
            threads=int(fields["Threads"]),
            descriptors=sum(1 for _ in (folder / "fd").iterdir()),
            memory=int(fields["RssAnon"].split()[0]) * 1024,
            processes=processes,
        )
    except (OSError, KeyError):
        return None


@dataclass
class Balance:
    """Compares the resources of processes before and after each fault.

    Args:
        look: returns the resources of each process, by a name that a replacement keeps; None for a process
            that is not there now.
        patience: seconds until everything must be back.

    Attributes:
        worst: for each kind of fault, the largest excess at the end of the wait.
        violations: descriptions of the resources that did not come back.
        longest: the longest time in seconds until all was back.
        aged: the largest share by which a process had more memory than its replacement after a fault.
    """

    look: Callable[[], Mapping[str, Usage | None]]
    patience: float = 60.0
    worst: dict[str, Excess] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    longest: float = 0.0
    _standard: dict[str, Usage] = field(default_factory=dict)
    aged: float = 0.0
    _before: dict[str, Usage] = field(default_factory=dict)

    def take_standard(self, seconds: float = 1.0) -> None:
        """Wait until all counts were stable for *seconds*, and take them as the standard; all should be
        there.

        Raises:
            TimeoutError: they are never stable.
        """
        end = time.monotonic() + 120.0
        seen, since = self.look(), time.monotonic()
        while time.monotonic() - since < seconds:
            if time.monotonic() > end:
                raise TimeoutError(f"what the processes hold does not settle: {seen}")
            time.sleep(_POLL_SECONDS)
            now = self.look()
            if None in now.values() or _counts(now) != _counts(seen):
                since = time.monotonic()
            seen = now
        self._standard = _present(seen)

    def before(self) -> None:
        """Note the memory of all processes, just before a fault."""
        self._before = _present(self.look())

    def after(self, kind: str, allowance: int = 0) -> None:
        """Wait until everything is back after a fault of this kind; record the excess.

        *allowance* is the number of bytes by which memory may be higher, if there is a good reason.
        """
        began = time.monotonic()
        # Two checks in a row: the first one may come before the fault is noticed.
        back = 0
        while (back := back + 1 if self._is_back(held := self.look(), allowance) else 0) < _LOOKS:
            if time.monotonic() - began >= self.patience:
                break
            time.sleep(_POLL_SECONDS)
        self.longest = max(self.longest, time.monotonic() - began)
        self._judge(kind, held, allowance)
        if back < _LOOKS and _counts(held) != _counts(self._standard):
            # Fewer is as bad: a process has not come back, and a leak could be hidden by that.
            counts = f"{_counts(held)} and not {_counts(self._standard)}"
            self.violations.append(
                f"I9: {self.patience:g} s after {kind!r} there were {counts}; {self._other_descriptors(held)}"
            )
        for who, now in _present(held).items():
            before = self._before.get(who, now)
            if before.pid != now.pid:
                self.aged = max(self.aged, (before.memory - now.memory) / now.memory)

    def _judge(self, kind: str, held: Mapping[str, Usage | None], allowance: int) -> None:
        for excess in self._excesses(held):
            if excess.more > 0:
                self.worst[kind] = max(excess, self.worst.get(kind, excess), key=lambda each: each.share)
            if _too_much(excess, allowance):
                was = f"{self._standard[excess.who]} at the start, {self._before.get(excess.who)} before"
                self.violations.append(
                    f"I9: {self.patience:g} s after {kind!r} {excess.who} had {excess}: "
                    f"{held[excess.who]}, {was}"
                )

    def _is_back(self, held: Mapping[str, Usage | None], allowance: int) -> bool:
        """Whether all processes are there, with the counts of the standard and not too much memory."""
        return _counts(held) == _counts(self._standard) and not any(
            _too_much(excess, allowance) for excess in self._excesses(held)
        )

    def _other_descriptors(self, held: Mapping[str, Usage | None]) -> str:
        """Return the descriptors of the processes whose number of them is not that of the standard."""
        return "; ".join(
            f"{who} has {', '.join(open_files(now.pid))}"
            for who, now in _present(held).items()
            if now.descriptors != self._standard[who].descriptors
        )

    def _excesses(self, held: Mapping[str, Usage | None]) -> list[Excess]:
        found = []
        for who, now in _present(held).items():
            standard = self._standard[who]
            found += [
                _excess(what, who, getattr(now, what), getattr(standard, what))
                for what in ("threads", "descriptors", "processes")
            ]
            found.append(_excess("memory", who, now.memory, self._before.get(who, now).memory))
        return found


def _excess(what: str, who: str, now: int, before: int) -> Excess:
    return Excess(what, who, now - before, (now - before) / before)


def _too_much(excess: Excess, allowance: int) -> bool:
    return excess.share > SHARE and (excess.what != "memory" or excess.more > MEMORY_FLOOR + allowance)


def _present(held: Mapping[str, Usage | None]) -> dict[str, Usage]:
    return {who: each for who, each in held.items() if each is not None}


def _counts(held: Mapping[str, Usage | None]) -> dict[str, tuple[int, int, int] | None]:
    return {
        who: None if each is None else (each.threads, each.descriptors, each.processes)
        for who, each in held.items()
    }


def sockets(pid: int) -> int:
    """Return the number of a process's descriptors that are sockets."""
    return sum(" socket:" in each for each in open_files(pid))


def open_files(pid: int) -> list[str]:
    """Return the descriptors of a process, each with its file: `7 pipe:[123]`."""
    found = []
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(f"{link.name} {link.readlink()}")
    return sorted(found, key=lambda each: int(each.partition(" ")[0]))


def strays(mark: str, known: Collection[int]) -> list[int]:
    """Return the processes that have *mark* in their environment and are not in *known*."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(folder.name) not in known and mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found
