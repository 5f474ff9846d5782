"""The log under the replicated journal: messages under ascending numbers, and a fence for each append.

`nats_log` has it in a stream of JetStream. The tests have a model of it, which loses requests and answers.
Both pass `tests/contract/test_log.py`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from svc.errors import JournalError


class Fenced(Exception):
    """The append was refused, and wrote nothing: the log does not end where its writer believes.

    The end may be the message itself, by an earlier try whose answer was lost.

    Attributes:
        last: the sequence number of the last message, or None if the log did not say.
    """

    def __init__(self, last: int | None) -> None:
        """Carry the end of the log."""
        super().__init__(f"the log ends with message {last}")
        self.last = last


class Unanswered(Exception):
    """The log gave no answer in time, or an answer that says no more: an append may be written, now or later.

    The connection is lost, the request timed out, or the stream has no leader. Try again: an election takes
    4 to 9 s.
    """


class LogLost(JournalError):
    """The log is gone, or has lost messages that it had acknowledged: no repetition helps."""


class PrefixPurged(Exception):
    """The next message to follow was purged; begin anew, with an empty mirror.

    Attributes:
        first: the sequence number of the first message that is left.
    """

    def __init__(self, first: int) -> None:
        """Carry the beginning of the log."""
        super().__init__(f"the log begins with message {first} now")
        self.first = first


@dataclass(frozen=True, slots=True)
class LogMessage:
    """A message of the log, with its sequence number.

    Attributes:
        sequence: its number.
        data: its content.
        more: whether the next one has arrived already, so that both can be applied in one go.
    """

    sequence: int
    data: bytes
    more: bool = field(default=False, compare=False)


class Tail(NamedTuple):
    """The end of the log: the last sequence number (0: none yet), and its message unless that was purged."""

    last: int
    message: bytes | None


class LogFacts(NamedTuple):
    """The state of the log and of those who keep it.

    Attributes:
        first: the sequence number of the first message; `last` + 1 if there is none.
        last: the sequence number of the last message.
        messages: the number of messages.
        bytes: the bytes that they take.
        leader: the name of the server that leads the stream; empty during an election.
        replicas: the servers that keep it, with the leader.
        current: those of them that have all messages, with the leader.
        offline: those of them that the leader does not hear.
        message_max: the most bytes of a message that `append` takes.
        release: the release of the server that this client is connected to.
        warnings: facts at which an operator should look, one sentence each.
        followers: how many clients follow it.
    """

    first: int
    last: int
    messages: int
    bytes: int
    leader: str
    replicas: int
    current: int
    offline: int
    message_max: int
    release: str
    warnings: tuple[str, ...] = ()
    followers: int = 0


class Log(Protocol):
    """Messages under the sequence numbers 1, 2, …; used by one asyncio loop.

    Every method but `follow` raises `Unanswered` if there is no answer; a later call may have one.
    """

    async def append(self, message: bytes, *, expected: int, message_id: str) -> int:
        """Append *message* if the last message is number *expected*, and return its own number.

        When it returns, a majority of the servers has the message on disk. If the same append, with the same
        *message_id*, was written before, it is not written again: the number of the first one is returned, or
        the call is fenced. Which of the two depends on the log.

        Raises:
            Fenced: the last message is another one, maybe this very one.
            Unanswered: it may be written or not, or may be written later.
        """

    async def tail(self) -> Tail:
        """Return the end of the log, as the leader of the stream knows it."""

    def follow(self, start: int) -> AsyncGenerator[LogMessage]:
        """Yield the messages from number *start* on, in order, each once, and wait for more of them.

        It bears lost connections and elections by itself.

        Raises:
            PrefixPurged: message *start*, or one that should come next, was purged.
        """

    async def purge(self, below: int) -> None:
        """Delete all messages with numbers below *below*; may be repeated, and come late."""

    async def facts(self) -> LogFacts:
        """Return the state of the log."""
