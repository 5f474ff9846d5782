"""Hosts with a systemd of their own, on which the units of deploy/systemd run as on a real one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.support import systemd_root
from tests.support.namespaces import need_tools
from tests.support.processes import children
from tests.support.svc import DEADLINE, ROOT, until

#: The folder of the checkout on a host.
CHECKOUT = "/root/svc"
#: A variable by which the interpreter of the tests finds its own library at its other place.
LIBRARIES = "LD_LIBRARY_PATH=/opt/python/lib"
_BINDINGS = (
    (sys.base_prefix, "/opt/python"),
    (sysconfig.get_path("purelib"), "/opt/packages"),
    (str(ROOT / "service"), "/opt/source"),
    (str(ROOT), CHECKOUT),
)
_PREFIX = "svc-host-"
_PATH = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROGRAM = """\
#!/opt/svc/bin/python3
import sys
from svc.cli import main
sys.exit(main())
"""


def install(base: Path) -> None:
    """Make /opt/svc below *base*, as `python3 -m venv` and `pip install` make it, of this very environment.

    The interpreter, the packages and the source are the real ones, which a host sees at other places:
    theirs may be closed to others than root.
    """
    programs = base / "opt/svc/bin"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = base / "opt/svc/lib" / version / "site-packages"
    for folder in (programs, packages, base / "usr/local/bin", base / "srv/svc"):
        folder.mkdir(parents=True)
    (base / "opt/svc/pyvenv.cfg").write_text("home = /opt/python/bin\ninclude-system-site-packages = false\n")
    (programs / "python3").symlink_to(f"/opt/python/bin/{version}")
    # Plain lines, and no import hooks: in the order of their names.
    (packages / "0-source.pth").write_text("/opt/source\n")
    (packages / "1-packages.pth").write_text("/opt/packages\n")
    program = programs / "svc"
    program.write_text(_PROGRAM)
    program.chmod(0o755)
    (base / "usr/local/bin/svc").symlink_to("/opt/svc/bin/svc")


class SystemdHost:
    """One host. This needs root; all of it ends with `close`, as if the power went out.

    Attributes:
        name: its name.
        root: its root directory, as seen from here.
    """

    def __init__(self, name: str, folder: Path, base: Path, namespace: str) -> None:
        """Boot a host in the network *namespace*, with *base* above the root of this machine.

        Raises:
            OSError: that is not possible here; the message has the reason.
        """
        need_tools("unshare", "nsenter", "setpriv", "pivot_root", "systemctl")
        self.name = name
        groups = _control_groups()
        _remove_orphans(groups)
        self._group = groups / f"{_PREFIX}{os.getpid()}-{name}"
        self._group.mkdir()
        folder.mkdir(exist_ok=True)
        enter = f'echo $$ > {self._group}/cgroup.procs && exec "$@"'
        bindings = [f"{source}:{target}" for source, target in _BINDINGS]
        with (folder.parent / f"{name}.log").open("wb") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "/bin/sh", "-c", enter, "sh",
                 "nsenter", f"--net=/run/netns/{namespace}",
                 "unshare", "--pid", "--fork", "--mount", "--uts", "--ipc", "--cgroup", "--kill-child",
                 sys.executable, systemd_root.__file__, str(folder), str(base), name, *bindings],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            self._pid = until(lambda: self._first_process(log.name), f"{name} has a first process")
            self.root = Path(f"/proc/{self._pid}/root")
            until(lambda: self._has_booted(log.name), f"{name} has booted")
        except BaseException:
            self.close()
            raise

    def _first_process(self, log: str) -> int:
        if self._process.poll() is not None:
            raise OSError(f"{self.name} did not boot: {Path(log).read_text()[-1000:]}")
        return next(iter(children(self._process.pid)), 0)

    def _has_booted(self, log: str) -> bool:
        self._first_process(log)
        with suppress(OSError):
            if Path(f"/proc/{self._pid}/comm").read_text() == "systemd\n":
                return self.run("systemctl", "is-active", "basic.target").returncode == 0
        return False

    def run(
        self, *command: str, environment: Mapping[str, str] | None = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the host, as root and in the checkout; return how it ended."""
        inside = ("nsenter", "-t", str(self._pid), "-m", "-u", "-i", "-n", "-p", "-C", f"--root={self.root}")
        return subprocess.run(
            [*inside, f"--wd={self.root}{CHECKOUT}", *command],
            env={"PATH": _PATH, "HOME": "/root", **(environment or {})},
            input=stdin, capture_output=True, text=True, check=False, timeout=DEADLINE,
        )  # fmt: skip

    def script(self, commands: str, **environment: str) -> str:
        """Run lines of a shell, of which none may fail; return what they print."""
        done = self.run("/bin/bash", "-eu", environment=environment, stdin=commands)
        assert done.returncode == 0, f"{self.name}: {commands}\n{done.stdout}{done.stderr}\n{self.log()}"
        return done.stdout

    def property(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", unit, "--property", name, "--value").stdout.strip()

    def log(self, *selection: str) -> str:
        """Return the end of the journal of systemd."""
        return self.run("journalctl", "--no-pager", "--lines", "200", *selection).stdout

    def close(self) -> None:
        """End all processes of the host at once, and remove its control groups."""
        for pid in children(self._process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        until(lambda: _removed(self._group), f"{self.name} has ended")


def _control_groups() -> Path:
    """Return the root of version 2 of the control groups.

    Raises:
        OSError: there is none.
    """
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    raise OSError("there are no control groups of version 2")


def _remove_orphans(groups: Path) -> None:
    """Remove the control groups of suites that were killed, whose hosts have ended with them."""
    for group in groups.glob(f"{_PREFIX}*"):
        if not Path("/proc", group.name.removeprefix(_PREFIX).partition("-")[0]).exists():
            _removed(group)


def _removed(group: Path) -> bool:
    """Remove a control group with those in it; False as long as a process has yet to end."""
    for folder, _, _ in os.walk(group, topdown=False):
        with suppress(OSError):
            Path(folder).rmdir()
    return not group.exists()


class Hosts:
    """Hosts that see the same files above their root when they boot.

    Attributes:
        running: the hosts by name.
    """

    def __init__(self, folder: Path, namespaces: Mapping[str, str]) -> None:
        """Put what hosts need into *folder*; each may boot in its network namespace."""
        self._folder = folder
        self._namespaces = namespaces
        self.base = folder / "base"
        self.running: dict[str, SystemdHost] = {}
        install(self.base)

    def boot(self, name: str) -> SystemdHost:
        """Boot a host; if it runs, it loses its power and its disk first.

        Raises:
            OSError: that is not possible here; the message has the reason.
        """
        if name in self.running:
            self.running.pop(name).close()
        host = SystemdHost(name, self._folder / name, self.base, self._namespaces[name])
        self.running[name] = host
        return host

    def close(self) -> None:
        """End all hosts."""
        for host in self.running.values():
            host.close()
        shutil.rmtree(self.base)
