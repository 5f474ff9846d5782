"""Shows how far the jobs are that a command waits for: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Self

from svc.cli.bottom_line import BOTTOM
from svc.cli.output import tell
from svc.cli.tally import ProgressPace, Tally
from svc.errors import ServiceError
from svc.printable import printable_line

if TYPE_CHECKING:
    from svc.domain.job_view import Progress

#: Seconds between two changes of the bar, and until it is shown for the first time.
BAR_SECONDS, BAR_DELAY = 0.2, 0.5
#: Seconds between two plain lines at least; for a long wait it is a tenth of that wait, up to a minute.
PLAIN_SECONDS, PLAIN_SECONDS_MAX = 5.0, 60.0
#: Seconds between two questions for the progress of a single job.
ASK_SECONDS = 1.0
#: Seconds for which the end of a wait waits for an answer to such a question.
_END_SECONDS = 1.0


class ViewForm(Enum):
    """The forms in which a wait is shown."""

    BAR = "bar"
    PLAIN = "plain"
    NONE = "none"

    @classmethod
    def fitting(cls, *, quiet: bool, as_json: bool) -> ViewForm:
        """Return the form that fits stderr and the options of a command."""
        if quiet or as_json:
            return cls.NONE
        fancy = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        return cls.BAR if fancy else cls.PLAIN


class WaitView:
    """Shows a tally in a form, from a thread, until the `with` statement ends.

    Args:
        tally: the counts; the owner adds to them.
        form: how they are shown.
        ask: of a single job, asks for its last report of progress.
    """

    def __init__(self, tally: Tally, form: ViewForm, ask: Callable[[], Progress | None] | None) -> None:
        self._tally = tally
        self._form = form
        self._ask = ask
        self._asked_at = float("-inf")
        self._progress: Progress | None = None
        self._pace = ProgressPace()
        self._told = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="wait-view", daemon=True)

    def __enter__(self) -> Self:
        """Begin to show it."""
        if self._form != ViewForm.NONE:
            self._thread.start()
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        """Remove the bar, or tell the last line if there were some and it was not told yet."""
        self._end()
        if self._told and self._tally.total > 1:
            self.tell_last()

    def tell_last(self) -> None:
        """Tell what has become of the jobs, and show nothing more."""
        self._end()
        self._told = False
        if self._form != ViewForm.NONE:
            tell(f"svc: {self._tally.last_line(time.monotonic())}")

    def _end(self) -> None:
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(_END_SECONDS)
        if self._form == ViewForm.BAR:
            BOTTOM.show("")

    def _run(self) -> None:
        if self._form == ViewForm.BAR:
            pause = BAR_DELAY
            while not self._ended.wait(pause):
                pause = BAR_SECONDS
                self._show_bar()
            return
        while not self._ended.wait(self._plain_pause()):
            self._told = True
            tell(f"svc: {self._line(Tally.line)}")

    def _show_bar(self) -> None:
        text = self._line(Tally.bar)
        if not self._ended.is_set():
            BOTTOM.show(printable_line(text))

    def _plain_pause(self) -> float:
        waited = self._tally.seconds(time.monotonic())
        return min(PLAIN_SECONDS_MAX, max(PLAIN_SECONDS, waited / 10))

    def _line(self, of_tally: Callable[[Tally, float], str]) -> str:
        """Return the progress of the single job if it tells one, else the counts."""
        now = time.monotonic()
        if self._ask is not None and now - self._asked_at >= ASK_SECONDS:
            self._asked_at = now
            try:
                self._progress = self._ask()
            except ServiceError:  # the key may not, the manager is away or too old
                self._ask, self._progress = None, None
        if self._progress is not None:
            return self._pace.line(self._progress, now)
        return of_tally(self._tally, now)
