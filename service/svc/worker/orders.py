"""The messages between a supervisor and its consumers over a pipe; each begins with one of these."""

from __future__ import annotations

#: The supervisor's orders: leave; report finished outcomes; make the connection again.
STOP, FLUSH, REJOIN = b"stop", b"flush", b"rejoin"
#: A consumer's messages: its tasks are loaded; they cannot be loaded; it has begun a job to be watched.
READY, BROKEN, NUDGE = b"r", b"b", b"n"
