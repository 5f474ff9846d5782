"""The manager's time, noted beside the journal now and then: what time it should be at the next start.

The journal's events tell the time of the last one, which may be days old if nobody had work. The file
`PATH.clock` has the time of a running manager, and how long the host had been up. If the host has not been
restarted since, that tells the time to the second; otherwise the time at which the manager ran last.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from pathlib import Path
from typing import Final

from svc.server.journal.files import packed, unpacked
from svc.server.journal.mark import this_boot

_MAGIC: Final = b"svcclock"
_NOTE: Final = struct.Struct("<8sdqd")


class ClockFile:
    """The file beside one journal. What cannot be written or read is left out: the events tell less."""

    def __init__(self, journal: Path) -> None:
        """Stand beside *journal*."""
        self._path = Path(f"{journal}.clock")

    def note(self, now: float) -> None:
        """Note that the manager's clock shows *now*, a Unix time."""
        content = packed(_NOTE, _MAGIC, now, this_boot(), time.clock_gettime(time.CLOCK_BOOTTIME))
        with contextlib.suppress(OSError):
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(file, content, 0)
            finally:
                os.close(file)

    def expected(self) -> float:
        """Return the Unix time that the manager's clock should show now at the least, or 0 if unknown."""
        content = b""
        with contextlib.suppress(OSError):
            content = self._path.read_bytes()
        note = unpacked(_NOTE, _MAGIC, content)
        if note is None:
            return 0.0
        noted, boot, up = note
        elapsed = time.clock_gettime(time.CLOCK_BOOTTIME) - up
        return float(noted + max(0.0, elapsed) if boot == this_boot() != 0 else noted)
