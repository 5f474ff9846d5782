"""Files of a journal: for this user alone, on the disk with their names, and small ones with a checksum."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path
from struct import Struct
from typing import Any, Final
from zlib import crc32

#: The form of the checksum, which follows the fields.
CHECK: Final = Struct("<I")
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


def create(path: Path) -> int:
    """Create the file *path* for this user alone, and open it.

    Raises:
        FileExistsError: it exists.
        OSError: it cannot be created.
    """
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)


def sync(path: Path) -> None:
    """Sync a file, or the names in a directory.

    Raises:
        OSError: it cannot be opened, or the disk reports an error.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def copy_synced(source: Path, target: Path) -> None:
    """Copy a file to the new file *target*, and sync it.

    Raises:
        OSError: *target* exists, the disk is full, or this user may not write there.
    """
    with source.open("rb") as read, os.fdopen(create(target), "wb") as written:
        shutil.copyfileobj(read, written, 1 << 20)
    sync(target)


def file_bytes(path: Path) -> int:
    """Return the size of the file *path*, or 0 if it does not exist or cannot be looked at."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def draft_beside(path: Path) -> Path:
    """Return a new hidden path beside *path*, under which to make that file until it is complete."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")


def publish(draft: Path, path: Path) -> None:
    """Give the complete file *draft* its name *path*.

    Raises:
        FileExistsError: there is such a file, which is not replaced.
        OSError: the directory cannot be written.
    """
    os.link(draft, path)
    draft.unlink()
    sync(path.parent)


def make_directory(directory: Path) -> None:
    """Make a directory and its parents, so that their names survive power loss too."""
    if directory.is_dir():
        return
    make_directory(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)
    sync(directory.parent)


def packed(form: Struct, *fields: object) -> bytes:
    """Return *fields*, of which the first is the magic word, with their checksum."""
    content = form.pack(*fields)
    return content + CHECK.pack(crc32(content))


def unpacked(form: Struct, magic: bytes, content: bytes) -> tuple[Any, ...] | None:
    """Return the fields after *magic* in *content*; None if they are damaged or those of another file."""
    fields, check = content[: form.size], content[form.size :]
    if len(fields) < form.size or check != CHECK.pack(crc32(fields)):
        return None
    found, *rest = form.unpack(fields)
    return tuple(rest) if found == magic else None


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
