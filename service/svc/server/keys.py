"""The keys that open the door, each with its role; replaced as a whole when they are read again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from svc import wire_handshake as handshake
from svc.domain.roles import Role


@dataclass(frozen=True, slots=True)
class Key:
    """A secret, and what its holders may do."""

    role: Role
    secret: bytes = field(repr=False)


class KeyRing:
    """All keys that are active; two of one role while one replaces the other."""

    def __init__(self, keys: Iterable[Key]) -> None:
        """Hold *keys*; where two are equal the first one's role counts."""
        self._keys = tuple(keys)

    @classmethod
    def of_authkey(cls, authkey: bytes) -> KeyRing:
        """Return a ring with the one key that may do everything."""
        return cls([Key(Role.ADMIN, bytes(authkey))])

    def who_answered(self, challenge: bytes, response: bytes) -> Key | None:
        """Return the key that *response* proves, or None; each is tried, so the time says nothing."""
        found = None
        for key in reversed(self._keys):
            if handshake.is_right(key.secret, challenge, response):
                found = key
        return found

    def __contains__(self, key: Key) -> bool:
        """Tell whether *key* is active."""
        return key in self._keys

    def __len__(self) -> int:
        """Return how many keys are active."""
        return len(self._keys)
