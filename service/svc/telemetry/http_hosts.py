"""Under which names an HTTP server answers, so that no web page reaches it by DNS rebinding.

A page may have its own name point to an address of this network, and then read what is served there. The
browser still says the page's name in `Host`. Such a name has a dot, is no address, and is none of ours.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection

#: In a list of names: whatever name is asked for is answered.
ANY_HOST = "*"
_HOST = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::\d{1,5})?")


class KnownHosts:
    """What is answered in `Host`: addresses, names without a dot, this host's own, and given ones."""

    def __init__(self, names: Collection[str] = ()) -> None:
        """Know *names* too; `ANY_HOST` among them for all there are."""
        self._any = ANY_HOST in names
        self._names = {name.lower().rstrip(".") for name in (*names, socket.gethostname())}

    def knows(self, said: str) -> bool:
        """Return whether a request whose `Host` is *said* is answered."""
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
