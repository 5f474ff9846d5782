"""Metrics as text, made at most once in a second and a slice at a time, for all who ask.

To make it may take tens of milliseconds, for which nobody else should wait; and who asks may be anybody.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from service.broker.waiting import Waiting
from service.domain import replies as r
from service.domain.members import Member

#: Seconds for which a text is given again. Prometheus asks every 15 s.
SHARED_SECONDS = 1.0
#: Seconds of one turn after which the text is gone on with in the next one.
SLICE_SECONDS = 0.005
#: Requests of one connection that wait at the same time; each is answered with the whole text.
WAITING_MAX = 8

Collect = Callable[[r.Totals], Iterable[str]]
Conclude = Callable[[Waiting, r.Reply], None]

_TOO_MANY = r.Refused("bad_request", f"{WAITING_MAX} requests for metrics wait on this connection already")


class Expositions:
    """Makes the text of the metrics when somebody asks for it. Used by the host's thread alone."""

    def __init__(
        self,
        collect: Collect,
        totals: Callable[[], r.Totals],
        conclude: Conclude,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make the text of the parts that *collect* yields for the *totals* of that moment.

        *conclude* gets each request with its answer; *clock* gives seconds that never go back.
        """
        self._collect = collect
        self._totals = totals
        self._conclude = conclude
        self._clock = clock
        self._waiting: list[Waiting] = []
        self._parts: Iterator[str] | None = None
        self._begun_at = 0.0
        self._text: list[str] = []
        self._made: r.Text | None = None

    def __bool__(self) -> bool:
        """Return whether somebody waits, so that `step` has something to do."""
        return bool(self._waiting)

    def made(self) -> r.Text | None:
        """Return the text of the last second, if there is one."""
        fresh = self._made is not None and self._clock() < self._begun_at + SHARED_SECONDS
        return self._made if fresh else None

    def ask(self, waiting: Waiting) -> None:
        """Answer a request as soon as the next text is complete."""
        mine = sum(each.member is waiting.member for each in self._waiting)
        if mine >= WAITING_MAX:
            self._conclude(waiting, _TOO_MANY)
        else:
            self._waiting.append(waiting)

    def forget(self, member: Member) -> None:
        """Forget the requests of a connection that has ended."""
        self._waiting = [each for each in self._waiting if each.member is not member]
        if not self._waiting:
            self._parts, self._text = None, []

    def step(self) -> None:
        """Go on with the text if somebody waits for it, and answer when it is complete."""
        if not self._waiting:
            return
        try:
            complete = self._advance()
        except Exception as error:  # noqa: BLE001  # who asked is told, and nobody else suffers
            self._finish(r.Refused("broker", f"the metrics cannot be told: {error!r}"))
            return
        if complete:
            self._made = r.Text("".join(self._text))
            self._finish(self._made)

    def _advance(self) -> bool:
        """Do one slice; return whether the text is complete."""
        began = self._clock()
        if self._parts is None:
            # The totals are a slice by themselves: they take longest.
            self._begun_at, self._made = began, None
            self._parts = iter(self._collect(self._totals()))
            return False
        for part in self._parts:
            self._text.append(part)
            if self._clock() >= began + SLICE_SECONDS:
                return False
        return True

    def _finish(self, reply: r.Reply) -> None:
        waiting, self._waiting = self._waiting, []
        self._parts, self._text = None, []
        for each in waiting:
            self._conclude(each, reply)
