"""The authkey handshake of the standard library, as bytes in and bytes out, for CPython 3.8 and newer.

Both sides prove that they know the key: a challenge of random bytes, answered by their HMAC. From 3.12 on a
challenge starts with the name of the digest (`{sha256}`); older clients answer any challenge with bare
HMAC-MD5, which is accepted as the stdlib accepts it.
"""

from __future__ import annotations

import hmac
import secrets

CHALLENGE = b"#CHALLENGE#"
WELCOME = b"#WELCOME#"
FAILURE = b"#FAILURE#"
#: A client's question to a standby, which closes connections without a challenge; the begin of its answer.
LEADER_QUESTION = b"#LEADER"
LEADER_ANSWER = b"#LEADER "
#: The largest message before the end of the handshake in bytes; the stdlib has the same bound.
MESSAGE_BYTES_MAX = 256
_SHA256 = b"{sha256}"
_MD5 = b"{md5}"
_MD5_BYTES = 16
_LEGACY_CHALLENGE_BYTES = 20


def make_challenge() -> bytes:
    """Return a fresh challenge, without its `#CHALLENGE#` head."""
    return _SHA256 + secrets.token_bytes(40)


def is_right(authkey: bytes, challenge: bytes, response: bytes) -> bool:
    """Return whether *response* is the answer to *challenge* of a side that knows *authkey*."""
    if response.startswith(_SHA256):
        digest, given = "sha256", response[len(_SHA256) :]
    elif response.startswith(_MD5):
        digest, given = "md5", response[len(_MD5) :]
    elif len(response) == _MD5_BYTES:
        digest, given = "md5", response
    else:
        return False
    return hmac.compare_digest(hmac.new(authkey, challenge, digest).digest(), given)


def is_sha256(response: bytes) -> bool:
    """Return whether a response has the digest of CPython 3.12 and newer."""
    return response.startswith(_SHA256)


def answer(authkey: bytes, message: bytes) -> bytes | None:
    """Return the response to the other side's challenge *message*, or None if it is not a challenge."""
    if not message.startswith(CHALLENGE):
        return None
    challenge = message[len(CHALLENGE) :]
    if challenge.startswith(_SHA256):
        return _SHA256 + hmac.new(authkey, challenge, "sha256").digest()
    if challenge.startswith(_MD5):
        return _MD5 + hmac.new(authkey, challenge, "md5").digest()
    if len(challenge) == _LEGACY_CHALLENGE_BYTES:
        return hmac.new(authkey, challenge, "md5").digest()
    return None


def who_leads(addresses: tuple[str, ...]) -> bytes:
    """Return a standby's answer to `LEADER_QUESTION`: the leader's addresses; none if it knows no leader."""
    return LEADER_ANSWER + ",".join(addresses).encode()


def leader_named(message: bytes) -> str | None:
    """Return the addresses in a standby's answer: "" if it knows none, None if *message* is no answer."""
    if not message.startswith(LEADER_ANSWER):
        return None
    return message[len(LEADER_ANSWER) :].decode("ascii", "replace")
