"""Settings of the C library's heap: keep the memory of one large message for the next one.

By default glibc maps a large buffer anew each time and returns it at once. The kernel then zeroes each page
of it at the first access, which took two fifths of the manager's time for jobs of 16 MiB.
"""

from __future__ import annotations

import ctypes

#: A message of this many bytes or more is large.
LARGE_BYTES = 1024 * 1024
#: Seconds without a large message after which free memory is returned to the system.
IDLE_SECONDS = 2.0
# The names and values of glibc's <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: Buffers up to this size come from the heap: no message is larger.
_MAPPED_BYTES = 64 * 1024 * 1024
#: So many bytes may be free at the end of the heap.
_FREE_BYTES = 128 * 1024 * 1024


class Heap:
    """Keeps freed memory while large messages pass, and returns it afterwards; does nothing without glibc."""

    def __init__(self) -> None:
        """Keep freed memory from now on, up to 128 MiB."""
        self._library = ctypes.CDLL(None)
        self._known = all(hasattr(self._library, name) for name in ("mallopt", "malloc_trim"))
        #: Whether unused memory of large messages may still be kept.
        self.keeps = False
        self._used_at = 0.0
        if self._known:
            self._library.mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
            self._library.mallopt(_M_TRIM_THRESHOLD, _FREE_BYTES)

    def passes(self, now: float) -> None:
        """Note that a large message passes at *now*, monotonic seconds."""
        self.keeps = self._known
        self._used_at = now

    def trim(self) -> None:
        """Return all free memory to the system."""
        if self._known:
            self._library.malloc_trim(0)

    def tidy(self, now: float) -> None:
        """Return free memory once no large message has passed for two seconds. Call it regularly."""
        if self.keeps and now >= self._used_at + IDLE_SECONDS:
            self.trim()
            self.keeps = False
