"""Addresses: a host and a TCP port, as a user writes them."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from svc.errors import ConfigurationError

#: The manager's port if none is named.
DEFAULT_PORT = 7077
#: The host of an address that is a port alone: only this host reaches it.
LOOPBACK = "127.0.0.1"
_HOST = r"(?:\[(?P<v6>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^\[\]:\s-][^\[\]:\s]*))"
_ADDRESS = re.compile(rf"{_HOST}(?::(?P<port>\d{{1,5}}))?")


@dataclass(frozen=True, slots=True)
class Address:
    """A host name or IP address, and a TCP port (0: any free one, if a server listens)."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return HOST:PORT, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this host reaches it; no name but `localhost` is taken for one."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host.partition("%")[0]).is_loopback
        except ValueError:
            return False


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
    return Address(match["v6"] or match["host"], port)


def parse_optional_address(text: str, default_port: int = DEFAULT_PORT) -> Address | None:
    """Return the address that *text* names, or None if it is `off`; as `parse_address`."""
    return None if text.strip().lower() == "off" else parse_address(text, default_port)
