"""The most memory that an attempt took, as the kernel keeps it for a process; on Linux only.

To read it takes some 20 µs, so attempts are measured that took a while. To begin anew takes less than one.
What is counted is the resident memory (`VmHWM`): pages that a consumer shares with its forkserver and with
other processes count, and processes that the task has started do not.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

#: Seconds from which on an attempt is measured.
MEASURED_SECONDS: Final = 0.1
_BEGIN_ANEW: Final = b"5"


class PeakMemory:
    """Measures the attempts of this process."""

    def __init__(self) -> None:
        """Begin now, if the kernel can."""
        try:
            self._reset = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            self._reset = -1
        self.begin()

    def begin(self) -> None:
        """Forget what was before."""
        if self._reset >= 0:
            try:
                os.write(self._reset, _BEGIN_ANEW)
            except OSError:
                self._reset = -1

    def take(self) -> int:
        """Return the most bytes since `begin`, and begin anew; 0 if that is not known."""
        if self._reset < 0:
            return 0
        peak = peak_of("self")
        self.begin()
        return peak


def peak_of(process: int | str) -> int:
    """Return the most memory in bytes that a process has taken since it began anew; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_bytes().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(b"VmHWM:")) * 1024
