"""Jobs that an executor has not sent yet, and their division into frames and chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from svc.client.futures import Future
from svc.client.specs import FRAME_BYTES, FRAME_JOBS, Encoded


@dataclass(slots=True)
class Unsent:
    """A job that the manager has not acknowledged."""

    number: int
    job: Encoded
    strict: bool
    future: Future


def next_frame(unsent: Sequence[Unsent]) -> tuple[int, int]:
    """Return the number of first jobs for the next frame, at least one, and their bytes."""
    count = size = 0
    for each in unsent[:FRAME_JOBS]:
        if count and size + len(each.job.body) > FRAME_BYTES:
            break
        size += len(each.job.body)
        count += 1
    return count, size


def number_of(unsent: Unsent) -> int:
    """Return the number that decides the order of unsent jobs."""
    return unsent.number


def runs(jobs: Sequence[Unsent]) -> list[list[Unsent]]:
    """Divide jobs into chunks: neighbours with consecutive numbers and equal terms."""
    found: list[list[Unsent]] = []
    last: Unsent | None = None
    for unsent in jobs:
        if last is not None and unsent.number == last.number + 1 and _alike(unsent.job, last.job):
            found[-1].append(unsent)
        else:
            found.append([unsent])
        last = unsent
    return found


def _alike(one: Encoded, other: Encoded) -> bool:
    return (one.terms is other.terms or one.terms == other.terms) and one.delay == other.delay
