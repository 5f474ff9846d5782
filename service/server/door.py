"""The bounds of the network face, and the book of who is inside, who is in the doorway, and from where.

A stranger costs a descriptor and a few hundred bytes, for a few seconds: above the number of half-open
connections the oldest one goes, that of the same address first, so that a flood from one host pushes out
itself. An honest handshake takes a few milliseconds and is hardly ever the oldest; once it has proved to
know a key, no stranger pushes it out.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from service.server.connection import Connection
from service.wire import MESSAGE_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the network may cost the manager.

    Attributes:
        connections: at a time; above it new ones are closed at once.
        address_connections: likewise of one address (of one /64 network for IPv6).
        half_open: connections in their handshake; above it the oldest is cut off.
        address_half_open: likewise of one address.
        handshake_seconds: time to prove that one knows a key, TLS included.
        stalled_seconds: time for a peer to read what waits for it, beside what `trickle` allows.
        trickle: bytes a second that a slow peer has to read at least.
        buffered_bytes: of all connections' unfinished messages and unread answers; above it the
            connection with the most is cut off.
    """

    connections: int = 2048
    address_connections: int = 2048
    half_open: int = 128
    address_half_open: int = 64
    handshake_seconds: float = 5.0
    stalled_seconds: float = 30.0
    trickle: int = 16 * 1024
    buffered_bytes: int = 8 * MESSAGE_BYTES_MAX


class Door:
    """Every connection, in the order in which they came."""

    def __init__(self, bounds: Bounds) -> None:
        """Keep *bounds*."""
        self.bounds = bounds
        self.connections: dict[int, Connection] = {}
        self.half_open: dict[int, Connection] = {}
        self._by_address: Counter[str] = Counter()
        self._half_open_by_address: Counter[str] = Counter()

    def refusal(self, address: str) -> str:
        """Return why nobody from *address* may come in now; empty where one may."""
        if len(self.connections) >= self.bounds.connections:
            return "too many connections"
        if self._by_address[_network(address)] >= self.bounds.address_connections:
            return "too many connections from this address"
        return ""

    def enter(self, connection: Connection) -> Connection | None:
        """Take in a half-open connection; return the one that has to go for it."""
        network = _network(connection.address)
        self.connections[connection.fd] = self.half_open[connection.fd] = connection
        self._by_address[network] += 1
        self._half_open_by_address[network] += 1
        if self._half_open_by_address[network] > self.bounds.address_half_open:
            return _first_stranger(
                each for each in self.half_open.values() if _network(each.address) == network
            )
        if len(self.half_open) > self.bounds.half_open:
            return _first_stranger(self.half_open.values())
        return None

    def opened(self, connection: Connection) -> None:
        """Note that a connection is half-open no more."""
        if self.half_open.pop(connection.fd, None) is not None:
            _count_down(self._half_open_by_address, _network(connection.address))

    def leave(self, connection: Connection) -> bool:
        """Forget a connection; return whether it had come through its handshake."""
        was_open = connection.fd not in self.half_open
        self.opened(connection)
        if self.connections.pop(connection.fd, None) is not None:
            _count_down(self._by_address, _network(connection.address))
        return was_open

    def next_deadline(self) -> float | None:
        """Return when (monotonic) the oldest handshake has to be over."""
        if not self.half_open:
            return None
        return next(iter(self.half_open.values())).since + self.bounds.handshake_seconds

    def overdue(self, now: float) -> list[Connection]:
        """Return the connections whose handshake took too long."""
        found = []
        for connection in self.half_open.values():
            if now < connection.since + self.bounds.handshake_seconds:
                break
            found.append(connection)
        return found

    def pause(self, seconds: float) -> None:
        """Count the last *seconds*, in which nobody was listened to, against no handshake and no reader."""
        for connection in self.connections.values():
            connection.since += seconds
            connection.waiting_since += seconds

    def hoarder(self) -> Connection | None:
        """Return who has the most bytes waiting, where together they are over the bound."""
        if sum(each.buffered for each in self.connections.values()) <= self.bounds.buffered_bytes:
            return None
        return max(self.connections.values(), key=lambda each: each.buffered)


def _first_stranger(half_open: Iterable[Connection]) -> Connection:
    """Return the oldest that has proved no key; the oldest of all where all but the newest have."""
    *settled, new = half_open
    return next((each for each in settled if each.key is None), settled[0] if settled else new)


def _network(address: str) -> str:
    """Return what counts as one place: an IPv6 host has a whole /64 to itself."""
    if ":" not in address:
        return address
    host = ipaddress.IPv6Address(address.partition("%")[0])
    return str(host.ipv4_mapped or ipaddress.IPv6Network((host, 64), strict=False))


def _count_down(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
