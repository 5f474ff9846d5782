"""Writes frames to the replicated log, one after the other, as long as nobody else has written there.

An append without an answer may be written, or not, or be written later. The end of the log tells which. It
ends with our message: written. It ends where it did before: the same message is sent again, and only one of
both can be written, since each names the end that it follows. It ends with a message of someone else: another
manager leads, and we are deposed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

from svc.errors import Deposed, JournalError, JournalMoved
from svc.server.journal.jetstream.frames import (
    Frame,
    FrameError,
    FrameOrigin,
    moved_to,
    parse_part,
    split_frame,
)
from svc.server.journal.jetstream.log import Fenced, Log, LogLost, Unanswered

#: The pauses between tries, in seconds: each is twice the one before, up to the longest. After an election of
#: the stream, which takes seconds, it is a part of the pause of the service, with the last wait in vain.
_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.2
#: A leader of the stream that was deposed and does not know it yet tells an old end; nats-server notices a
#: lost majority after 10 s. A log that ends too early for longer than this has lost its end.
LAG_SECONDS: Final = 30.0


class FramePosition(NamedTuple):
    """The place of a frame in the log: the sequence numbers of its first and last message."""

    first: int
    last: int


class FrameWriter:
    """The only writer of a term; used by one asyncio loop.

    A frame whose `append` is cancelled while it is sent is finished by the next `append`, before its own: an
    event that follows from an earlier one is never in the log without it.

    Attributes:
        end: the sequence number of the last message that is known to be written.
        number: the number of the next frame.
        unanswered: how many requests had no answer so far.
        trouble: why the last one had none; empty once a message is written.
    """

    def __init__(
        self,
        log: Log,
        *,
        term: int,
        writer: int,
        end: int,
        message_max: int,
        stored: Callable[[float], object] = lambda started: None,
    ) -> None:
        """Begin to write after message *end*, with the first frame of *term*.

        Args:
            log: the log.
            term: the incarnation of this manager.
            writer: a random number of 64 bits that nobody has used.
            end: the last message of the log, as it was when its frames were read.
            message_max: the most bytes of a message.
            stored: called for each message that is written, with the loop's time at which it was first sent.
                Nobody else had begun a term then.
        """
        self.end = end
        self.number = 0
        self.unanswered = 0
        self.trouble = ""
        self._log = log
        self._term = term
        self._writer = writer
        self._message_max = message_max
        self._stored = stored
        self._unsent: list[bytes] = []
        #: When the first of them was first sent. A later try may find that this one has written it.
        self._sent_at: float | None = None
        self._turn = asyncio.Lock()
        self._failure: JournalError | None = None
        self._lagging_since: float | None = None

    async def append(self, frame: Frame) -> FramePosition:
        """Write *frame* after all earlier ones, and return once it is whole in the log.

        It waits as long as the log gives no answer; cancel it to wait no longer.

        Raises:
            Deposed: another manager writes the log; this frame may be in it or not. So does each later call.
            JournalMoved: the journal was moved elsewhere; else as above.
            JournalError: the log has lost its end, or refuses messages. So does each later call.
            ValueError: the frame is too large.
        """
        async with self._turn:
            await self._send()
            origin = FrameOrigin(self._term, self._writer, self.number)
            first = self.end + 1
            self._unsent = split_frame(frame, origin, self.end, self._message_max)
            self.number += 1
            await self._send()
            return FramePosition(first, self.end)

    async def _send(self) -> None:
        """Write the messages that are not written yet."""
        if self._failure is not None:
            raise self._failure
        try:
            while self._unsent:
                if self._sent_at is None:
                    self._sent_at = asyncio.get_running_loop().time()
                await self._put(self._unsent[0])
                self.end += 1
                del self._unsent[0]
                sent_at, self._sent_at, self.trouble = self._sent_at, None, ""
                self._stored(sent_at)
        except JournalError as error:
            self._failure = error
            raise

    async def _put(self, message: bytes) -> None:
        """Write one message, however many tries that takes."""
        pause, self._lagging_since = _FIRST_PAUSE, None
        while not await self._try(message):
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _try(self, message: bytes) -> bool:
        """Try to write a message, and return whether it is written for certain."""
        try:
            await self._append(message)
        except Unanswered as error:
            self.unanswered += 1
            self.trouble = str(error)
            self._lagging_since = None
        except Fenced as refused:
            self._check_lag(refused.last)
        else:
            return True
        return await self._is_written(message)

    def _check_lag(self, last: int | None) -> None:
        """Raise if the log has said for too long that it ends before messages that it has acknowledged."""
        if last is None or last >= self.end:
            self._lagging_since = None
            return
        self.trouble = f"the log ends with message {last}, and message {self.end} was acknowledged"
        now = asyncio.get_running_loop().time()
        if self._lagging_since is None:
            self._lagging_since = now
        elif now - self._lagging_since > LAG_SECONDS:
            raise LogLost(
                f"the log ends with message {last}, and message {self.end} was acknowledged: its servers "
                "have lost messages; restore a backup"
            )

    async def _append(self, message: bytes) -> None:
        place = self.end + 1
        message_id = f"{self._term}-{self._writer:x}-{place}"
        number = await self._log.append(message, expected=self.end, message_id=message_id)
        if number != place:
            raise JournalError(f"the log has put message {place} at {number}; this is a fault of the log")

    async def _is_written(self, message: bytes) -> bool:
        """Return whether the log ends with *message*; False if it ends before it, or says nothing.

        Raises:
            Deposed: it ends otherwise.
            JournalMoved: it ends with the frame that says so.
        """
        try:
            tail = await self._log.tail()
        except Unanswered:
            self.unanswered += 1
            return False
        if tail.last <= self.end:
            return False
        if tail.last == self.end + 1 and tail.message == message:
            return True
        if place := moved_to(tail.message or b""):
            raise JournalMoved(
                f"the journal was moved to {place}, and this manager has written nothing since; start it "
                "there"
            )
        raise Deposed(
            f"another manager leads the journal{_term_of(tail.message)}: message {tail.last} of the log is "
            "not ours; clients and workers find the new leader by themselves"
        )


def _term_of(message: bytes | None) -> str:
    try:
        return "" if message is None else f" in term {parse_part(message).origin.term}"
    except FrameError:
        return ""
