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
from typing import TypeVar

from svc.server.connection import Connection
from svc.server.keys import Key
from svc.wire import MESSAGE_BYTES_MAX

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the network may cost the manager.

    Attributes:
        connections: of peers that have proved a key, at a time.
        reserved: places among them that each key has to itself, so that no key can take them all; half of all
            places are nobody's own, however many keys there are.
        address_connections: likewise of one address (of one /64 network for IPv6).
        half_open: connections in their handshake; above it the oldest is cut off.
        address_half_open: likewise of one address.
        handshake_seconds: time to prove that one knows a key, TLS included.
        stalled_seconds: time for a peer to read what waits for it, beside what `trickle` allows.
        trickle: bytes a second that a slow peer has to read at least.
        buffered_bytes: of all connections' unfinished messages and unread answers; above it the key with
            the most of them loses the connection with the most.
    """

    connections: int = 2048
    reserved: int = 32
    address_connections: int = 2048
    half_open: int = 128
    address_half_open: int = 64
    handshake_seconds: float = 5.0
    stalled_seconds: float = 30.0
    trickle: int = 16 * 1024
    buffered_bytes: int = 2 * MESSAGE_BYTES_MAX


class ConnectionLimits:
    """Every connection, in the order in which they came."""

    def __init__(self, bounds: Bounds, keys: int = 1) -> None:
        """Keep *bounds*; *keys* is how many are active."""
        self.bounds = bounds
        self.keys = keys
        self.connections: dict[int, Connection] = {}
        self.half_open: dict[int, Connection] = {}
        self._open_by_address: Counter[str] = Counter()
        self._open_by_key: Counter[Key | None] = Counter()
        self._half_open_by_address: Counter[str] = Counter()

    @property
    def open(self) -> int:
        """How many connections have a place."""
        return len(self.connections) - len(self.half_open)

    def refusal(self, address: str) -> str:
        """Return why nobody from *address* may come in now, whatever its key; empty if one may."""
        if self.open >= self.bounds.connections:
            return "too many connections"
        if self._open_by_address[_network(address)] >= self.bounds.address_connections:
            return "too many connections from this address"
        return ""

    def _key_refusal(self, key: Key | None) -> str:
        """Return why a connection with *key* has no place; empty if there is one, of the key's own or not."""
        own = min(self.bounds.reserved, self.bounds.connections // (2 * max(1, self.keys)))
        if self._open_by_key[key] < own:
            return ""
        shared = self.bounds.connections - own * self.keys
        taken = sum(max(0, count - own) for count in self._open_by_key.values())
        return "too many connections with this key" if taken >= shared else ""

    def enter(self, connection: Connection) -> Connection | None:
        """Take in a half-open connection; return the one that has to go for it."""
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
        """Give a place to a connection that has proved a key; return why there is none, or nothing."""
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
        """Count a connection as half-open no more; return whether it was."""
        if self.half_open.pop(connection.fd, None) is None:
            return False
        _count_down(self._half_open_by_address, _network(connection.address))
        return True

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
        """Return the connection to cut off if too many bytes wait in all.

        It is the one with the most bytes, of the key with the most: who has another key goes on.
        """
        waiting: Counter[Key | None] = Counter()
        for each in self.connections.values():
            waiting[each.key] += each.buffered
        if waiting.total() <= self.bounds.buffered_bytes:
            return None
        ((key, _),) = waiting.most_common(1)
        return max((each for each in self.connections.values() if each.key == key), key=_buffered)


def _buffered(connection: Connection) -> int:
    return connection.buffered


def _first_stranger(half_open: Iterable[Connection]) -> Connection:
    """Return the oldest that has no place, else that has proved no key, else of all but the newest."""
    *settled, new = half_open
    refused = (each for each in settled if each.refusal)
    strangers = (each for each in settled if each.key is None)
    return next(refused, None) or next(strangers, settled[0] if settled else new)


def _network(address: str) -> str:
    """Return what counts as one place: an IPv6 host has a whole /64 to itself."""
    if ":" not in address:
        return address
    host = ipaddress.IPv6Address(address.partition("%")[0])
    return str(host.ipv4_mapped or ipaddress.IPv6Network((host, 64), strict=False))


def _count_down(counter: Counter[K], key: K) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
