"""The bounds of connections, and the register of all connections: open and half-open, by address and key.

A peer that has not proved a key costs a descriptor and a few hundred bytes, for a few seconds. Above the
allowed number of half-open connections, the oldest one is cut off. If one address has too many, its own
oldest one is cut off, so a flood from one host pushes out only itself. An honest handshake takes a few
milliseconds and is hardly ever the oldest; once the peer has proved a key, no peer without a key pushes it
out.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from svc.server.connection import Connection
from svc.server.keys import Key
from svc.wire import MESSAGE_BYTES_MAX

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of connections, and of their buffers.

    Attributes:
        connections: the most connections at a time of peers that have proved a key.
        reserved: places among them that are kept for each key, so that no key can take them all. At least
            half of all places are kept for no key, however many keys there are.
        address_connections: the most such connections of one address (of one /64 network for IPv6).
        half_open: the most connections in their handshake; above it the oldest is cut off.
        address_half_open: the most connections in their handshake of one address.
        handshakes: the most connections in their handshake beside which another peer is let in at once; see
            `pace`. Not more than `address_half_open`, or peers of one address would push each other out.
        handshake_seconds: time for a peer to prove that it knows a key, TLS included.
        stalled_seconds: time for a peer to read its waiting bytes, in addition to the time by `trickle`.
        trickle: bytes a second that a slow peer has to read at least.
        buffered_bytes: the most bytes of unfinished messages and unread answers, of all connections. Above
            it, the key with the most bytes loses its connection with the most bytes.
    """

    connections: int = 4096
    reserved: int = 32
    address_connections: int = 4096
    half_open: int = 512
    address_half_open: int = 256
    handshakes: int = 128
    handshake_seconds: float = 5.0
    stalled_seconds: float = 30.0
    trickle: int = 16 * 1024
    buffered_bytes: int = 2 * MESSAGE_BYTES_MAX


class ConnectionLimits:
    """The register of all connections, in the order in which they came."""

    def __init__(self, bounds: Bounds, keys: int = 1) -> None:
        """Keep to *bounds*; *keys* is the number of active keys."""
        self.bounds = bounds
        self.keys = keys
        self.connections: dict[int, Connection] = {}
        self.half_open: dict[int, Connection] = {}
        self._open_by_address: Counter[str] = Counter()
        self._open_by_key: Counter[Key | None] = Counter()
        self._half_open_by_address: Counter[str] = Counter()

    @property
    def open(self) -> int:
        """How many connections have a place, that is, are not half-open."""
        return len(self.connections) - len(self.half_open)

    def refusal(self, address: str) -> str:
        """Return why no peer from *address* gets a place now, whatever its key; empty if it may get one."""
        if self.open >= self.bounds.connections:
            return "too many connections"
        if self._open_by_address[_network(address)] >= self.bounds.address_connections:
            return "too many connections from this address"
        return ""

    def _key_refusal(self, key: Key | None) -> str:
        """Return why a connection with *key* gets no place; empty if a reserved or a shared one is free."""
        own = min(self.bounds.reserved, self.bounds.connections // (2 * max(1, self.keys)))
        if self._open_by_key[key] < own:
            return ""
        shared = self.bounds.connections - own * self.keys
        taken = sum(max(0, count - own) for count in self._open_by_key.values())
        return "too many connections with this key" if taken >= shared else ""

    def enter(self, connection: Connection) -> Connection | None:
        """Add a half-open connection; return the one to cut off for it, if there are too many."""
        network = _network(connection.address)
        self.connections[connection.fd] = self.half_open[connection.fd] = connection
        self._half_open_by_address[network] += 1
        if self._half_open_by_address[network] > self.bounds.address_half_open:
            return _first_stranger(
                each for each in self.half_open.values() if _network(each.address) == network
            )
        if len(self.half_open) > self.bounds.half_open:
            return _first_stranger(self.half_open.values())
        return None

    def opened(self, connection: Connection) -> str:
        """Give a place to a connection that has proved a key; return why it gets none, or an empty text."""
        refusal = self.refusal(connection.address) or self._key_refusal(connection.key)
        if not refusal:
            self._close_half(connection)
            self._open_by_address[_network(connection.address)] += 1
            self._open_by_key[connection.key] += 1
        return refusal

    def leave(self, connection: Connection) -> bool:
        """Forget a connection; return whether it had a place."""
        if self.connections.pop(connection.fd, None) is None:
            return False
        if self._close_half(connection):
            return False
        _count_down(self._open_by_address, _network(connection.address))
        _count_down(self._open_by_key, connection.key)
        return True

    def _close_half(self, connection: Connection) -> bool:
        """No longer count a connection as half-open; return whether it was."""
        if self.half_open.pop(connection.fd, None) is None:
            return False
        _count_down(self._half_open_by_address, _network(connection.address))
        return True

    def next_deadline(self) -> float:
        """Return when (monotonic) the oldest of the half-open connections has to finish its handshake."""
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
        """Extend all timeouts by the last *seconds*, in which the manager read no messages."""
        for connection in self.connections.values():
            connection.since += seconds
            connection.waiting_since += seconds

    def largest_buffer(self) -> Connection | None:
        """Return the connection to cut off if too many bytes are buffered in all.

        It is the connection with the most bytes, of the key with the most bytes. Connections with other keys
        are not affected.
        """
        waiting: Counter[Key | None] = Counter()
        for each in self.connections.values():
            waiting[each.key] += each.buffered
        if waiting.total() <= self.bounds.buffered_bytes:
            return None
        ((key, _),) = waiting.most_common(1)
        return max(
            (each for each in self.connections.values() if each.key == key), key=lambda each: each.buffered
        )


def _first_stranger(half_open: Iterable[Connection]) -> Connection:
    """Return the oldest refused connection, else the oldest without a key, else the oldest of all.

    The newest one is returned only if there is no other.
    """
    *settled, new = half_open
    refused = (each for each in settled if each.refusal)
    strangers = (each for each in settled if each.key is None)
    return next(refused, None) or next(strangers, settled[0] if settled else new)


def _network(address: str) -> str:
    """Return the address for the limits: for IPv6 its /64 network, as one host may have a whole /64."""
    if ":" not in address:
        return address
    host = ipaddress.IPv6Address(address.partition("%")[0])
    return str(host.ipv4_mapped or ipaddress.IPv6Network((host, 64), strict=False))


def _count_down(counter: Counter[K], key: K) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
