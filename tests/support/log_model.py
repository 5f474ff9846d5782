"""A model of the replicated log, on virtual time: its faults are those of a cluster, by a seed.

Requests and answers are lost, late or repeated. The stream elects a new leader, and a client may still be
with the old one, which knows an old end and cannot write. All that is written stays, as with a majority that
syncs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from svc.server.journal.jetstream.log import Fenced, LogFacts, LogMessage, PrefixPurged, Tail, Unanswered

_MESSAGE_MAX = (1 << 20) - 512
_LINK_SECONDS = 0.001
#: An election, and the time in which a deposed leader notices it, by the constants of nats-server.
_ELECTION_SECONDS = (4.0, 9.0)
_STALE_SECONDS = 10.0
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class LogFaults:
    """How likely each fault is, for each request; the usual log has none.

    Attributes:
        lost: a request or an answer is lost.
        late: it takes up to 12 s.
        repeated: it arrives twice, the second time up to 12 s later.
        election: the leader of the stream is gone as it arrives.
        stale: after an election a client stays with the old leader for a while.
    """

    lost: float = 0.0
    late: float = 0.0
    repeated: float = 0.0
    election: float = 0.0
    stale: float = 0.0


@dataclass
class ModelStream:
    """The servers of a stream.

    Attributes:
        random: decides all faults.
        faults: how likely they are; a test may end them.
        fenced: whether an append is refused that expects another end; off only to show that a test can fail.
        writes: the client and the sequence number of each write, in order.
    """

    random: Random = field(default_factory=lambda: Random(1))
    faults: LogFaults = field(default_factory=LogFaults)
    fenced: bool = True
    first: int = 1
    last: int = 0
    messages: dict[int, bytes] = field(default_factory=dict)
    writes: list[tuple[str, int]] = field(default_factory=list)
    elections: int = 0
    _numbers: dict[str, int] = field(default_factory=dict)
    _no_leader_until: float = 0.0
    _grown: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        # A lone server looks at the expected end first, a cluster at the identifier of the message.
        self._fence_first = self.random.random() < 0.5

    def append(self, client: str, message: bytes, expected: int, message_id: str) -> int:
        """Write a message, as the leader does."""
        known = self._numbers.get(message_id)
        if known is not None and not self._fence_first:
            return known
        if self.fenced and expected != self.last:
            raise Fenced(self.last)
        if known is not None:
            return known
        self.last += 1
        self.messages[self.last] = message
        self._numbers[message_id] = self.last
        self.writes.append((client, self.last))
        self._grown.set()
        self._grown = asyncio.Event()
        return self.last

    def tail(self) -> Tail:
        return Tail(self.last, self.messages.get(self.last))

    def purge(self, below: int) -> None:
        for number in range(self.first, min(below, self.last + 1)):
            del self.messages[number]
        self.first = max(self.first, min(below, self.last + 1))

    async def wait_message(self, number: int) -> None:
        """Wait until message *number* was written, or purged."""
        while self.last < number and self.first <= number:
            await self._grown.wait()

    def has_leader(self, now: float) -> bool:
        """Return whether a request that arrives now finds a leader."""
        if self.random.random() < self.faults.election and now >= self._no_leader_until:
            self._no_leader_until = now + self.random.uniform(*_ELECTION_SECONDS)
            self.elections += 1
        return now >= self._no_leader_until


class LogModel:
    """A client of a modelled stream; see `Log`.

    Attributes:
        pace: how fast its clock runs: at 2 it gives up in half the time.
    """

    def __init__(
        self, stream: ModelStream, name: str, *, answer_seconds: float = 2.0, pace: float = 1.0
    ) -> None:
        self._stream = stream
        self._name = name
        self._patience = answer_seconds / pace
        self._elections = stream.elections
        self._old_end = Tail(0, None)
        self._stale_until = 0.0

    async def append(self, message: bytes, *, expected: int, message_id: str) -> int:
        def act() -> int:
            if self._is_stale():
                if expected != self._old_end.last:
                    raise Fenced(self._old_end.last)
                raise Unanswered("the old leader has no majority")
            return self._stream.append(self._name, message, expected, message_id)

        return await self._ask(act)

    async def tail(self) -> Tail:
        return await self._ask(lambda: self._old_end if self._is_stale() else self._stream.tail())

    async def follow(self, start: int) -> AsyncGenerator[LogMessage]:
        number = max(1, start)
        while True:
            await self._stream.wait_message(number)
            await asyncio.sleep(self._delay())
            if number < self._stream.first:
                raise PrefixPurged(self._stream.first)
            arrived = [self._stream.messages[each] for each in range(number, self._stream.last + 1)]
            for count, message in enumerate(arrived, 1):
                yield LogMessage(number, message, more=count < len(arrived))
                number += 1

    async def purge(self, below: int) -> None:
        await self._ask(lambda: self._stream.purge(below))

    async def facts(self) -> LogFacts:
        def act() -> LogFacts:
            stream = self._stream
            size = sum(map(len, stream.messages.values()))
            return LogFacts(
                stream.first,
                stream.last,
                len(stream.messages),
                size,
                "model",
                3,
                3,
                0,
                _MESSAGE_MAX,
                "2.15.1",
            )

        return await self._ask(act)

    async def _ask(self, act: Callable[[], Answer]) -> Answer:
        """Return the outcome of *act* at the servers, if it comes in time."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        chance, faults = self._stream.random.random, self._stream.faults
        if chance() >= faults.lost:
            loop.call_later(self._delay(), self._arrive, act, answer)
        if chance() < faults.repeated:
            loop.call_later(self._stream.random.uniform(0, 12), self._arrive, act, answer)
        try:
            async with asyncio.timeout(self._patience):
                return await answer
        except TimeoutError:
            raise Unanswered("no answer in time") from None

    def _arrive(self, act: Callable[[], Answer], answer: asyncio.Future[Answer]) -> None:
        """Carry the request out, and send the outcome; without a leader some requests are told so."""
        loop, chance = asyncio.get_running_loop(), self._stream.random.random
        leads = self._stream.has_leader(loop.time())
        outcome = _outcome(act) if leads else Unanswered("no leader")
        if chance() >= (self._stream.faults.lost if leads else 0.5):
            loop.call_later(self._delay(), _deliver, answer, outcome)

    def _delay(self) -> float:
        random, faults = self._stream.random, self._stream.faults
        if random.random() < faults.late:
            return random.uniform(0, 12)
        return random.expovariate(1 / _LINK_SECONDS)

    def _is_stale(self) -> bool:
        """Return whether this client is still with a leader that was deposed."""
        stream, now = self._stream, asyncio.get_running_loop().time()
        if stream.elections != self._elections:
            self._elections = stream.elections
            if stream.random.random() < stream.faults.stale:
                self._stale_until = now + stream.random.uniform(0, _STALE_SECONDS)
        if now >= self._stale_until:
            self._old_end = stream.tail()
            return False
        return True


def _outcome(act: Callable[[], Answer]) -> Answer | Exception:
    try:
        return act()
    except (Fenced, Unanswered) as error:
        return error


def _deliver(answer: asyncio.Future[Answer], outcome: Answer | Exception) -> None:
    if answer.done():
        return
    if isinstance(outcome, Exception):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)
