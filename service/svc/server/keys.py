"""The keys that the manager accepts, each with its role; replaced as a whole when they are read again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from svc import wire_handshake as handshake
from svc.domain.roles import Role


@dataclass(frozen=True, slots=True)
class Key:
    """A secret, and the role of its holders."""

    role: Role
    secret: bytes = field(repr=False)


class KeyRing:
    """All active keys. A role has two while one key replaces the other."""

    def __init__(self, keys: Iterable[Key]) -> None:
        """Hold *keys*; if two secrets are equal, the role of the first one counts."""
        self._keys = tuple(keys)

    @classmethod
    def of_authkey(cls, authkey: bytes) -> KeyRing:
        """Return a ring with the one key that may do everything."""
        return cls([Key(Role.ADMIN, bytes(authkey))])

    def who_answered(self, challenge: bytes, response: bytes) -> Key | None:
        """Return the key that *response* proves, or None; all keys are tried, so the time reveals nothing."""
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
