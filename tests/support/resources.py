"""What processes hold, read from `/proc`, and whether it comes back to what it was before a fault.

*Before* means two things. Threads, descriptors and child processes are whole numbers that do not depend on
how much has been done: they are compared with one standard, taken once when everybody was there and nothing
had been broken yet, and have to be the same. Memory grows with what the journal keeps: it is
compared with what it was just before the fault. That would not see a slow leak; but where a fault ends a
process, its successor has the same journal and no past: what the old one had more is told as `aged`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: By how much of what it was before something may be more afterwards.
SHARE = 0.05
#: A difference in memory below this is none: one message of the largest chunk is as big, and an allocator
#: gives memory back in steps of a MiB.
MEMORY_FLOOR = 4 << 20
_POLL_SECONDS = 0.1
_LOOKS = 2


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process holds; `memory` is what it alone has (anonymous, resident) in bytes, `processes` it and
    its descendants."""

    pid: int
    threads: int
    descriptors: int
    memory: int
    processes: int = 1


@dataclass(frozen=True, slots=True)
class Excess:
    """How much `more` `who` has of `what` than before (bytes of memory), as a `share` too: 0.03 for 3 %."""

    what: str
    who: str
    more: float
    share: float

    def __str__(self) -> str:
        more = f"{self.more / (1 << 20):.1f} MiB" if self.what == "memory" else f"{self.more:g}"
        return f"{self.what} +{more} ({self.share:.1%})"


def usage(pid: int, processes: int = 1) -> Usage | None:
    """Return what process *pid* holds, or None if it is gone."""
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
    """Compares what processes hold before and after each fault.

    Args:
        look: returns what each process holds, by a name that a successor takes over; None for one that is
            not there now.
        patience: seconds in which all has to come back.

    Attributes:
        worst: for each kind of fault, the most that was left over when all had come back or patience ended.
        violations: what did not come back, in words.
        longest: seconds that coming back took at most.
        aged: by what share a process had more memory, at most, than the successor that a fault gave it.
    """

    look: Callable[[], Mapping[str, Usage | None]]
    patience: float = 35.0
    worst: dict[str, Excess] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    longest: float = 0.0
    _standard: dict[str, Usage] = field(default_factory=dict)
    aged: float = 0.0
    _before: dict[str, Usage] = field(default_factory=dict)

    def take_standard(self, seconds: float = 1.0) -> None:
        """Wait until nobody's counts have changed for *seconds*; these are the standard. All should be there.

        Raises:
            TimeoutError: they never settle.
        """
        end = time.monotonic() + 60.0
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
        """Note the memory of everybody, just before a fault."""
        self._before = _present(self.look())

    def after(self, kind: str, allowance: int = 0) -> None:
        """Wait until all has come back after a fault of this kind; judge what has not.

        *allowance* is what memory may be above the rest, in bytes, where there is a good reason.
        """
        began = time.monotonic()
        # Twice in a row: the first look may come before the fault is noticed.
        back = 0
        while (back := back + 1 if self._is_back(held := self.look(), allowance) else 0) < _LOOKS:
            if time.monotonic() - began >= self.patience:
                break
            time.sleep(_POLL_SECONDS)
        self.longest = max(self.longest, time.monotonic() - began)
        self._judge(kind, held, allowance)
        if back < _LOOKS and _counts(held) != _counts(self._standard):
            # Fewer is as bad: somebody has not come back, and what leaked could hide behind that.
            counts = f"{_counts(held)} and not {_counts(self._standard)}"
            self.violations.append(f"I9: {self.patience:g} s after {kind!r} there were {counts}")
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
        """Whether everybody is there, with the counts of the standard, and nobody has too much memory."""
        return _counts(held) == _counts(self._standard) and not any(
            _too_much(excess, allowance) for excess in self._excesses(held)
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
    """Return how many of a process's descriptors are sockets."""
    found = 0
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found += str(link.readlink()).startswith("socket:")
    return found


def strays(mark: str, known: Collection[int]) -> list[int]:
    """Return the processes that have *mark* in their environment and are none of *known*."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(folder.name) not in known and mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found
