"""Who leads: the rules by which one of several managers holds the key in a bucket, and others take it over.

The key names the leader. It vanishes one TTL after its last write, and the leader writes it every sixth of
that. The key is liveness only: two managers that both believe to lead are told apart by the stream's expected
sequence, and only one of them can write.

Four rules make up the rest.

- A leader is *valid* until a margin before the end of the TTL, counted by its own clock from the beginning of
  its last renewal that succeeded. Another one can take the key only later. A leader that is not valid hands
  out nothing and renews no lease. It goes on as soon as a renewal succeeds.
- An append that the log has stored proves as much: nobody else had begun a term when it was sent. A successor
  begins its term behind an end of the log that it has known for the time `silence`, unless the key was free.
  The fence of the log refuses it if there is a newer message. So a leader is valid also until a margin before
  the end of that time, counted from the beginning of such an append. Thus it serves while the bucket elects.
  If it has nothing to append then, it appends an empty commit.
- While the bucket elects a leader of its own (4 to 9 s by the constants of nats-server), nobody can renew,
  and the key vanishes although the manager lives. So a standby writes to the same bucket all the time. If its
  own writes had a gap, it leaves a key that is gone alone for a whole TTL: the living leader has several
  tries before that. The shortest fault of the bucket that lets a key vanish takes two thirds of the TTL (less
  the time to the next renewal, and its time-out); a gap is half a TTL, which is more than one lost answer.
- A leader that hands over marks the key as free. A standby that has caught up with the log takes a free key
  at once. One that has not leaves it to others, and takes it when it has caught up, or the key has vanished.
  The old leader leaves it alone for some seconds.

Nothing here has a clock or does I/O: the caller hands in the time in seconds of a clock that never goes back.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from dataclasses import dataclass, replace
from typing import Final

from svc.server.journal.jetstream.lead_timing import Timing

#: Renewals of a leader within which a standby that lives has written at least once, with a period to spare.
_HEARD_WITHIN: Final = 3


@dataclass(frozen=True)
class Holding:
    """The content of the key.

    Attributes:
        holder: a name that no other process has.
        addresses: the addresses at which it serves, each as HOST:PORT.
        term: its term; 0 while it takes over.
        free: whether it has handed over, so that the next one may take the key at once.
    """

    holder: str
    addresses: tuple[str, ...]
    term: int = 0
    free: bool = False


class Position(enum.StrEnum):
    """The place of a manager among those on one journal."""

    STANDBY = enum.auto()
    LEADER = enum.auto()
    #: It serves no more, and marks the key as free.
    RELEASING = enum.auto()


@dataclass(frozen=True)
class Wait:
    """Do nothing for some *seconds*."""

    seconds: float


@dataclass(frozen=True)
class Look:
    """Read the key; report by `seen` or `failed`."""


@dataclass(frozen=True)
class Prove:
    """Write that this standby is there; report by `proved` or `failed`."""


@dataclass(frozen=True)
class Write:
    """Write the key if its revision is *expected* (0: it is gone).

    Report by `written`, `refused` or `failed`.
    """

    holding: Holding
    expected: int


Step = Wait | Look | Prove | Write


class Leadership:
    """One manager's view: takes reports of steps that were done, and says the next step."""

    def __init__(
        self, holder: str, addresses: tuple[str, ...], timing: Timing | None = None, *, now: float
    ) -> None:
        """Begin as a standby.

        Args:
            holder: a name that no other process has.
            addresses: the addresses at which this manager serves when it leads.
            timing: the times of the rules.
            now: the time.
        """
        self.timing = timing or Timing()
        self.position = Position.STANDBY
        #: The last content of the key that was read or written here; None if it was gone.
        self.holding: Holding | None = None
        #: How often this manager became the leader.
        self.takeovers = 0
        #: Whether the key was free when this manager took it, by one that had a term and serves no more.
        self.took_free = False
        #: Whether this standby has caught up with the log, so that it may take a key that is free.
        self.caught_up = True
        self._own = Holding(holder, addresses)
        self._revision = 0
        self._renewed_at = self._stored_at = -math.inf
        #: When this leader last wrote a key that was gone. Nobody else has had it since.
        self._kept_since = -math.inf
        #: The revisions of this leader's last writes of the key.
        self._renewals: deque[int] = deque(maxlen=_HEARD_WITHIN)
        self._due = now
        #: Whether the key must be read before anything else: its revision is not known.
        self._lost_track = True
        self._prove_at = now
        self._proved_at: float | None = None
        self._steady_since: float | None = None
        self._held_until = self._release_until = now

    def valid(self, now: float) -> bool:
        """Return whether this manager leads and may grant and renew leases; safe from any thread."""
        return self.position is Position.LEADER and now < self.valid_until

    @property
    def leads(self) -> bool:
        """Whether this manager has the key, though it may not be valid."""
        return self.position is Position.LEADER

    @property
    def freed(self) -> bool:
        """Whether the key was free when it was last read or written here."""
        return self.holding is not None and self.holding.free

    @property
    def holder(self) -> str:
        """The name of this process in the key."""
        return self._own.holder

    @property
    def valid_until(self) -> float:
        """The end of the time for which a leader is valid, if it neither renews nor appends before."""
        by_key = self._renewed_at + self.timing.ttl
        by_log = min(self._stored_at + self.timing.silence, self._renewed_at + self.timing.log_within)
        return max(by_key, by_log) - self.timing.margin

    @property
    def confirmed_at(self) -> float:
        """When the last renewal or append of a leader began that the servers have confirmed."""
        return max(self._renewed_at, self._stored_at)

    def kept_since_append(self) -> bool:
        """Whether nobody else can have had the key since this leader's last append that was stored."""
        return self.position is Position.LEADER and self._stored_at >= self._kept_since

    @property
    def heard_from(self) -> int:
        """The revision in the bucket after which a standby that lives has written its own key.

        Both write once in a period. So two to three periods after its end it is known to be gone.
        """
        return self._renewals[0] if len(self._renewals) == _HEARD_WITHIN else 0

    def must_append(self, now: float) -> bool:
        """Return whether a leader needs an append to stay valid: it was about to renew, and could not."""
        return (
            self.position is Position.LEADER
            and now - self.confirmed_at >= self.timing.append_after
            and now - self._renewed_at < self.timing.log_within
        )

    # --- wishes -------------------------------------------------------------------------------------

    def name_term(self, term: int, now: float) -> None:
        """Put the *term* that the log gave this leader into the key, by a renewal that is due now."""
        self._own = replace(self._own, term=term)
        self._due = now

    def release(self, now: float) -> None:
        """Hand over: this manager serves no more. Without effect on a standby."""
        if self.position is Position.LEADER:
            self.position = Position.RELEASING
            self._release_until = now + self.timing.release_within
            self._due = now

    # --- the next step ------------------------------------------------------------------------------

    def next(self, now: float) -> Step:
        """Return the step to do now."""
        if self.position is Position.STANDBY:
            return self._next_of_standby(now)
        if self.position is Position.RELEASING and now >= self._release_until:
            self._step_down(now)
            return self._next_of_standby(now)
        if now < self._due:
            return Wait(self._due - now)
        if self._lost_track:
            return Look()
        free = self.position is Position.RELEASING
        return Write(replace(self._own, free=free), self._revision)

    def _next_of_standby(self, now: float) -> Step:
        if now >= self._prove_at:
            return Prove()
        if now < self._due:
            return Wait(min(self._due, self._prove_at) - now)
        if not self._lost_track and self._may_take(now):
            return Write(replace(self._own, term=0), self._revision)
        return Look()

    def _may_take(self, now: float) -> bool:
        """Return whether a standby may write the key that it has just read."""
        if now < self._held_until:
            return False
        if self.holding is not None:
            # A key of our own is left from a write that had no answer, or nobody took it when it was free.
            return (self.holding.free and self.caught_up) or self.holding.holder == self._own.holder
        return self._steady_since is not None and now - self._steady_since >= self.timing.steady

    # --- reports ------------------------------------------------------------------------------------

    def seen(self, holding: Holding | None, revision: int, now: float) -> None:
        """Take the content of the key, and its revision; None and 0 if it is gone."""
        self.holding, self._revision = holding, revision
        self._lost_track = False
        if self.position is Position.STANDBY:
            self._lost_track = not self._may_take(now)
            self._due = now + self.timing.look_every if self._lost_track else now
            return
        if holding is None:
            over = self.position is Position.RELEASING
        else:
            over = holding.free or holding.holder != self._own.holder
        if over:
            self._step_down(now)
        else:
            self._due = now

    def proved(self, now: float) -> None:
        """Take that the bucket has kept this standby's own key."""
        if self._proved_at is None or now - self._proved_at > self.timing.gap:
            self._steady_since = now
        self._proved_at = now
        self._prove_at = now + self.timing.renew_every

    def written(self, holding: Holding, revision: int, started: float, now: float) -> None:
        """Take that a write of the key, which began at *started*, was kept."""
        # One that gave the key up before its term began may not have ended the one before it.
        free = self.holding is not None and self.holding.free and self.holding.term > 0
        if self._revision == 0 or self.position is Position.STANDBY:
            self._kept_since = started
        self._revision, self.holding = revision, holding
        if self.position is Position.RELEASING:
            # It may have been a renewal that was under way.
            if holding.free:
                self._step_down(now)
            return
        if self.position is Position.STANDBY:
            self.position = Position.LEADER
            self.took_free = free
            self._stored_at = -math.inf
            self.takeovers += 1
            self._renewals.clear()
            self._own = replace(self._own, term=0)
        self._renewals.append(revision)
        self._renewed_at = started
        self._due = started + self.timing.renew_every

    def stored(self, started: float) -> None:
        """Take that the log has stored a message of this leader's term, which was first sent at *started*.

        Safe from any thread.
        """
        self._stored_at = started

    def refused(self, now: float) -> None:
        """Take that the key has another revision than was expected."""
        self._lost_track = True
        self._due = now

    def failed(self, now: float, *, removed: bool = False) -> None:
        """Take that a request had no answer, so that it may have been done or not.

        If the bucket was *removed*, the leader gets the first try, as after another fault of it.
        """
        if removed:
            self._proved_at = self._steady_since = None
        self._lost_track = True
        self._due = now + self.timing.retry_after
        self._prove_at = max(self._prove_at, self._due)

    def _step_down(self, now: float) -> None:
        """Be a standby; after a release leave the key to others for a while."""
        if self.position is Position.RELEASING:
            self._held_until = now + self.timing.held_back
        self.position = Position.STANDBY
        self._lost_track = True
        self._proved_at = self._steady_since = None
        self._due = self._prove_at = now
