"""The key with which tests sign pickles, and helpers to read jobs that are signed with it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from svc.codec import PICKLE
from svc.domain.job import Terms, job_id
from svc.domain.replies import Delivery
from svc.envelope import Envelopes, PickleKeys

PICKLE_KEYS = PickleKeys((b"p" * 32,))


def envelopes_of(delivery: Delivery, place: int) -> Envelopes:
    """Return the envelopes of one job of *delivery*."""
    return PICKLE_KEYS.of(job_id(delivery.origin, delivery.first + place))


def opener(delivery: Delivery, place: int) -> Callable[[bytes], memoryview] | None:
    """Return the function that `decode_arguments` needs for that job, or None."""
    if delivery.terms.codec != PICKLE:
        return None
    return partial(envelopes_of(delivery, place).open_arguments, delivery.terms)


def sealed(origin: str, first: int, terms: Terms, bodies: list[bytes]) -> list[bytes]:
    """Return *bodies* in the form in which a client sends them: pickles in envelopes."""
    if terms.codec != PICKLE:
        return bodies
    return [
        PICKLE_KEYS.of(job_id(origin, number)).seal_arguments(terms, body)
        for number, body in enumerate(bodies, start=first)
    ]
