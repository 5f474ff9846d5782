"""A file system of a few MiB, which tests can fill; a file or directory that hides another one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.privileges import obtained

_TRIES = 50


@contextmanager
def small_disk(directory: Path, kib: int) -> Iterator[Path]:
    """Mount a file system of that size; this needs root, which CI must have and a laptop need not."""
    with ExitStack() as stack:
        yield obtained(lambda: stack.enter_context(mounted_memory(directory, kib)))


@contextmanager
def mounted_memory(directory: Path, kib: int) -> Iterator[Path]:
    """Mount a file system of that size.

    Raises:
        OSError: it takes root.
    """
    directory.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k,mode=700", "tmpfs", str(directory)]
    with _mounted(mount, directory):
        yield directory


@contextmanager
def bind_mount(source: Path, target: Path) -> Iterator[None]:
    """Hide *target*, which exists, behind *source*; needs root as well."""
    with ExitStack() as stack:
        mount = ["mount", "--bind", str(source), str(target)]
        obtained(lambda: stack.enter_context(_mounted(mount, target)))
        yield


@contextmanager
def _mounted(mount: list[str], target: Path) -> Iterator[None]:
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        raise PermissionError("to mount a file system takes root")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(target)], check=True)


def leave_room(directory: Path, spare_kib: int) -> None:
    """Shrink the file system to what it has and *spare_kib* more, while others may write to it.

    Raises:
        CalledProcessError: they have written more than that at each of many tries.
    """
    for left in reversed(range(_TRIES)):
        space = os.statvfs(directory)
        used = (space.f_blocks - space.f_bfree) * space.f_frsize // 1024
        try:
            remount(directory, f"size={used + spare_kib}k")
        except subprocess.CalledProcessError:  # a size below the used one is refused
            if not left:
                raise
        else:
            return


def remount(directory: Path, option: str) -> None:
    """Change an option of the file system, such as its size."""
    subprocess.run(["mount", "-o", f"remount,{option}", str(directory)], check=True)
