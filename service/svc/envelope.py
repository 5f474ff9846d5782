"""Signatures around pickles, so that a manager cannot forge one: it stores envelopes and has no key.

An envelope is one byte, 32 bytes of HMAC-SHA-256, and the pickle. The signature covers the kind of the pickle
(the arguments, the result or the exception of a job), the job's queue and task for arguments, and the job's
id. The first byte says whether the id is covered. For arguments of a job with an idempotency key it is not,
because the job may turn out to be an earlier one. The pickle is read only after the signature was verified.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from svc.errors import ConfigurationError, UntrustedPickle

if TYPE_CHECKING:
    from svc.domain.job import Terms

#: Keys that are active at the same time, while one replaces the other.
KEYS_MAX = 2
#: Bytes that an envelope adds to a pickle.
OVERHEAD_BYTES = 33

_OF_JOB, _OF_ANY_JOB = b"J", b"K"
_VERSION = "svc pickle 1"


@dataclass(frozen=True, slots=True)
class PickleKeys:
    """The secrets that submitters and workers share; the manager never has them.

    Attributes:
        secrets: one or two; the first signs, and each verifies. Picklable, because consumers get them.
    """

    secrets: tuple[bytes, ...] = field(repr=False)

    def __post_init__(self) -> None:
        if not 1 <= len(self.secrets) <= KEYS_MAX:
            raise ConfigurationError(f"pickles are signed with 1 to {KEYS_MAX} keys, not {len(self.secrets)}")

    def of(self, job_id: str) -> Envelopes:
        """Return the envelopes that sign and verify the pickles of one job."""
        return Envelopes(self.secrets, job_id)

    def of_value(self, job_id: str, token: int, index: int) -> Envelopes:
        """Return the envelopes for one partial result, number *index* of the attempt under *token*."""
        return Envelopes(self.secrets, f"{job_id} partial result {index} of {token}")


@dataclass(frozen=True, slots=True)
class Envelopes:
    """Makes and opens the envelopes of one job."""

    secrets: Sequence[bytes] = field(repr=False)
    job_id: str

    def seal_arguments(self, terms: Terms, content: bytes, *, keyed: bool = False) -> bytes:
        """Return the envelope for the arguments of the job; *keyed* if it has an idempotency key."""
        kind = _OF_ANY_JOB if keyed else _OF_JOB
        return kind + self._signature(self.secrets[0], self._arguments(kind, terms), content) + content

    def open_arguments(self, terms: Terms, envelope: bytes) -> memoryview:
        """Return the pickle of the arguments.

        Raises:
            UntrustedPickle: no holder of a key signed it for this task, queue and job.
        """
        return self._opened(self._arguments(envelope[:1], terms), envelope, (_OF_JOB, _OF_ANY_JOB))

    def seal_answer(self, kind: str, content: bytes) -> bytes:
        """Return the envelope for the outcome of the job; *kind* is `result` or `exception`."""
        return _OF_JOB + self._signature(self.secrets[0], _context(kind, self.job_id), content) + content

    def open_answer(self, kind: str, envelope: bytes | memoryview) -> memoryview:
        """Return the pickle of the job's outcome; as `open_arguments`."""
        return self._opened(_context(kind, self.job_id), envelope, (_OF_JOB,))

    def _opened(self, context: bytes, envelope: bytes | memoryview, kinds: tuple[bytes, ...]) -> memoryview:
        content = memoryview(envelope)
        if len(content) < OVERHEAD_BYTES or bytes(content[:1]) not in kinds:
            raise UntrustedPickle(f"the pickle for job {self.job_id} is not signed, and was not opened")
        signature, content = bytes(content[1:OVERHEAD_BYTES]), content[OVERHEAD_BYTES:]
        right = [
            hmac.compare_digest(signature, self._signature(secret, context, content))
            for secret in self.secrets
        ]
        if not any(right):
            raise UntrustedPickle(
                f"the signature of the pickle for job {self.job_id} is wrong, and it was not opened: it was "
                "signed with another key or for another job, or changed on the way; submitters and workers "
                "need the same --pickle-key-file"
            )
        return content

    def _arguments(self, kind: bytes, terms: Terms) -> bytes:
        name = self.job_id if kind == _OF_JOB else ""
        return _context("arguments", kind.hex(), terms.queue, terms.task, name)

    @staticmethod
    def _signature(secret: bytes, context: bytes, content: bytes | memoryview) -> bytes:
        # The context's length comes first, so no byte of it can count as a byte of the content.
        made = hmac.new(secret, len(context).to_bytes(4) + context, "sha256")
        made.update(content)
        return made.digest()


def _context(*parts: str) -> bytes:
    """Return *parts* as unique bytes: quoted and escaped, the same on every Python."""
    return ascii((_VERSION, *parts)).encode()
