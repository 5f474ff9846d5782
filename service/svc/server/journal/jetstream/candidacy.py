"""A manager's candidacy: does the steps of its leadership on a bucket of keys, for as long as it runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import msgspec
import structlog

from svc.server.journal.jetstream.leadership import Holding, Leadership, Look, Position, Prove, Wait, Write
from svc.server.journal.jetstream.log import Unanswered

#: The key that names the leader, and the prefixes of those by which standbys say that they are there: all of
#: them, those among them that have not caught up with the log, and those that have ended since.
LEADER_KEY = "leader"
STANDBY_PREFIX = "standby."
BEHIND_PREFIX = STANDBY_PREFIX + "behind."
ENDED_PREFIX = STANDBY_PREFIX + "ended."
#: Seconds of the shortest wait; the loop's clock may run a little faster than ours.
WAIT_MIN = 0.001


class Changed(Exception):
    """The key has another revision than was expected; nothing was written."""


class BucketRemoved(Unanswered):
    """Somebody has removed the bucket, and with it the key of a leader who may be well; it is made again."""


@dataclass(frozen=True)
class Entry:
    """The value of a key, and its revision."""

    value: bytes
    revision: int


class Standbys(NamedTuple):
    """How many standbys there are.

    Attributes:
        ready: those that have caught up with the log, and take the key at a hand-over.
        behind: the others.
    """

    ready: int = 0
    behind: int = 0


class KeyBucket(Protocol):
    """Keys that vanish one TTL after their last write.

    Every method raises `Unanswered` if no answer comes soon: what it asked for was done or not.
    """

    async def get(self, key: str) -> Entry | None:
        """Return the value of *key* as the bucket's leader has it; None if it is gone."""

    async def put(self, key: str, value: bytes, *, expected: int | None = None) -> int:
        """Write a key; return its revision.

        Args:
            key: the key.
            value: its new value.
            expected: the revision that it must have; 0 if it must be gone, None for any.

        Raises:
            Changed: it has another one.
        """

    async def names(self, prefix: str) -> list[str]:
        """Return the keys that begin with *prefix*, which ends with a dot."""

    async def leave_server(self) -> None:
        """Connect to another server; the present one does not answer."""


class Candidacy:
    """Runs a `Leadership` on a bucket, in an event loop; other threads read its properties."""

    def __init__(
        self,
        bucket: KeyBucket,
        leadership: Leadership,
        on_change: Callable[[Position], None],
        clock: Callable[[], float] = time.monotonic,
        *,
        caught_up: Callable[[], bool] = lambda: True,
    ) -> None:
        """Stand for the lead.

        Args:
            bucket: the keys of this journal's managers.
            leadership: the state to begin with, by the same clock.
            on_change: called in the loop's thread whenever the position changes.
            clock: returns seconds that never go back.
            caught_up: returns whether this manager, as a standby, has caught up with the log.
        """
        self.leadership = leadership
        self._bucket = bucket
        self._on_change = on_change
        self._clock = clock
        self._caught_up = caught_up
        self._name = leadership.holder
        self._ending = False
        #: The revision of this standby's own key, which is less only in another bucket.
        self._proved = 0
        #: Makes a leader append to the log soon, which proves its lead while the bucket does not answer.
        self.append: Callable[[], object] = lambda: None
        #: Why the last request had no answer; empty if it had one.
        self.trouble = ""
        self._woken, self._released = asyncio.Event(), asyncio.Event()
        #: When a request was answered last, or the connection made anew.
        self._answered_at = clock()
        self._log = structlog.get_logger("svc.manager")

    @property
    def valid(self) -> bool:
        """Whether this manager leads and may grant and renew leases now."""
        return self.leadership.valid(self._clock())

    @property
    def leader(self) -> Holding | None:
        """The leader that was last seen, or None if there is none; one that hands over is none."""
        holding = self.leadership.holding
        return None if holding is None or holding.free else holding

    async def run(self) -> None:
        """Do step after step until it is cancelled, or has handed over to `end`."""
        while not (self._ending and self.leadership.position is Position.STANDBY):
            before = self.leadership.position
            await self._step()
            if self.leadership.position is not before:
                self._released.set()
                self._on_change(self.leadership.position)

    async def hand_over(self) -> None:
        """Mark the key as free, once this manager serves no more; return when that is done or given up."""
        self.leadership.release(self._clock())
        self._woken.set()
        while self.leadership.position is Position.RELEASING:
            self._released.clear()
            await self._released.wait()

    async def end(self) -> None:
        """Hand over if this manager leads, and say that it stands by no more, before its keys vanish.

        Raises:
            Unanswered: the bucket does not answer; the keys will vanish.
        """
        self._ending = True
        await self.hand_over()
        await self._bucket.put(ENDED_PREFIX + self._name, b"")

    def name_term(self, term: int) -> None:
        """Put the leader's *term* into the key; only from the loop's thread."""
        self.leadership.name_term(term, self._clock())
        self._woken.set()

    async def has_kept_key(self) -> bool:
        """Return whether the key names this leader, and no other one since its last append that was stored.

        Raises:
            Unanswered: the bucket does not answer.
        """
        entry = await self._bucket.get(LEADER_KEY)
        holding = None if entry is None else decode_holding(entry.value)
        named = holding is not None and not holding.free and holding.holder == self._name
        return named and self.leadership.kept_since_append()

    async def taken(self, given_up: Callable[[], bool]) -> bool:
        """Return whether another manager takes the key that this one has freed, within a third of the TTL.

        Args:
            given_up: returns whether the wait is to end now.
        """
        timing = self.leadership.timing
        until = self._clock() + timing.taken_within
        while True:
            with suppress(Unanswered):
                entry = await self._bucket.get(LEADER_KEY)
                holding = None if entry is None else decode_holding(entry.value)
                if holding is not None and not holding.free and holding.holder != self._name:
                    return True
            if self._clock() >= until or given_up():
                return False
            await asyncio.sleep(timing.look_every)

    async def standbys(self, *, heard: bool = False) -> Standbys:
        """Return the numbers of the standbys that wrote to the bucket within one TTL, and have not ended.

        Args:
            heard: whether to leave those out that have caught up, and were not heard in the leader's last
                three renewals. They may have been killed.

        Raises:
            Unanswered: the bucket does not answer.
        """
        names: dict[str, set[str]] = {STANDBY_PREFIX: set(), BEHIND_PREFIX: set(), ENDED_PREFIX: set()}
        for key in await self._bucket.names(STANDBY_PREFIX):
            prefix = next(each for each in reversed(names) if key.startswith(each))
            names[prefix].add(key.removeprefix(prefix))
        ready, behind, ended = names.values()
        gone = ended | {self._name}
        if heard:
            ready = {name for name in ready - gone if await self._heard(name)}
        return Standbys(len(ready - gone), len(behind - ready - gone))

    async def _heard(self, standby: str) -> bool:
        entry = await self._bucket.get(STANDBY_PREFIX + standby)
        return entry is not None and entry.revision > self.leadership.heard_from

    async def _step(self) -> None:
        self.leadership.caught_up = self._caught_up()
        match self.leadership.next(self._clock()):
            case Wait(seconds):
                await self._sleep(seconds)
            case Look():
                await self._try(self._look())
            case Prove():
                await self._try(self._prove())
            case Write(holding, expected):
                await self._try(self._write(holding, expected))

    async def _sleep(self, seconds: float) -> None:
        self._woken.clear()
        try:
            await asyncio.wait_for(self._woken.wait(), max(seconds, WAIT_MIN))
        except TimeoutError:
            return

    async def _try(self, request: Coroutine[Any, Any, None]) -> None:
        """Make a request; if two have had no answer in all their time, go to another server."""
        try:
            await request
        except Unanswered as error:
            now, self.trouble = self._clock(), str(error)
            self.leadership.failed(now, removed=isinstance(error, BucketRemoved))
            if self.leadership.must_append(now):
                self.append()
            if now - self._answered_at >= 2 * self.leadership.timing.answer_within:
                self._answered_at = now
                await self._bucket.leave_server()
        else:
            self._answered_at, self.trouble = self._clock(), ""

    async def _look(self) -> None:
        entry = await self._bucket.get(LEADER_KEY)
        if entry is None and self.leadership.position is Position.STANDBY:
            await self._prove()  # the key may be gone because the whole bucket was
        holding = None if entry is None else decode_holding(entry.value)
        self.leadership.seen(holding, 0 if entry is None else entry.revision, self._clock())

    async def _prove(self) -> None:
        prefix = STANDBY_PREFIX if self.leadership.caught_up else BEHIND_PREFIX
        before, self._proved = self._proved, await self._bucket.put(prefix + self._name, b"")
        if self._proved <= before:
            raise BucketRemoved("the bucket was removed, and is made again")
        self.leadership.proved(self._clock())

    async def _write(self, holding: Holding, expected: int) -> None:
        started = self._clock()
        try:
            revision = await self._bucket.put(LEADER_KEY, encode_holding(holding), expected=expected)
        except Changed:
            self.leadership.refused(self._clock())
        else:
            self.leadership.written(holding, revision, started, self._clock())


def encode_holding(holding: Holding) -> bytes:
    """Return the value of the key: JSON, for those who look at it with NATS' own tools."""
    return msgspec.json.encode(holding)


def decode_holding(value: bytes) -> Holding | None:
    """Return the content of the key; one that no manager wrote names a holder that nobody is.

    Such a key is left alone until it vanishes, as that of another manager is.
    """
    try:
        return msgspec.json.decode(value, type=Holding)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Holding("", ())
