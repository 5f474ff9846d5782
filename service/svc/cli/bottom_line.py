"""One line at the bottom of the terminal that stderr is; all other output goes above it."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

#: Moves to the beginning of a line and erases the line.
_ERASE = "\r\x1b[K"


class BottomLine:
    """The line, which threads may show and change while others print."""

    def __init__(self) -> None:
        """Show nothing."""
        self._lock = threading.RLock()
        self._text = ""

    def show(self, text: str) -> None:
        """Show *text*, as much of it as fits, in the place of the line so far; "" removes it."""
        with self._lock:
            if text or self._text:
                self._text = text
                self._draw()

    @contextmanager
    def above(self, stream: TextIO) -> Iterator[None]:
        """Make room for lines that are printed to *stream* meanwhile, if it is a terminal, too."""
        with self._lock:
            hides = bool(self._text) and stream.isatty()
            if hides:
                sys.stderr.write(_ERASE)
                sys.stderr.flush()
            yield
            if hides:
                stream.flush()
                self._draw()

    def _draw(self) -> None:
        room = shutil.get_terminal_size().columns - 1  # a full line would begin another one
        sys.stderr.write(_ERASE + self._text[: max(0, room)])
        sys.stderr.flush()


#: The line of this process.
BOTTOM = BottomLine()
