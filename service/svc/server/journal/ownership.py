"""The owner of the journal, for file systems whose locks do not keep a second manager away.

On a local disk SQLite's locks keep it away. On NFS and some FUSE file systems they may have no effect, and
two managers would write to one file until it is malformed. So the owner writes its name to `PATH.owner` while
it serves. Before a commit it reads the name again if the last reading was over a second ago, and stops if it
finds another name. A manager that takes over on such a file system writes its own name first, and then waits
for longer than that second.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import socket
import struct
import time
from pathlib import Path
from typing import Final, NamedTuple

from svc.errors import Conflict, JournalError
from svc.server.journal.files import CHECK, file_system, is_network, packed, unpacked

#: Seconds after which the owner reads its name again before a commit.
CHECK_SECONDS: Final = 1.0
#: Seconds that a new owner waits: the old owner's second, and time for a commit that has begun.
TAKEOVER_SECONDS: Final = 5.0
_MAGIC: Final = b"svcowner"
_OWNER: Final = struct.Struct("<8s16s64sq")


class Owner(NamedTuple):
    """A manager: a random name, and for people to read, its host and process."""

    nonce: bytes
    host: str
    pid: int


class Ownership:
    """This manager's ownership of a journal. Used by the thread that commits."""

    def __init__(self, journal: Path, *, accept_network: bool = False) -> None:
        """Become the owner of *journal*.

        Raises:
            Conflict: another manager has it.
            JournalError: no file can be made beside it, or it is on a network file system and
                *accept_network* is not set.
            OSError: the name cannot be written.
        """
        self._journal = journal
        self._path = Path(f"{journal}.owner")
        self._owner = Owner(secrets.token_bytes(16), socket.gethostname(), os.getpid())
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JournalError(
                f"the journal {journal} cannot be opened ({error.strerror}); see that this user may read and "
                "write the file and its directory, and that the disk has room"
            ) from None
        try:
            self._take(accept_network)
        except BaseException:
            os.close(self._file)
            raise
        #: When to call `check` again, in monotonic seconds.
        self.next_check = time.monotonic() + CHECK_SECONDS

    def check(self) -> None:
        """Check that no other manager has taken over the journal; to be called from `next_check` on.

        Raises:
            JournalError: another manager has.
        """
        # A file that cannot be opened (no descriptor is left) tells nothing: the next call tries again.
        with contextlib.suppress(OSError):
            self._require_own()
            self.next_check = time.monotonic() + CHECK_SECONDS

    def close(self) -> None:
        """Give up the journal, so that the next owner need not wait."""
        with contextlib.suppress(OSError):
            found = read_owner(self._path)
            if found is not None and found.nonce == self._owner.nonce:
                self._path.unlink()
        os.close(self._file)

    def _take(self, accept_network: bool) -> None:
        if not _lock(self._file):
            raise Conflict(
                f"the journal {self._journal} is in use by another process; stop that manager first"
            )
        kind = file_system(self._path)
        shared = is_network(kind) or not self._lock_holds()
        if shared and not accept_network:
            raise JournalError(
                f"the journal {self._journal} is on a file system ({kind}) whose locks may not keep a second "
                "manager away; use a local disk, or set --accept-network-filesystem if no other manager "
                "is started on it while this one runs"
            )
        before = read_owner(self._path)
        owner = self._owner
        content = packed(_OWNER, _MAGIC, owner.nonce, owner.host.encode()[:64], owner.pid)
        os.pwrite(self._file, content, 0)
        os.fsync(self._file)
        if shared and before is not None:
            time.sleep(TAKEOVER_SECONDS)
            self._require_own()

    def _lock_holds(self) -> bool:
        """Return whether the lock keeps a second descriptor away, and so would keep another process away."""
        second = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            return not _lock(second)
        finally:
            os.close(second)

    def _require_own(self) -> None:
        # The file is opened again, because NFS shows the writes of other hosts only after an open.
        found = read_owner(self._path)
        if found is None or found.nonce != self._owner.nonce:
            other = "nobody" if found is None else f"process {found.pid} on {found.host}"
            raise JournalError(
                f"the journal {self._journal} belongs to {other} now: a second manager was started on it, "
                f"or {self._path.name} was replaced; this one writes nothing more. Let one manager run"
            )


def read_owner(path: Path) -> Owner | None:
    """Return the owner named in the file *path*, or None if it names none or does not exist.

    Raises:
        OSError: it cannot be read.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), path.open("rb", buffering=0) as file:
        fields = unpacked(_OWNER, _MAGIC, file.read(_OWNER.size + CHECK.size))
        if fields is not None:
            nonce, host, pid = fields
            return Owner(nonce, host.rstrip(b"\0").decode(errors="replace"), pid)
    return None


def _lock(file: int) -> bool:
    """Lock the file for this open file description; return False if another description has the lock.

    A lock of this kind belongs to the description and not to the process, so one process can test whether the
    lock keeps a second description away.
    """
    lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock)
    except BlockingIOError:
        return False
    except OSError:
        return True  # the file system has no such locks, which `_lock_holds` detects
    return True
