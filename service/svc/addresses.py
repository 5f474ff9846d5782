"""Addresses: a host and a TCP port, as a user writes them."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from svc.errors import ConfigurationError
from svc.first_answer import shown

#: The manager's port if none is named.
DEFAULT_PORT = 7077
#: The host of an address that is a port alone: only this host reaches it.
LOOPBACK = "127.0.0.1"
_HOST = r"(?:\[(?P<v6>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^\[\]:\s-][^\[\]:\s]*))"
_ADDRESS = re.compile(rf"{_HOST}(?::(?P<port>\d{{1,5}}))?")
_NUMBERS = re.compile(r"\d+\.\d+\.\d+\.\d+")
#: Characters of a host's name, and of each part between its dots.
_HOST_MAX, _LABEL_MAX = 253, 63


#: Addresses in a list of those of one manager.
ENTRIES_MAX = 16


@dataclass(frozen=True, slots=True)
class Address:
    """A host name or IP address, and a TCP port (0: any free one, if a server listens)."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return HOST:PORT, with brackets around an IPv6 address."""
        return shown(self.host, self.port)

    @property
    def is_loopback(self) -> bool:
        """Whether only this host reaches it; no name but `localhost` is taken for one."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host.partition("%")[0]).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class ManagerAddresses:
    """The addresses of one manager, in the order in which they are tried."""

    entries: tuple[Address, ...]

    def __str__(self) -> str:
        """Return the addresses, separated by commas."""
        return ",".join(map(str, self.entries))

    def pairs(self) -> list[tuple[str, int]]:
        """Return the host and port of each."""
        return [(entry.host, entry.port) for entry in self.entries]


def parse_manager(text: str) -> ManagerAddresses:
    """Return the addresses in a comma-separated list, each as `parse_address`, and each once.

    Raises:
        ConfigurationError: there is none, one is malformed or cannot be connected to, or they are too many.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise ConfigurationError(
            f"{text!r} has an empty address; write HOST:PORT, or several of them with commas: a:7077,b:7077"
        )
    entries = tuple(dict.fromkeys(map(parse_address, parts)))
    if len(entries) > ENTRIES_MAX:
        raise ConfigurationError(f"{len(entries)} addresses of one manager; {ENTRIES_MAX} are the most")
    for entry in entries:
        if not entry.port:
            raise ConfigurationError(
                f"{entry} cannot be called: port 0 is only for listening at any free one"
            )
    return ManagerAddresses(entries)


def parse_address(text: str, default_port: int = DEFAULT_PORT) -> Address:
    """Return the address that HOST, HOST:PORT, [IPV6], [IPV6]:PORT or PORT names; PORT is of this host alone.

    Raises:
        ConfigurationError: *text* is none of these.
    """
    text = text.strip()
    match = _ADDRESS.fullmatch(f"{LOOPBACK}:{text}" if text.isdigit() else text)
    port = int(match["port"] or default_port) if match else 65536
    if match is None or port > 65535:
        raise ConfigurationError(
            f"{text!r} is not an address; write HOST:PORT, or a PORT of up to 65535, with brackets around "
            f"IPv6: [::1]:{default_port}"
        )
    host = match["v6"] or match["host"]
    wrong = _wrong_host(host)
    if wrong:
        raise ConfigurationError(f"{text!r} is not an address: {wrong}")
    return Address(host, port)


def _wrong_host(host: str) -> str:
    """Return why *host* is neither a name nor an IP address, or ""."""
    if ":" in host or _NUMBERS.fullmatch(host):
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return f"{host} is no {'IPv6' if ':' in host else 'IPv4'} address"
        return ""
    if len(host) > _HOST_MAX or not all(
        0 < len(label) <= _LABEL_MAX for label in host.rstrip(".").split(".")
    ):
        return (
            f"the parts of a host's name have 1 to {_LABEL_MAX} characters, and the name {_HOST_MAX} at most"
        )
    return ""


def parse_optional_address(text: str, default_port: int = DEFAULT_PORT) -> Address | None:
    """Return the address that *text* names, or None if it is `off`; as `parse_address`."""
    return None if text.strip().lower() == "off" else parse_address(text, default_port)
