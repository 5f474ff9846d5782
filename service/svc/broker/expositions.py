"""Metrics as text, made at most once a second and one slice at a time, for all requests together.

To make the text may take tens of milliseconds. Other requests should not wait so long, and clients may ask
for the text as often as they like.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from svc.broker.parked import Waiting
from svc.domain import replies as r
from svc.domain.members import Member

#: Seconds for which the same text is returned again. Prometheus asks every 15 s.
SHARED_SECONDS = 1.0
#: Seconds of work on the text in one turn; the next turn continues it.
SLICE_SECONDS = 0.005
#: How often one connection gets the same text, which may have megabytes.
COPIES_MAX = 4

Collect = Callable[[r.Totals], Iterable[str]]
Conclude = Callable[[Waiting, r.Reply], None]

_TOO_MANY = r.Refused("bad_request", f"ask for metrics at most {COPIES_MAX} times in {SHARED_SECONDS:g} s")


class Expositions:
    """Makes the text of the metrics on request. Used only by the host's thread."""

    def __init__(
        self,
        collect: Collect,
        totals: Callable[[], Iterator[r.Totals | None]],
        conclude: Conclude,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make the text of the parts that *collect* yields for the *totals*, which come after some None.

        *conclude* gets each request with its answer. *clock* returns seconds that never go back.
        """
        self._collect = collect
        self._totals = totals
        self._conclude = conclude
        self._clock = clock
        #: The requests that get the next text, once it is complete; for those `answer` returned None.
        self.waiting: list[Waiting] = []
        #: How often each connection has asked for the current text.
        self._asked: Counter[Member] = Counter()
        self._parts: Iterator[str] | None = None
        self._begun_at = 0.0
        self._text: list[str] = []
        self._made: r.Text | None = None

    def answer(self, member: Member) -> r.Reply | None:
        """Return the text of the last second, or None if there is none; refuse if *member* asks too often."""
        made = self._made
        if made is not None and self._clock() >= self._begun_at + SHARED_SECONDS:
            made = self._made = None
            self._asked.clear()
        self._asked[member] += 1
        return made if self._asked[member] <= COPIES_MAX else _TOO_MANY

    def forget(self, member: Member) -> None:
        """Forget the requests of a connection that has ended."""
        del self._asked[member]
        self.waiting = [each for each in self.waiting if each.request.member is not member]
        if not self.waiting:
            self._parts, self._text = None, []

    def step(self) -> None:
        """Continue the text for the requests that wait for it, and answer them when it is complete."""
        try:
            reply = self._advance()
        except Exception as error:  # noqa: BLE001  # it must not affect other requests
            reply = r.Refused("broker", f"the metrics cannot be told: {error!r}")
        if reply is not None:
            self._finish(reply)

    def _advance(self) -> r.Reply | None:
        """Do one slice; return the text if it is complete."""
        began = self._clock()
        if self._parts is None:
            self._begun_at = began
            self._parts = self._all_parts()
        for part in self._parts:
            self._text.append(part)
            if self._clock() >= began + SLICE_SECONDS:
                return None
        # A name that cannot be encoded must not prevent the rest of the text.
        self._made = r.Text("".join(self._text).encode(errors="replace").decode())
        return self._made

    def _all_parts(self) -> Iterator[str]:
        """Yield the text in parts; the first ones are empty, while the queues are counted."""
        for totals in self._totals():
            if totals is None:
                yield ""
            else:
                yield from self._collect(totals)

    def _finish(self, reply: r.Reply) -> None:
        waiting, self.waiting = self.waiting, []
        self._parts, self._text = None, []
        if self._made is None:
            self._asked.clear()
        for each in waiting:
            self._conclude(each, reply)
