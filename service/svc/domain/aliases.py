"""Aliases: second names of jobs that have an idempotency key.

With the id of a job, a client that may wait for jobs can read its outcome; with its origin, the outcomes of
all jobs of that submission. A client that repeats another client's keyed submit has shown that it knows the
key and the content of one job. It gets an alias, made of just these two, which gives access to the outcome of
that job and to nothing else.
"""

from __future__ import annotations

from svc.domain.job import job_id
from svc.domain.names import is_put_origin

_PREFIX = "key."
_DIGEST_DIGITS = 32


def alias_of(key: str, digest: bytes) -> str:
    """Return the alias of the job that has *key* and whose task and arguments have the digest *digest*."""
    return job_id(f"{_PREFIX}{digest.hex()}.{key}", 0)


def is_alias(origin: str) -> bool:
    """Return whether *origin* is the origin of an alias."""
    return origin.startswith(_PREFIX)


def key_and_digest(origin: str) -> tuple[str, bytes]:
    """Return the key and the content's digest in the origin of an alias; the digest is b"" if malformed."""
    digits, _, key = origin.removeprefix(_PREFIX).partition(".")
    try:
        return key, bytes.fromhex(digits) if len(digits) == _DIGEST_DIGITS else b""
    except ValueError:
        return key, b""


def is_reserved_origin(origin: str) -> bool:
    """Return whether only the manager itself makes jobs of this origin."""
    return is_put_origin(origin) or is_alias(origin)
