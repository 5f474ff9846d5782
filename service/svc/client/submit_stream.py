"""A stream of jobs that are submitted frame by frame, several frames on their way at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from svc.client.frames import Frame, FramesInFlight, frames, size_in_flight
from svc.client.pending import PendingJob
from svc.client.pipeline import SubmitPipeline
from svc.client.session import Session
from svc.client.specs import JobSpec
from svc.client.window import SubmitWindow
from svc.errors import ServiceError

#: Specs of jobs; an error stands for a call that cannot become a job, and None for a pause.
Specs = Iterable[JobSpec | ServiceError | None]


class SubmitStream:
    """Submits one stream of jobs, which have an origin of their own."""

    def __init__(self, session: Session, *, strict: bool) -> None:
        """Submit over *session*; if *strict*, jobs of tasks that no worker knows are refused."""
        window = SubmitWindow(session)
        self._pipeline = SubmitPipeline(session.submit, session.pickle_keys, session.values, window.post)
        self._strict = strict
        self._in_flight = FramesInFlight()

    def answered(self, specs: Specs) -> Iterator[Frame]:
        """Submit *specs*; yield the frames in their order, each once all its jobs are answered.

        Before a pause has ended, and before an error of *specs* itself is raised, all frames are yielded. If
        the iterator is closed, those on their way may be accepted or not.

        Raises:
            ServiceError: a request failed; it is not known whether the jobs on their way were accepted.
        """
        unsent = frames(self._pipeline.entries(specs, self._strict))
        failure: Exception | None = None
        while True:
            try:
                frame = next(unsent, None)
            except Exception as error:  # noqa: BLE001  # raised below, after the answers
                failure = error
                break
            if frame is None:
                break
            if not frame:  # the source pauses
                yield from self._all_answered()
                continue
            jobs = [entry for entry in frame if isinstance(entry, PendingJob)]
            size = size_in_flight(jobs)
            while not self._in_flight.has_room(size):
                yield self._next_answered()
            sent = self._pipeline.begin(jobs)
            sent.entries = frame
            self._in_flight.add(sent, size)
            while not self._in_flight.has_room(0):
                yield self._next_answered()
        yield from self._all_answered()
        if failure is not None:
            raise failure

    def _all_answered(self) -> Iterator[Frame]:
        while self._in_flight:
            yield self._next_answered()

    def _next_answered(self) -> Frame:
        sent = self._in_flight.pop()
        self._pipeline.finish(sent)
        return sent.entries
