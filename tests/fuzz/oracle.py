"""Watches for forbidden effects of an input: code that runs, too much memory, too much time."""

from __future__ import annotations

import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

#: Seconds of CPU time that one input may take, and bytes by which the process may grow.
CPU_SECONDS_MAX = 2.0
#: Seconds after which an input that has not ended is taken for one that never does.
HANG_SECONDS = 20.0
GROWTH_BYTES_MAX = 64 * 1024 * 1024

#: Audit events of CPython that no input may cause. `pickle.find_class` is the lookup of a global.
_FORBIDDEN = (
    "pickle.find_class", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn",
    "subprocess.Popen", "pty.spawn", "ctypes.", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.chmod",
    "os.putenv", "shutil.", "urllib.", "webbrowser.", "code.__new__", "builtins.input", "marshal.",
)  # fmt: skip


class Finding(AssertionError):
    """An input had a forbidden effect."""


class Hang(BaseException):
    """An input does not end. No `Exception`: the code that runs must not take it for an error of its own."""


@contextmanager
def bounded_time(seconds: float = CPU_SECONDS_MAX) -> Iterator[None]:
    """Bound the processor time of a block, which runs in the main thread.

    Raises:
        Finding: it has taken more than *seconds*.
        Hang: it has not ended after `HANG_SECONDS`.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise Hang(f"it has not ended after {HANG_SECONDS:g} s of processor time")

    before, started = signal.signal(signal.SIGVTALRM, end), time.process_time()
    signal.setitimer(signal.ITIMER_VIRTUAL, HANG_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)
    taken = time.process_time() - started
    if taken > seconds:
        raise Finding(f"it took {taken:.1f} s of processor time")


class Watch:
    """Watches the audit events of CPython. A hook cannot be removed, so there is one for each process."""

    def __init__(self, cpu_seconds: float = CPU_SECONDS_MAX) -> None:
        """Start without a watch; an input may take *cpu_seconds*."""
        self._cpu_seconds = cpu_seconds
        self._on = False
        self._seen: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._on or not event.startswith(("open", *_FORBIDDEN)):
            return
        if event == "open" and not _writes(arguments):
            return
        if not _imports():
            self._seen.append(f"{event}{arguments!r:.200}")

    @contextmanager
    def one_input(self) -> Iterator[None]:
        """Watch while the block runs.

        Raises:
            Finding: code was run, or the input took too much time or memory.
        """
        self._seen.clear()
        size, started = _peak_bytes(), time.process_time()
        self._on = True
        try:
            yield
        finally:
            self._on = False
        seconds, growth = time.process_time() - started, _peak_bytes() - size
        if self._seen:
            raise Finding(f"the input had an effect: {self._seen}")
        if seconds > self._cpu_seconds:
            raise Finding(f"the input took {seconds:.1f} s of CPU time")
        if growth > GROWTH_BYTES_MAX:
            raise Finding(f"the input made the process grow by {growth >> 20} MiB")


def _writes(arguments: tuple[Any, ...]) -> bool:
    mode = arguments[1] if len(arguments) > 1 else ""
    return isinstance(mode, str) and any(letter in mode for letter in "wax+")


def _imports() -> bool:
    """Return whether this happens within an import: text codecs are imported at their first use."""
    frame: FrameType | None = sys._getframe()  # there is no other way to find the caller
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def limit_memory(size: int) -> None:
    """Let this process take at most *size* bytes more than now; beyond that there is a MemoryError."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  # nothing of a path is needed
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + size, now + size))
