"""A separate network for a worker: a namespace and a virtual cable, in which packets can be lost."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

#: The rules that lose packets, seen from inside: incoming ones, and outgoing ones.
LOSE_INCOMING, LOSE_OUTGOING = "INPUT", "OUTPUT"


class Namespace:
    """Creates and removes itself; this needs root.

    Attributes:
        host: the address of this host as seen from inside.
        prefix: the words before a command that make it run inside.
    """

    def __init__(self) -> None:
        """Make the namespace; its name and addresses contain the process id, so that suites do not collide.

        Raises:
            OSError: it cannot be made here; the message has the reason.
        """
        need_tools("ip", "iptables")
        number = os.getpid()
        self.name = f"svcfault{number}"
        third, fourth = number // 64 % 256, number % 64 * 4
        self.host, inside = f"10.231.{third}.{fourth + 1}", f"10.231.{third}.{fourth + 2}"
        self.prefix = ("ip", "netns", "exec", self.name)
        remove_orphans("svcfault")
        network_tool("ip", "netns", "add", self.name)
        try:
            outer, inner = f"svf{number}h", f"svf{number}n"
            network_tool(
                "ip", "link", "add", outer, "type", "veth", "peer", "name", inner, "netns", self.name
            )
            network_tool("ip", "address", "add", f"{self.host}/30", "dev", outer)
            network_tool("ip", "link", "set", outer, "up")
            network_tool(*self.prefix, "ip", "address", "add", f"{inside}/30", "dev", inner)
            network_tool(*self.prefix, "ip", "link", "set", inner, "up")
            network_tool(*self.prefix, "ip", "link", "set", "lo", "up")
            self.heal()
        except OSError:
            self.close()
            raise

    def lose(self, *chains: str, share: float = 1.0) -> None:
        """Drop this share of all packets in *chains*; neither side is told."""
        chance = () if share >= 1 else ("-m", "statistic", "--mode", "random", "--probability", f"{share:g}")
        for chain in chains:
            network_tool(*self.prefix, "iptables", "-w", "-A", chain, *chance, "-j", "DROP")

    def heal(self) -> None:
        """Transmit everything again."""
        network_tool(*self.prefix, "iptables", "-w", "-F")

    def close(self) -> None:
        """Remove the namespace and its cables; processes that still run inside have no network then."""
        with suppress(OSError):
            network_tool("ip", "netns", "delete", self.name)
        with suppress(OSError):
            network_tool("ip", "link", "delete", f"svf{os.getpid()}h")


_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))


def need_tools(*tools: str) -> None:
    """Check that commands exist.

    Raises:
        OSError: one does not.
    """
    for tool in tools:
        if shutil.which(tool, path=_PATH) is None:
            raise OSError(f"there is no `{tool}`")


def network_tool(*command: str) -> None:
    """Run a command.

    Raises:
        OSError: it failed; the message has its output.
    """
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": _PATH}, timeout=60
    )
    if done.returncode:
        raise OSError(f"`{' '.join(command)}`: {done.stderr.strip()}")


def remove_orphans(prefix: str) -> None:
    """Remove the namespaces whose names begin so, of suites that were killed."""
    for path in Path("/run/netns").glob(f"{prefix}*"):
        found = re.fullmatch(rf"{prefix}(\d+)\w*", path.name)
        if found and not Path(f"/proc/{found[1]}").exists():
            with suppress(OSError):
                network_tool("ip", "netns", "delete", path.name)
