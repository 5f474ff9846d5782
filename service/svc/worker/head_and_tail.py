"""The beginning and the end of an output of any length, in bounded memory."""

from __future__ import annotations

import codecs

#: The bytes that continue a character in UTF-8, which a cut may have left at the beginning of a text.
_CONTINUATIONS = bytes(range(0x80, 0xC0))


class HeadAndTail:
    """Keeps the first and the last half of *most* bytes.

    Attributes:
        count: the bytes that were added.
    """

    __slots__ = ("_half", "_head", "_tail", "count")

    def __init__(self, most: int) -> None:
        """Keep at most *most* bytes."""
        self._half = most // 2
        self._head = self._tail = b""
        self.count = 0

    def add(self, chunk: bytes) -> None:
        """Take the next bytes of the output."""
        self.count += len(chunk)
        room = self._half - len(self._head)
        if room > 0:
            self._head, chunk = self._head + chunk[:room], chunk[room:]
        if chunk:
            # A slice from minus zero would keep everything.
            self._tail = (self._tail + chunk)[-self._half :] if self._half else b""

    @property
    def left_out(self) -> int:
        """The number of bytes between the head and the tail that are not kept."""
        return self.count - len(self._head) - len(self._tail)

    def value(self) -> str | bytes:
        """Return the kept output: text if it is UTF-8, else bytes; a line says how much was left out."""
        try:
            return self._text()
        except UnicodeDecodeError:
            return self._head + self._gap().encode() + self._tail

    def text(self) -> str:
        """Return the kept output as text, with escapes for bytes that are not UTF-8."""
        try:
            return self._text()
        except UnicodeDecodeError:
            head, tail = (part.decode("utf-8", "backslashreplace") for part in (self._head, self._tail))
            return head + self._gap() + tail

    def _text(self) -> str:
        if not self.left_out:
            return (self._head + self._tail).decode()
        # The cuts may be within a character; what is left of it is left out as well.
        head = codecs.getincrementaldecoder("utf-8")().decode(self._head)
        lead = self._tail[:3]
        return head + self._gap() + self._tail[len(lead) - len(lead.lstrip(_CONTINUATIONS)) :].decode()

    def _gap(self) -> str:
        return f"\n… {self.left_out} bytes left out …\n" if self.left_out else ""
