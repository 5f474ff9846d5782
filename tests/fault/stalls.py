"""The times in which the machine stood still: no promise of the service about time holds over them.

A shared machine may give no process any time for seconds, or take none of their writes. A lease may end then,
and a call come back late, through no fault of the service.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Self

from tests.support.history import STOOD_STILL, Fault

#: Seconds between two looks at the time, and seconds that are no stall yet: half a lease of a campaign.
LOOK_SECONDS, STALL_SECONDS = 0.05, 1.0


class Stalls:
    """Notes the stalls while its block runs, in `faults`: they may have affected any lease."""

    def __init__(self, folder: Path, look_seconds: float = LOOK_SECONDS) -> None:
        """Watch this process and the disk of *folder*."""
        self.faults: list[Fault] = []
        self._file = folder / "stalls"
        self._look_seconds = look_seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stalls")
        self._seen = time.monotonic()

    def __enter__(self) -> Self:
        self._seen = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def look(self, now: float) -> None:
        """Note a stall if the last look was long before *now*."""
        if now - self._seen > STALL_SECONDS:
            self.faults.append(Fault(STOOD_STILL, self._seen, now, None, injected=False))
        self._seen = now

    def _run(self) -> None:
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while not self._over.wait(self._look_seconds):
                os.pwrite(descriptor, b"%f" % time.monotonic(), 0)
                os.fdatasync(descriptor)
                self.look(time.monotonic())
        finally:
            os.close(descriptor)
