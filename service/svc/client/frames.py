"""Frames of jobs: how many are sent together, how they are divided, and which of them are on their way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter

import msgspec

from svc.client.pending import PendingJob
from svc.domain.replies import Note
from svc.errors import ServiceError

#: Jobs in one frame at most.
FRAME_JOBS = 1000
#: Bytes of arguments in a frame; once it has so many, it takes no further job.
FRAME_BYTES = 4 * 1024 * 1024
#: Frames of one stream of jobs that may be without an answer, and bytes of arguments in them.
IN_FLIGHT_FRAMES = 16
IN_FLIGHT_BYTES = 2 * FRAME_BYTES

#: Jobs to send together; an error stands for a call that cannot become a job.
Frame = list[PendingJob | ServiceError]
#: Waits for the answer to a request, and returns the notes in it.
Answer = Callable[[], list[Note]]
#: Jobs of one request, chunk by chunk.
Chunks = list[list[PendingJob]]


class SentFrame(msgspec.Struct, eq=False):
    """Jobs that were sent, and have no answer yet.

    Attributes:
        jobs: all jobs that were to be sent.
        requests: the chunks of each request that was made of them, and its answer.
        entries: the frame that they are from, with the errors among them.
        stop: the number after that of the last job, if the owner has numbered them.
    """

    jobs: Sequence[PendingJob]
    requests: list[tuple[Chunks, Answer]] = []
    entries: Frame = []
    stop: int = 0


class FramesInFlight:
    """The frames of one stream of jobs that have no answer yet, oldest first; their number is bounded."""

    def __init__(self) -> None:
        """Start with none."""
        self._frames: deque[tuple[int, SentFrame]] = deque()
        self._size = 0

    def __len__(self) -> int:
        """Return their number."""
        return len(self._frames)

    def has_room(self, size: int) -> bool:
        """Return whether one more frame of *size* (see `size_in_flight`) may be sent."""
        if not self._frames:
            return True
        return len(self._frames) < IN_FLIGHT_FRAMES and self._size + max(1, size) <= IN_FLIGHT_BYTES

    def add(self, frame: SentFrame, size: int) -> None:
        """Add a frame that was sent."""
        self._frames.append((size, frame))
        self._size += size

    def pop(self) -> SentFrame:
        """Remove and return the oldest frame."""
        size, frame = self._frames.popleft()
        self._size -= size
        return frame


def size_of(jobs: Iterable[PendingJob]) -> int:
    """Return the bytes of the arguments of *jobs*."""
    return sum(map(len, map(_body_of, jobs)))


def size_in_flight(jobs: Sequence[PendingJob]) -> int:
    """Return the bytes that *jobs* hold until they are answered; large arguments take all the room."""
    return size_of(jobs) + (IN_FLIGHT_BYTES if any(map(_store_of, jobs)) else 0)


def frames(entries: Iterable[PendingJob | ServiceError | None]) -> Iterator[Frame]:
    """Divide jobs into frames, in their order; None ends the current frame, and an empty one follows that."""
    frame: Frame = []
    size = 0
    for entry in entries:
        more = 0
        if isinstance(entry, PendingJob):
            # One with large arguments is alone, so that the others need not be held while it is stored.
            more = len(entry.body) if entry.store is None else FRAME_BYTES + 1
        if frame and (entry is None or len(frame) >= FRAME_JOBS or size + more > FRAME_BYTES):
            yield frame
            frame, size = [], 0
            if entry is None:
                yield []
        if entry is not None:
            frame.append(entry)
            size += more
    if frame:
        yield frame


def requests_of(jobs: Sequence[PendingJob]) -> dict[tuple[str, bool], Chunks]:
    """Divide *jobs* into chunks, for each request; no job overtakes one of its queue and priority."""
    found: dict[tuple[str, bool], Chunks] = {}
    last: dict[tuple[str, bool, str, int], list[PendingJob]] = {}
    chunk: list[PendingJob] = []
    before: PendingJob | None = None
    for job in jobs:
        # Nearly all jobs are in one chunk with the job before them, so this is seen here, without a call.
        if (
            before is None
            or job.terms is not before.terms
            or job.origin != before.origin
            or job.strict is not before.strict
            or job.delay != before.delay
            or job.alone
            or before.alone
            or (job.number >= 0 and job.number != before.number + 1)
        ):
            lane = (job.origin, job.strict, job.terms.queue, job.terms.priority)
            chunk = last.get(lane, [])
            if not chunk or not _continues(job, chunk[-1]):
                chunk = last[lane] = []
                found.setdefault(lane[:2], []).append(chunk)
        chunk.append(job)
        before = job
    return found


_body_of, _store_of = attrgetter("body"), attrgetter("store")


def _continues(job: PendingJob, last: PendingJob) -> bool:
    """Return whether *job* can be in one chunk with *last*, the job before it of its lane."""
    return (
        (job.terms is last.terms or job.terms == last.terms)
        and job.delay == last.delay
        and not (job.alone or last.alone)
        and (job.number < 0 or job.number == last.number + 1)
    )
