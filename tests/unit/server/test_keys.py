"""The ring of keys with which a manager knows its peers."""

from __future__ import annotations

import hmac
import secrets

from svc.domain.roles import Role
from svc.server.keys import Key, KeyRing


def test_where_two_keys_are_equal_the_first_counts():
    secret = secrets.token_bytes(32)
    ring = KeyRing([Key(Role.READ, secret), Key(Role.ADMIN, secret)])
    challenge = b"{sha256}" + secrets.token_bytes(40)
    response = b"{sha256}" + hmac.new(secret, challenge, "sha256").digest()
    found = ring.who_answered(challenge, response)
    assert found is not None
    assert found.role is Role.READ
    assert ring.who_answered(challenge, response[:-1] + b"?") is None


def test_a_key_is_shown_nowhere():
    assert "secret" not in repr(Key(Role.READ, b"secret"))
