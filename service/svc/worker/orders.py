"""The messages between a supervisor and its consumers over a pipe, and the thread that obeys orders."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection

#: The supervisor's order to end attempts, which is its prefix: token, number and grace of each follow.
END = b"end:"
#: The supervisor's orders: leave; report finished outcomes; make the connection again.
STOP, FLUSH, REJOIN = b"stop", b"flush", b"rejoin"
#: A consumer's messages: its tasks are loaded; they cannot be loaded; it has begun a job to be watched; it
#: is worn, and should be replaced; it has left the manager, and calls the hooks of its end.
READY, BROKEN, NUDGE, WORN, ENDING = b"r", b"b", b"n", b"w", b"e"
#: Its answer to the order to end attempts: those of which none runs beside others, or will.
OVER = b"o"
#: Attempts in one such message, so that the kernel takes it whole.
OVER_MAX = 256
#: Its reports of jobs that run: progress; a piece of a checkpoint; the last piece, with which it is whole.
PROGRESS, PIECE, KEEP = b"p", b"d", b"k"
#: The supervisor's answer to a checkpoint: it has it, or what the manager said.
KEPT = b"kept"
#: Bytes of a piece: the kernel takes a message of that size whole or not at all.
PIECE_BYTES = 8 * 1024
#: Bytes that no message to the supervisor is longer than: READY has the names of all tasks.
MESSAGE_MAX = 16 * 1024 * 1024
#: Seconds between two attempts to wake a request that waits at the manager.
_INTERRUPT_SECONDS = 0.2


def has_room(pipe: Connection) -> bool:
    """Return whether a message of some KiB can be written to *pipe* without a wait for its reader."""
    poll = select.poll()
    poll.register(pipe.fileno(), select.POLLOUT)
    return bool(poll.poll(0))


class Orders:
    """Obeys the supervisor's orders in a thread of its own; if the supervisor is gone, ends this process.

    Args:
        pipe: the line to the supervisor.
        report: reports finished outcomes; with True, it also makes the connection again if that is broken.
        interrupt: ends the wait of the main thread at the manager, if it waits.
        kept: takes the supervisor's answer about a checkpoint.
        end: takes the order to end attempts.

    Attributes:
        stopping: set once the order to stop has come.
        left: to be set when the consumer has left the manager.
    """

    def __init__(
        self,
        pipe: Connection,
        report: Callable[[bool], None],
        interrupt: Callable[[], None],
        kept: Callable[[bytes], None],
        end: Callable[[bytes], None],
    ) -> None:
        self.stopping = threading.Event()
        self.left = threading.Event()
        self._pipe = pipe
        self._report = report
        self._interrupt = interrupt
        self._kept = kept
        self._end = end

    def start(self) -> None:
        """Begin to listen."""
        threading.Thread(target=self._listen, name="orders", daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                order = self._pipe.recv_bytes()
            except (EOFError, OSError):
                if not self.left.is_set():
                    os.kill(os.getpid(), signal.SIGKILL)
                return
            if order in (FLUSH, REJOIN):
                self._report(order == REJOIN)
            elif order.startswith(KEPT):
                self._kept(order[len(KEPT) :])
            elif order.startswith(END):
                self._end(order[len(END) :])
            elif order == STOP and not self.stopping.is_set():
                self.stopping.set()
                threading.Thread(target=self._keep_interrupting, name="interrupt", daemon=True).start()

    def _keep_interrupting(self) -> None:
        """Wake the main thread from its wait at the manager, repeatedly, because it may be about to wait."""
        while not self.left.is_set():
            self._interrupt()
            self.left.wait(_INTERRUPT_SECONDS)
