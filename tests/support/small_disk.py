"""A file system of a few MiB, which tests can fill; a file or directory that hides another one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(directory: Path, kib: int) -> Iterator[Path]:
    """Mount a file system of that size; this needs root, which CI must have and a laptop need not."""
    directory.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k,mode=700", "tmpfs", str(directory)]
    with _mounted(mount, directory):
        yield directory


@contextmanager
def bind_mount(source: Path, target: Path) -> Iterator[None]:
    """Hide *target*, which exists, behind *source*; needs root as well."""
    with _mounted(["mount", "--bind", str(source), str(target)], target):
        yield


@contextmanager
def _mounted(mount: list[str], target: Path) -> Iterator[None]:
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        message = "to mount a file system takes root"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(target)], check=True)


def remount(directory: Path, option: str) -> None:
    """Change an option of the file system, such as its size."""
    subprocess.run(["mount", "-o", f"remount,{option}", str(directory)], check=True)
