"""The high-water mark: a small file beside the journal that says how far the journal once reached.

SQLite silently drops every commit after the first damaged frame of its log. The file is then a sound database
that is merely older. The mark reveals this: after each commit the number of the newest row is written into
it, and a journal that ends before its mark is not served.

After the death of the process, the mark detects every lost commit, since it is in the page cache as soon as
`append` returns. After power loss, it detects the loss of commits up to its own last sync, which is at most
`SYNC_SECONDS` behind the commits. (If no commit comes, the kernel writes it out within about half a minute.)
It cannot detect the loss of commits that only deleted rows; those deletions are repeated.

The mark is never ahead of a synced commit. With durability `os`, power loss may undo commits by design, so a
mark from before the last boot of the host claims nothing then.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

from svc.server.journal.files import CHECK, packed, sync, unpacked

#: Seconds between two syncs of the mark while commits come: one more sync each second, not for each commit.
SYNC_SECONDS: Final = 1.0
#: The form of a claim in the file, after this magic word.
MAGIC: Final = b"svcmark1"
CLAIM: Final = struct.Struct("<8sqqqq")
#: Two slots, written alternately and a sector apart: a torn write leaves the other claim intact.
SLOTS: Final = (0, 512)
_FILE_BYTES: Final = 1024
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class TailLost(Exception):
    """The journal ends before its mark, or the mark is damaged; the message names the missing part."""


class Claim(NamedTuple):
    """How far a journal reached: the incarnation, the newest row (-1: none), durability and boot."""

    incarnation: int
    sequence: int
    durable: int
    boot: int

    def check(self, path: Path, incarnation: int, sequence: int) -> None:
        """Compare the claim with the end of the journal at *path*.

        Raises:
            TailLost: the journal ends before the claim.
        """
        if not self.durable and self.boot != this_boot():
            return
        if sequence < self.sequence or incarnation < self.incarnation:
            raise TailLost(
                f"the journal {path} ends at row {sequence} of incarnation {incarnation}, and its mark says "
                f"that it once reached row {self.sequence} of incarnation {self.incarnation}: accepted jobs "
                "or results are missing from its end; restore a backup, or serve what is left with "
                "--accept-loss, which keeps a copy first"
            )


def open_mark(path: Path, claim: Claim) -> int:
    """Write *claim* to the file *path*, as `begin_mark` does; return the open file.

    Raises:
        OSError: it cannot be written.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(file, 0, _FILE_BYTES)
        begin_mark(file, claim)
        sync(path.parent)
    except BaseException:
        os.close(file)
        raise
    return file


def begin_mark(file: int, claim: Claim) -> None:
    """Write *claim* to an open mark in place of all earlier claims, and sync it.

    Raises:
        OSError: the disk reports an error.
    """
    content = packed(CLAIM, MAGIC, *claim)
    for slot in SLOTS:
        os.pwrite(file, content, slot)
    os.fsync(file)


def mark_path(journal: Path) -> Path:
    """Return the path of the mark of *journal*."""
    return Path(f"{journal}.mark")


def read_claim(path: Path) -> Claim | None:
    """Return the newest claim in the mark *path*, or None if there is no mark or it was never written.

    Raises:
        TailLost: the mark is damaged, so it claims nothing.
        OSError: it cannot be read.
    """
    try:
        content = path.read_bytes()[:_FILE_BYTES]
    except (FileNotFoundError, NotADirectoryError):
        return None
    size = CLAIM.size + CHECK.size
    slots = [unpacked(CLAIM, MAGIC, content[start : start + size]) for start in SLOTS]
    claims = [Claim(*fields) for fields in slots if fields is not None]
    if not claims and content.strip(b"\0"):
        raise TailLost(
            f"the mark {path} is damaged, so nothing shows that the journal beside it is whole; restore a "
            "backup, or serve what is there with --accept-loss, which keeps a copy first"
        )
    return max(claims, default=None)


def this_boot() -> int:
    """Return a number that changes with each start of the host, or 0 if it is not known."""
    try:
        return int(_BOOT_ID.read_text(encoding="ascii").replace("-", "")[:15], 16)
    except (OSError, ValueError):
        return 0
