"""Jobs and futures of an executor and of those made by its `options`, from the first job to the end.

Nothing here refers to the executor, so that its threads end once it is gone and the last future has ended.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection

from svc.client.background import BackgroundPipeline
from svc.client.collector import Collector
from svc.client.futures import Future
from svc.client.pending import PendingJob
from svc.client.session import PAGE, Deadline, Session
from svc.client.window import SubmitWindow
from svc.domain.lifecycle import JobState
from svc.errors import ServiceError


class Dispatch:
    """Jobs that are being submitted, and futures that wait for an outcome. Many threads can use it safely."""

    def __init__(self, session: Session) -> None:
        """Use *session*, and close it at the end."""
        self.session = session
        self.collector = Collector(session, lambda: self.pipeline.own_origin, self._leave)
        self.pipeline = BackgroundPipeline(
            session.submit,
            session.pickle_keys,
            named=self._expect,
            answered=self.collector.acknowledge,
            ended=self._leave,
            values=session.values,
            post=SubmitWindow(session).post,
        )
        self._ends = itertools.count()

    def future(self, name: str) -> Future:
        """Return a future that belongs to the job *name*, and that nothing ends yet."""
        return Future(name, self.cancel, self._is_leased)

    def watch(self, name: str) -> Future:
        """Return the future of a job that may be another client's.

        Raises:
            RuntimeError: the executor was shut down.
            UnknownJob: there is no such job.
        """
        known = self.collector.get(name)
        if known is not None:
            return known
        ended = self.session.outcomes([name], Deadline(0.0))
        future = self.future(name)
        future.sent = True
        if ended:
            future.end_as(ended[0], self.session.reader, self.session.values.fetch)
            return future
        return self.collector.watch(future)

    def cancel(self, future: Future) -> bool:
        """Cancel a job at the manager; return whether it is cancelled."""
        try:
            if not self.cancel_all([future], running=True):
                return future.cancelled()
        except ServiceError:
            return future.cancelled()
        if self.collector.pop(future.job_id):
            future.end_cancelled()
        return True

    def cancel_all(self, futures: Collection[Future], *, running: bool = False) -> int:
        """Cancel the waiting jobs, once all are sent; return their number. Futures end a little later.

        With *running*, those that consumers have are cancelled too.

        Raises:
            BrokerError: the manager does not answer, or does not know one of them.
        """
        # A callback may run in the thread that would have to send, so it cannot wait for that.
        if not (self.pipeline.is_own_thread() or all(each.sent or each.done() for each in futures)):
            self.pipeline.flush()
        names = [future.job_id for future in futures if not future.done()]
        pages = [names[first : first + PAGE] for first in range(0, len(names), PAGE)]
        return sum(self.session.ask(lambda broker: broker.cancel(page, running=running)) for page in pages)  # noqa: B023  # called at once

    def close(self) -> None:
        """Accept no more jobs; the threads end when no work is left."""
        self.pipeline.close()
        self.collector.close()

    def join(self) -> None:
        """Wait until the threads have ended; a call from one of them does not wait for itself."""
        self.pipeline.join()
        self.collector.join()

    def _expect(self, job: PendingJob) -> None:
        job.owner = self.future(job.id)
        self.collector.expect(job.owner)

    def _is_leased(self, name: str) -> bool:
        """Return whether a consumer has the job; also False if the manager does not answer or know it."""
        try:
            views = self.session.ask(lambda broker: broker.get([name]))
        except ServiceError:
            return False
        return any(view.state == JobState.LEASED.word for view in views)

    def _leave(self) -> None:
        """Close the connections once both threads have ended: one may still need them after the other."""
        if next(self._ends):
            self.session.close()
