"""The host names for which an HTTP server answers, so that no web page reaches it by DNS rebinding.

The owner of a web page may let its own host name point to an address of this network, so that the page can
read the answers from there. The browser still sends the page's name in `Host`. Such a name has a dot, is no
address, and is none of ours.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection

#: In a list of names: answer requests for any name.
ANY_HOST = "*"
_HOST = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::\d{1,5})?")


class KnownHosts:
    """The accepted values of `Host`: addresses, names without a dot, this host's name, and given names."""

    def __init__(self, names: Collection[str] = ()) -> None:
        """Accept *names* too; `ANY_HOST` among them accepts all names."""
        self._any = ANY_HOST in names
        self._names = {name.lower().rstrip(".") for name in (*names, socket.gethostname())}

    def knows(self, said: str) -> bool:
        """Return whether to answer a request whose `Host` is *said*."""
        if self._any:
            return True
        match = _HOST.fullmatch(said.strip())
        if match is None:
            return False
        if match["v6"]:
            return _is_address(match["v6"])
        name = match["name"].lower()
        return "." not in name or name.rstrip(".") in self._names or _is_address(name)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
