"""What a supervisor and its consumers say to each other over a pipe, at the beginning of a message."""

from __future__ import annotations

#: The supervisor's orders: leave; report what is done; make the connection again.
STOP, FLUSH, REJOIN = b"stop", b"flush", b"rejoin"
#: A consumer's news: its tasks are loaded; they cannot be; it has begun something that needs watching.
READY, BROKEN, NUDGE = b"r", b"b", b"n"
