"""The C library's heap, told to keep what one large message took for the next one.

By itself glibc maps a large buffer anew each time and gives it back at once. The kernel then zeroes each page
of it at the first touch, which was two fifths of the manager's time for jobs of 16 MiB.
"""

from __future__ import annotations

import ctypes

#: Bytes of a message from which it counts as large.
LARGE_BYTES = 1024 * 1024
#: Seconds without a large message after which what is free is given back to the system.
IDLE_SECONDS = 2.0
# The names and values of glibc's <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: Buffers up to this size come from the heap: no message is larger. So much may be free at its end.
_MAPPED_BYTES = 64 * 1024 * 1024
_FREE_BYTES = 128 * 1024 * 1024


class Heap:
    """What is kept while large messages pass, and given back afterwards. Without glibc it does nothing."""

    def __init__(self) -> None:
        """Have freed memory kept from now on, up to 128 MiB."""
        self._library = ctypes.CDLL(None)
        self._known = all(hasattr(self._library, name) for name in ("mallopt", "malloc_trim"))
        self._kept = False
        self._used_at = 0.0
        if self._known:
            self._library.mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
            self._library.mallopt(_M_TRIM_THRESHOLD, _FREE_BYTES)

    @property
    def keeps(self) -> bool:
        """Whether memory of large messages may be kept that nobody uses."""
        return self._kept

    def passes(self, now: float) -> None:
        """Note that a large message passes at *now*, monotonic seconds."""
        self._kept = self._known
        self._used_at = now

    def trim(self) -> None:
        """Give back all that is free now."""
        if self._known:
            self._library.malloc_trim(0)

    def tidy(self, now: float) -> None:
        """Give back what is free, once no large message has passed for two seconds. Call it now and then."""
        if self._kept and now >= self._used_at + IDLE_SECONDS:
            self.trim()
            self._kept = False
