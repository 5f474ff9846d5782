"""Counts what is inside a manager, for tests that wait for it."""

from __future__ import annotations

from svc.broker.host import QueueHost
from svc.server.manager import Server


def waiting_lessees(host: QueueHost) -> int:
    """Return how many requests for jobs wait."""
    return sum(map(len, host._waiters._lessees.values()))


def waiting_puts(host: QueueHost) -> tuple[int, int]:
    """Return how many puts of plain clients wait, and the bytes of their jobs."""
    puts = host._waiters.puts
    return sum(map(len, puts.lists.values())), puts.bytes


def waiting_behind(host: QueueHost) -> int:
    """Return how many requests for jobs behind others wait."""
    lists = (host._waiters._behind, host._waiters.postponed.lists)
    return sum(len(each) for kind in lists for each in kind.values())


def waiting_renewals(host: QueueHost) -> int:
    """Return how many renewals of supervisors wait for orders."""
    return sum(map(len, host._waiters._renewals.values()))


def connection_count(server: Server) -> int:
    """Return how many connections there are, including those in their handshake."""
    return len(server._connections.limits.connections)
