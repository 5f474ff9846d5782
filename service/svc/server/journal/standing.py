"""Files that no manager may serve: a copy that is not complete, and a journal that was moved elsewhere.

Each has an `application_id` of its own, so that no release takes it for a journal, and a table `places`, in
which it says of which journal it is a copy, or where it was moved.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import apsw

from svc.errors import CopyIncomplete, JournalMoved

#: `application_id` of a copy that is not complete ("svcc"), and of a journal that was moved ("svcm").
COPY_ID: Final = 0x73766363
MOVED_ID: Final = 0x7376636D
#: The rows of the table: the origin of a copy, the incarnation with which it was complete, and the place to
#: which a journal was moved.
COPIED_FROM, COMPLETE, MOVED_TO = "copied_from", "complete", "moved_to"

_MAKE = "CREATE TABLE IF NOT EXISTS places (name TEXT PRIMARY KEY, place TEXT NOT NULL) STRICT, WITHOUT ROWID"
_FIND = "SELECT 1 FROM sqlite_schema WHERE name = 'places'"
_READ = "SELECT place FROM places WHERE name = ?"
_WRITE = "INSERT OR REPLACE INTO places VALUES (?, ?)"


def read_place(connection: apsw.Connection, name: str) -> str:
    """Return a row of the table `places`; empty if there is none."""
    if connection.execute(_FIND).get is None:
        return ""
    place: str | None = connection.execute(_READ, (name,)).get
    return place or ""


def write_place(connection: apsw.Connection, name: str, place: str) -> None:
    """Write a row of the table; a transaction is open."""
    connection.execute(_MAKE)
    connection.execute(_WRITE, (name, place))


def require_served(connection: apsw.Connection, path: Path, *, moved: bool = False) -> None:
    """Check that a file of ours is one that may be served, or if *moved* is set, that was served once.

    Raises:
        CopyIncomplete: it is a copy that is not complete.
        JournalMoved: it was moved elsewhere, and *moved* is not set.
    """
    application = connection.pragma("application_id")
    if application == COPY_ID:
        raise CopyIncomplete(
            f"{path} is a copy of another journal that is not complete; run the same `svc journal copy` "
            "again, which goes on with it, or delete it"
        )
    if application == MOVED_ID and not moved:
        raise JournalMoved(moved_text(str(path), read_place(connection, MOVED_TO)))


def moved_text(place: str, target: str) -> str:
    """Return the text of the error for a journal that was moved."""
    return f"the journal {place} was moved to {target}; start the manager there"
