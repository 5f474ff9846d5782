"""A network of several hosts: a namespace for each, and a router between them; an address of a dead host."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import pytest

from tests.support.namespaces import need_tools, network_tool, remove_orphans

_PREFIX = "svchosts"


class HostNetwork:
    """Hosts that reach each other through a router alone, each in a network of its own. This needs root.

    The addresses are those of no other run, as nothing outside of the namespaces has a way to them.

    Attributes:
        namespaces: the namespace of each host, by the host's name.
        addresses: its address.
    """

    def __init__(self, hosts: Sequence[str]) -> None:
        """Make the namespaces and cables of *hosts*.

        Raises:
            OSError: they cannot be made here; the message has the reason.
        """
        need_tools("ip", "iptables")
        remove_orphans(_PREFIX)
        own = f"{_PREFIX}{os.getpid()}"
        self._router = f"{own}r"
        self.namespaces = {host: f"{own}{place}" for place, host in enumerate(hosts)}
        self.addresses = {host: f"10.77.{place}.2" for place, host in enumerate(hosts)}
        try:
            network_tool("ip", "netns", "add", self._router)
            forward = "echo 1 > /proc/sys/net/ipv4/ip_forward"
            network_tool(*self._inside(self._router), "sh", "-c", forward)
            for place, host in enumerate(hosts):
                self._connect(host, f"10.77.{place}.1")
        except OSError:
            self.close()
            raise

    def _connect(self, host: str, router: str) -> None:
        """Make the namespace of a host, and its cable to the *router*, whose address is that."""
        name, cable = self.namespaces[host], self._cable(host)
        network_tool("ip", "netns", "add", name)
        network_tool(
            "ip",
            "-n",
            self._router,
            "link",
            "add",
            cable,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            name,
        )
        network_tool("ip", "-n", self._router, "address", "add", f"{router}/24", "dev", cable)
        network_tool("ip", "-n", self._router, "link", "set", cable, "up")
        network_tool("ip", "-n", name, "address", "add", f"{self.addresses[host]}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            network_tool("ip", "-n", name, "link", "set", link, "up")
        network_tool("ip", "-n", name, "route", "add", "default", "via", router)

    def unplug(self, host: str) -> None:
        """Take a host off the network: its cable ends in nothing, and nobody is told."""
        network_tool("ip", "-n", self._router, "link", "set", self._cable(host), "down")

    def plug(self, host: str) -> None:
        """Put it back."""
        network_tool("ip", "-n", self._router, "link", "set", self._cable(host), "up")

    def allow_only(self, host: str, openings: Sequence[tuple[str, int]]) -> None:
        """Let nothing in but connections from a host to a port, and answers; the rest is refused at once."""
        rule = (*self._inside(self.namespaces[host]), "iptables", "-w", "-A", "INPUT")
        network_tool(*rule, "-i", "lo", "-j", "ACCEPT")
        network_tool(*rule, "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT")
        for peer, port in openings:
            source = ("-s", self.addresses[peer])
            network_tool(*rule, "-p", "tcp", *source, "--dport", str(port), "-j", "ACCEPT")
        network_tool(*rule, "-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset")
        network_tool(*rule, "-j", "REJECT")

    def close(self) -> None:
        """Remove all of it."""
        for name in (*self.namespaces.values(), self._router):
            with suppress(OSError):
                network_tool("ip", "netns", "delete", name)

    def _cable(self, host: str) -> str:
        return f"to{self.namespaces[host].removeprefix(_PREFIX)}"

    @staticmethod
    def _inside(namespace: str) -> tuple[str, ...]:
        return ("ip", "netns", "exec", namespace)


@contextmanager
def dropping() -> Iterator[tuple[str, int]]:
    """Yield an address that leaves connections unanswered, as a dead host does: its backlog is full."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        at: tuple[str, int] = full.getsockname()
        for _ in range(64):
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0.3)
            try:
                filler.connect(at)
            except TimeoutError:
                yield at
                return
        pytest.skip("this kernel accepts connections beyond the backlog")
