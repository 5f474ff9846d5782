"""A file on another disk than the journal's that says that the journal was made once.

A manager cannot tell a first start from one whose disk is not mounted: both find no journal. With the marker
it can, and makes no second, empty journal in place of the first one.
"""

from __future__ import annotations

import os
from pathlib import Path

from svc.errors import JournalError
from svc.journal_address import StreamAddress
from svc.server.journal.files import sync


def require_journal(marker: Path, journal: Path) -> None:
    """See that there is a journal if *marker* says that it was made.

    Raises:
        JournalError: it was made, and is not there.
    """
    if marker.exists() and not journal.is_file():
        raise JournalError(
            f"there is no journal {journal}, and {marker} says that it was made once: is its disk mounted? "
            f"Restore a backup, or delete {marker} to begin with an empty journal"
        )


def leave_marker(marker: Path, journal: Path | StreamAddress) -> None:
    """Say in *marker* that *journal* was made, if it does not say so yet.

    Raises:
        JournalError: it cannot be written.
    """
    if marker.exists():
        return
    try:
        file = os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, f"The journal {journal} was made.\n".encode())
            os.fsync(file)
        finally:
            os.close(file)
        sync(marker.parent)
    except OSError as error:
        raise JournalError(
            f"{marker} (--journal-marker) cannot be written ({error.strerror}); name a file in a directory "
            "that exists, that this user may write, and that is not on the journal's disk"
        ) from None
