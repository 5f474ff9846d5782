"""The ballast: disk space that is reserved in advance, and freed when the disk is full.

New jobs are refused while there is still some space. Acknowledgements are accepted: they end jobs, and a full
queue that could not end jobs could never free space. If even they find no space, the ballast is freed.
"""

from __future__ import annotations

import os
from pathlib import Path

from svc.server.journal.files import file_bytes


class Ballast:
    """A file of *size* bytes beside the journal; 0 for none."""

    def __init__(self, journal: Path, size: int) -> None:
        """Find an existing ballast; make none yet."""
        self._path = Path(f"{journal}.ballast")
        self.size = size
        #: How many bytes the ballast will take when there is space again.
        self.missing = 0 if file_bytes(self._path) == size else size

    def room(self) -> int:
        """Return the bytes that are left for this user, without those of the ballast, made or not."""
        return max(0, self._free_bytes() - self.missing)

    def take(self) -> None:
        """Make the file if it is missing and the disk has twice its size."""
        if not self.missing or self._free_bytes() < 2 * self.size:
            return
        file = -1
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            os.posix_fallocate(file, 0, self.size)
            self.missing = 0
        except OSError:
            self._path.unlink(missing_ok=True)  # another process took the space; a later call tries again
        finally:
            if file >= 0:
                os.close(file)

    def give_up(self) -> bool:
        """Free the space; return whether there was a ballast to free."""
        if self.missing == self.size:
            return False
        self.missing = self.size
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

    def _free_bytes(self) -> int:
        space = os.statvfs(self._path.parent)
        return space.f_bavail * space.f_frsize
