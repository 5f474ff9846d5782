"""Jobs that an executor has not sent yet: how many go in one frame, and which share a chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from svc.client.chunks import FRAME_BYTES, FRAME_JOBS, Encoded
from svc.client.futures import Future


@dataclass(slots=True)
class Unsent:
    """A job that the manager has not acknowledged."""

    number: int
    job: Encoded
    strict: bool
    future: Future


def next_frame(unsent: Sequence[Unsent]) -> tuple[int, int]:
    """Return how many of the first jobs go in the next frame, and their bytes; one job goes at least."""
    count = size = 0
    for each in unsent[:FRAME_JOBS]:
        if count and size + len(each.job.body) > FRAME_BYTES:
            break
        size += len(each.job.body)
        count += 1
    return count, size


def number_of(unsent: Unsent) -> int:
    """Return the number by which jobs that wait are in order."""
    return unsent.number


def runs(jobs: Sequence[Unsent]) -> list[list[Unsent]]:
    """Divide jobs into chunks: neighbours whose numbers follow one another and that are on equal terms."""
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
