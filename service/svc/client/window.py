"""The submits of one stream of jobs that are on their way, several at a time.

They travel on the connection of the client's short calls, and the manager carries them out in their order. If
the connection breaks, it is not known which of them have arrived. So all that have no answer are sent again,
in the same order, on the next connection: that changes nothing for those which had arrived (promise 3). None
is sent while an earlier one would have to be sent again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from svc.broker.base import Broker, expect
from svc.broker.forks import begin_anew_in_children
from svc.client.frames import Answer
from svc.client.session import Session
from svc.domain import commands as c
from svc.domain.job import NewChunk
from svc.domain.replies import Accepted, Note
from svc.errors import ServiceError

#: Seconds in which the manager answers a submit; after that, it is sent again on another connection.
ANSWER_SECONDS = 10.0


class PostedSubmit(msgspec.Struct, eq=False):
    """A submit on its way.

    Attributes:
        command: the submit.
        number: of its request on the connection; 0 if it is to be sent, or sent again.
        notes: the manager's answer, once that has come.
        error: why there is none.
        forks: how many forks led to the process that sent it.
    """

    command: c.Submit
    number: int = 0
    notes: list[Note] | None = None
    error: ServiceError | None = None
    forks: int = 0


class SubmitWindow:
    """Sends submits in their order; one thread uses it."""

    def __init__(self, session: Session) -> None:
        """Send over *session*."""
        self._session = session
        self._posted: deque[PostedSubmit] = deque()
        #: The connection that the numbers belong to: one that a signal handler gets is another.
        self._broker: Broker | None = None
        self._forks = 0
        begin_anew_in_children(self)

    def begin_anew(self) -> None:
        """Leave to the parent what it has sent; see `Inherited`."""
        self._forks += 1
        self._posted = deque()

    def post(self, origin: str, chunks: Sequence[NewChunk], strict: bool) -> Answer:
        """Send a submit as `Session.submit` does, and wait for nothing; return a function that waits."""
        submit = c.Submit(origin, list(chunks), strict, self._session.under())
        posted = PostedSubmit(submit, forks=self._forks)
        self._posted.append(posted)
        self._ask(posted, partial(self._send, posted=posted))
        return partial(self._notes, posted)

    def _notes(self, posted: PostedSubmit) -> list[Note]:
        """Wait for the answer to *posted*, and return its notes.

        In a forked child the jobs are those of its parent: all are to be numbered anew.

        Raises:
            ServiceError: the submit was refused, or it is not known whether it arrived.
        """
        if posted.forks < self._forks:
            return [Note(place, anew=True) for place in range(len(posted.command.chunks))]
        while posted.notes is None:
            if posted.error is not None:
                raise posted.error
            self._ask(posted, self._go_on)
        return posted.notes

    def _ask(self, posted: PostedSubmit, question: Callable[[Broker], None]) -> None:
        try:
            self._session.ask(question)
        except ServiceError:
            # There is no connection to be had, and its jobs are told so.
            if posted in self._posted:
                self._posted.remove(posted)
            raise

    def _send(self, broker: Broker, posted: PostedSubmit) -> None:
        """Send *posted* unless an earlier one is lost; what has come is read, so that the manager goes on."""
        while self._receive(broker, 0.0):
            pass
        earlier = self._posted[-2] if len(self._posted) > 1 else None
        if earlier is None or earlier.number:
            posted.number = broker.send([posted.command])

    def _go_on(self, broker: Broker) -> None:
        """Wait for an answer; if the requests are lost, send them again."""
        if self._receive(broker, ANSWER_SECONDS):
            return
        first = self._posted[0]
        # This makes a connection, if there is none, and tries for a while.
        self._note(first, partial(_submitted, broker, first.command))
        for posted in self._posted:
            posted.number = broker.send([posted.command])
            if not posted.number:
                return

    def _receive(self, broker: Broker, seconds: float) -> bool:
        """Wait up to *seconds* for one answer; return whether one has come. If not, all may be lost."""
        if broker is not self._broker:
            self._lose()
            self._broker = broker
        sent = {each.number: each for each in self._posted if each.number}
        if not sent:
            return False
        try:
            found = broker.receive(sent, seconds)
        except ServiceError:
            self._lose()
            return False
        if found is None:
            return False
        number, replies = found
        self._note(sent[number], lambda: expect(replies[0], Accepted).notes)
        return True

    def _lose(self) -> None:
        for posted in self._posted:
            posted.number = 0

    def _note(self, posted: PostedSubmit, answer: Answer) -> None:
        try:
            posted.notes = answer()
        except ServiceError as error:
            posted.error = error
        self._posted.remove(posted)


def _submitted(broker: Broker, command: c.Submit) -> list[Note]:
    return broker.submit(command.origin, command.chunks, strict=command.strict, under=command.under)
