"""The file systems that the journal tells apart, by their names in mountinfo."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

#: The table of mounts of this process (proc(5)).
MOUNTS: Final = Path("/proc/self/mountinfo")
#: Network file systems; the names of FUSE begin with `fuse`.
_NETWORK: Final = frozenset(
    (
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "ceph",
        "glusterfs",
        "lustre",
        "afs",
        "gfs2",
        "ocfs2",
        "beegfs",
    )
)
#: Local file systems that are known to change a directory's `st_ctime` with each of its names.
TIMED: Final = frozenset(
    ("bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs")
)


def file_system(path: Path) -> str:
    """Return the type of the file system of *path*, or an empty text if unknown."""
    found, length = "", -1
    place = str(path.resolve())
    with contextlib.suppress(OSError):
        for line in MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines():
            head, _, tail = line.partition(" - ")
            mount = head.split()[4].encode().decode("unicode_escape")
            inside = place == mount or place.startswith(mount.rstrip("/") + "/")
            if inside and len(mount) >= length:
                found, length = tail.split()[0], len(mount)
    return found


def is_network(kind: str) -> bool:
    """Return whether this is a network file system, whose locks may not keep another host away."""
    return kind in _NETWORK or kind.startswith("fuse")
