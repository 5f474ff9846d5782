"""A network of its own for a worker: a namespace and a virtual cable, in which packets can be lost."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

#: The rules that lose packets, seen from inside: those that come, those that go.
LOSE_INCOMING, LOSE_OUTGOING = "INPUT", "OUTPUT"


class Namespace:
    """Made and removed by itself; takes root.

    Attributes:
        host: the address of this host as seen from inside.
        prefix: what a command begins with that is to run inside.
    """

    def __init__(self) -> None:
        """Make the namespace; its name and addresses come from the process id, so that suites do not meet.

        Raises:
            OSError: it cannot be made here; says why.
        """
        for tool in ("ip", "iptables"):
            if shutil.which(tool, path=_PATH) is None:
                raise OSError(f"there is no `{tool}`")
        number = os.getpid()
        self.name = f"svcfault{number}"
        third, fourth = number // 64 % 256, number % 64 * 4
        self.host, inside = f"10.231.{third}.{fourth + 1}", f"10.231.{third}.{fourth + 2}"
        self.prefix = ("ip", "netns", "exec", self.name)
        _remove_orphans()
        _run("ip", "netns", "add", self.name)
        try:
            outer, inner = f"svf{number}h", f"svf{number}n"
            _run("ip", "link", "add", outer, "type", "veth", "peer", "name", inner, "netns", self.name)
            _run("ip", "address", "add", f"{self.host}/30", "dev", outer)
            _run("ip", "link", "set", outer, "up")
            _run(*self.prefix, "ip", "address", "add", f"{inside}/30", "dev", inner)
            _run(*self.prefix, "ip", "link", "set", inner, "up")
            _run(*self.prefix, "ip", "link", "set", "lo", "up")
            self.heal()
        except OSError:
            self.close()
            raise

    def lose(self, *chains: str, share: float = 1.0) -> None:
        """Lose this share of all packets in *chains*, without a word to either side."""
        chance = () if share >= 1 else ("-m", "statistic", "--mode", "random", "--probability", f"{share:g}")
        for chain in chains:
            _run(*self.prefix, "iptables", "-w", "-A", chain, *chance, "-j", "DROP")

    def heal(self) -> None:
        """Carry everything again."""
        _run(*self.prefix, "iptables", "-w", "-F")

    def close(self) -> None:
        """Remove the namespace and with it the cables; who still runs inside keeps a network of nothing."""
        with suppress(OSError):
            _run("ip", "netns", "delete", self.name)
        with suppress(OSError):
            _run("ip", "link", "delete", f"svf{os.getpid()}h")


_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))


def _run(*command: str) -> None:
    """Run a command.

    Raises:
        OSError: it failed; says what it said.
    """
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": _PATH}, timeout=30
    )
    if done.returncode:
        raise OSError(f"`{' '.join(command)}`: {done.stderr.strip()}")


def _remove_orphans() -> None:
    """Remove what a suite has left behind that was killed."""
    for path in Path("/run/netns").glob("svcfault*"):
        found = re.fullmatch(r"svcfault(\d+)", path.name)
        if found and not Path(f"/proc/{found[1]}").exists():
            with suppress(OSError):
                _run("ip", "netns", "delete", path.name)
