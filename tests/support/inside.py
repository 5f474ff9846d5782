"""Counts what is inside a manager, for tests that wait for it."""

from __future__ import annotations

from svc.broker.host import QueueHost
from svc.server.manager import Server


def waiting_lessees(host: QueueHost) -> int:
    """Return how many requests for jobs wait."""
    return sum(map(len, host._waiters._lessees.values()))


def connection_count(server: Server) -> int:
    """Return how many connections there are, including those in their handshake."""
    return len(server._connections.limits.connections)
