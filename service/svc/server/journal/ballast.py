"""The ballast: disk space that is reserved in advance, and freed when the disk is full.

New jobs are refused while there is still some space. Acknowledgements are accepted: they end jobs, and a full
queue that could not end jobs could never free space. If even they find no space, the ballast is freed.
"""

from __future__ import annotations

import os
from pathlib import Path


class Ballast:
    """A file of *size* bytes beside the journal; 0 for none."""

    def __init__(self, journal: Path, size: int) -> None:
        """Find an existing ballast; make none yet."""
        self._path = Path(f"{journal}.ballast")
        self.size = size
        self.held = bool(size) and self._bytes() == size

    @property
    def missing(self) -> int:
        """How many bytes the ballast will take when there is space again."""
        return 0 if self.held else self.size

    def take(self, free: int) -> None:
        """Make the file if *free* is at least twice its size."""
        if not self.missing or free < 2 * self.size:
            return
        file = -1
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            os.posix_fallocate(file, 0, self.size)
            self.held = True
        except OSError:
            self._path.unlink(missing_ok=True)  # another process took the space; a later call tries again
        finally:
            if file >= 0:
                os.close(file)

    def give_up(self) -> bool:
        """Free the space; return whether there was a ballast to free."""
        if not self.held:
            return False
        self.held = False
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

    def _bytes(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0
