"""Ports for servers that a test starts, kills and starts again: nobody else gets them meanwhile.

The system gives ports of its own range to connections, and to whoever asks for port 0. A server whose port is
of that range may find it taken when it comes back. So these are below the range, each process of a suite has
a part of them, and none is given twice before all were given.
"""

from __future__ import annotations

import itertools
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import suppress

#: The ports: above those of services, below the usual range of Linux.
FIRST, END = 20_000, 32_000


def own_ports(worker: str, workers: int) -> Iterator[int]:
    """Yield the ports of the suite's process *worker*, `gw0`, `gw1`, … of so many, in a ring."""
    size = (END - FIRST) // workers
    first, start = FIRST + size * int(worker.removeprefix("gw")), secrets.randbelow(size)
    return (first + (start + number) % size for number in itertools.count())


_OWN = own_ports(
    os.environ.get("PYTEST_XDIST_WORKER", "gw0"), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
)


def lasting_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Return ports of *host* that are free now, and that the system gives to no connection."""
    ports: list[int] = []
    while len(ports) < count:
        port = next(_OWN)
        with suppress(OSError), socket.create_server((host, port)):
            ports.append(port)
    return ports


def lasting_port(host: str = "127.0.0.1") -> int:
    """Return one such port."""
    (port,) = lasting_ports(1, host)
    return port
