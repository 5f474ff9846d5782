"""Becomes systemd, as the first process of a host that consists of namespaces.

The root is an overlay on that of this machine: what the host writes or removes stays in memory and ends with
it. Started by `tests.support.systemd_host`, in namespaces of its own, with the standard library alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_UNITS = ("lib/systemd/system", "etc/systemd/system")
_SYSTEMD = "/lib/systemd/systemd"


def _mount(*words: str | Path) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


def _make_root(place: Path, base: Path) -> Path:
    """Mount the new root below *place*: the root of this machine, with a copy of *base* in memory over it."""
    _mount("--make-rprivate", "/")
    _mount("-t", "tmpfs", "tmpfs", place)
    upper, work, root = (place / name for name in ("upper", "work", "root"))
    shutil.copytree(base, upper, symlinks=True)
    for folder in (work, root):
        folder.mkdir()
    layers = f"lowerdir=/,upperdir={upper},workdir={work}"
    _mount("-t", "overlay", "-o", layers, "overlay", root)
    return root


def _fill(root: Path, name: str) -> None:
    """Mount the file systems of the kernel, and leave of this machine's units only the journal."""
    _mount("-t", "proc", "proc", root / "proc")
    for folder in ("tmp", "run", "var/log", "var/tmp"):
        _mount("-t", "tmpfs", "-o", f"mode={'1777' if 'tmp' in folder else '755'}", "tmpfs", root / folder)
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", root / "dev")
    for device in _DEVICES:
        (root / "dev" / device).touch()
        _mount("--bind", f"/dev/{device}", root / "dev" / device)
    for folder in ("pts", "shm", "mqueue"):
        (root / "dev" / folder).mkdir()
    _mount("-t", "devpts", "-o", "newinstance,ptmxmode=0666,mode=620", "devpts", root / "dev/pts")
    (root / "dev/ptmx").symlink_to("pts/ptmx")
    _mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", root / "dev/shm")
    _mount("-t", "sysfs", "sysfs", root / "sys")
    _mount("-t", "cgroup2", "cgroup2", root / "sys/fs/cgroup")
    (root / "etc/hostname").write_text(f"{name}\n")
    for units in _UNITS:
        for wanted in (root / units).glob("*.wants"):
            shutil.rmtree(wanted)
    wants = root / "etc/systemd/system/sysinit.target.wants"
    wants.mkdir()
    (wants / "systemd-journald.service").symlink_to("/lib/systemd/system/systemd-journald.service")


def main() -> None:
    """Run with the arguments PLACE BASE NAME [SOURCE:TARGET …]; each source is to be seen, and only read."""
    if os.getpid() != 1:
        sys.exit("this is for the first process of a namespace of processes")
    place, base, name, *bindings = sys.argv[1:]
    root = _make_root(Path(place), Path(base))
    _fill(root, name)
    for binding in bindings:
        source, _, target = binding.partition(":")
        (root / target.lstrip("/")).mkdir(parents=True, exist_ok=True)
        _mount("--bind", "-o", "ro", source, root / target.lstrip("/"))
    os.chdir(root)
    subprocess.run(["pivot_root", ".", "mnt"], check=True)
    os.chroot(".")
    subprocess.run(["umount", "-l", "/mnt"], check=True)
    # As systemd itself has it on a host that is none of namespaces; it passes on the mounts of credentials.
    _mount("--make-rshared", "/")
    arguments = ["systemd", "--system", "--unit=basic.target", "--log-target=journal", "--show-status=0"]
    os.execve(_SYSTEMD, arguments, {"container": "svc", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})


if __name__ == "__main__":
    main()
