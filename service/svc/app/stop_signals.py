"""The signals of a manager that goes from one stage to the next: standing by, taking over, serving, leaving.

A signal between two stages is kept for the next one. By its default, SIGTERM would end the process there, and
the next manager would wait until the key of this one has vanished.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopSignals:
    """Passes SIGTERM and SIGINT to the function that stops the present stage, and SIGHUP to another one."""

    def __init__(self) -> None:
        """Leave signals as they are until the first stage."""
        self._stop: Callable[[], None] | None = None
        self._renew: Callable[[], None] | None = None
        self._stop_asked = self._renewal_asked = False
        self._before: dict[int, object] = {}

    @contextmanager
    def passed_to(self, stop: Callable[[], None], renew: Callable[[], None]) -> Iterator[None]:
        """Have signals call *stop* and *renew* for a stage, also those since the stage before."""
        self._catch()
        self._stop, self._renew = stop, renew
        if self._renewal_asked:
            self._renewal_asked = False
            renew()
        if self._stop_asked:
            stop()
        try:
            yield
        finally:
            self._stop = self._renew = None

    @property
    def stop_asked(self) -> bool:
        """Whether a signal has asked this process to end."""
        return self._stop_asked

    def close(self) -> None:
        """Leave signals to whoever had them before."""
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)  # type: ignore[arg-type]  # it was its handler

    def _catch(self) -> None:
        if not self._before and threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._take) for number in _NUMBERS}

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            act, self._renewal_asked = self._renew, self._renew is None
        else:
            act, self._stop_asked = self._stop, True
        if act is not None:
            act()
