"""How far consumers read ahead, and when they get the jobs that they ask for while others run.

A consumer on another host would stand still for a round trip between two grants. So it asks for its next
jobs while it runs (`Lease.running`), and gets them about a round trip before the jobs that it holds are over.
Until then they are for any other consumer. The supervisor measures the round trip; the run times are those
that the queue has seen.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from svc.domain.members import Member
from svc.domain.scheduling.run_times import RunTimes

if TYPE_CHECKING:
    from svc.domain.queue_state import QueueState

#: Round trips that jobs read ahead last together, if that is longer than the consumer asks for: one until the
#: next request has arrived and one until its answer has.
AHEAD_TRIPS = 3.0
#: Run time that one request is worth, or half a round trip if that is more: half of it may be read ahead also
#: while other consumers are idle, as these would have to ask for it.
WORTH_SECONDS, WORTH_TRIPS = 0.004, 0.5
#: Run time, in round trips, from which on nothing is read ahead: the network costs such a job less than 5 %.
LONG_TRIPS = 20.0
#: The shortest round trip in seconds that is reckoned with, as a request also waits for others and for syncs;
#: and the longest, as any worker may tell any number.
ROUND_TRIP_MIN, ROUND_TRIP_MAX = 0.0015, 1.0
#: Round trips and seconds before the end of the jobs in hand at which the next ones are granted. Half a trip
#: is the way of the grant, half a trip the age of the news, and the rest is for what takes longer than usual:
#: mostly a commit. With 5 ms, 3 % of the grants came late. The usual time of a commit is part of each trip.
EARLY_TRIPS, EARLY_SECONDS = 2.0, 0.01
#: Run time of jobs that do nearly nothing, and a round trip on one host: there the processors are the bound,
#: and requests while others run would only take some of their time.
TINY_SECONDS, NEAR_SECONDS = 0.0001, 0.001
#: Seconds that a job may take beyond its usual time before the jobs behind it are for other consumers.
OVERDUE_SECONDS = 0.02
#: If one of these is idle, its supervisor waits for the end of a job that should come sooner than others can
#: begin those behind it: in so many round trips and seconds, and at most so many seconds.
HASTE_TRIPS, HASTE_SECONDS, HASTE_MAX = 1.5, 0.002, 0.01
#: Round trips and seconds for which jobs in hand may last then; if it is more, they are taken back at once.
LASTING_TRIPS, LASTING_SECONDS = 1.0, 0.015
#: The longest run time in seconds that a supervisor is told: it never waits for so long.
TOLD_MAX = 1.0
#: Seconds for which a request waits before jobs are looked for that others hold: most get some by then.
IDLE_SECONDS = 0.003
#: Seconds between two looks, and the longest if these find nothing.
LOOK_SECONDS, LOOK_SECONDS_MAX = 0.005, 1.0
#: Members that are kept beyond the double of those that there are, before the others are forgotten.
_FORGOTTEN = 64


class Imbalance:
    """The consumers that are idle, and those that may hold jobs behind others: `taking_back` looks at them.

    Attributes:
        look_at: the time of the next look; infinity if there is none.
        idle: each with the time from which on jobs may be taken back for it. It may have got some since.
        holders: each with the lease behind which jobs were to be taken back last, and when that may be so
            again. Their jobs may have begun since.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.look_at = math.inf
        self.idle: dict[Member, float] = {}
        self.holders: dict[Member, tuple[int, float]] = {}
        self._looked_at = -math.inf
        self._pause = LOOK_SECONDS

    def note_idle(self, state: QueueState, member: Member, now: float) -> None:
        """Note that a request of *member*, which runs nothing, waits for jobs."""
        if member not in self.idle and len(self.idle) > 2 * state.consumers + _FORGOTTEN:
            self.idle = {each: at for each, at in self.idle.items() if is_idle(each)}
        self.idle[member] = now + IDLE_SECONDS
        if self.holders:
            self._plan(now)

    def note_holder(self, state: QueueState, member: Member, now: float) -> None:
        """Note that *member* was granted jobs of which some are behind others."""
        if member not in self.holders:
            if len(self.holders) > 2 * len(state.holders) + _FORGOTTEN:
                self.holders = {each: at for each, at in self.holders.items() if each in state.holders}
            self.holders[member] = 0, 0.0
        if self.idle:
            self._plan(now)

    def _plan(self, now: float) -> None:
        self._pause = LOOK_SECONDS
        self.look_at = min(self.look_at, max(now + IDLE_SECONDS, self._looked_at + LOOK_SECONDS))

    def begin_look(self, now: float) -> None:
        """Note that a look begins."""
        self.look_at, self._looked_at = math.inf, now

    def end_look(self, now: float) -> None:
        """Plan the next look, later each time, as long as there are both."""
        if self.idle and self.holders:
            self.look_at = now + self._pause
            self._pause = min(2 * self._pause, LOOK_SECONDS_MAX)


def is_idle(member: Member) -> bool:
    """Return whether a consumer that has waited for jobs is there, and still has none."""
    return member.connected and not member.leases and member.worker is not None


def measured_trip(member: Member) -> float:
    """Return the round trip in seconds from *member* to the manager, as its supervisor measures it, or 0."""
    return min(member.worker.round_trip, ROUND_TRIP_MAX) if member.worker is not None else 0.0


def seconds_ahead(run_times: RunTimes, member: Member, asked: float) -> float:
    """Return the run time of the jobs that *member* may be granted at once, if it has *asked* for so much.

    A request may wait for a commit on its way.
    """
    return max(asked, AHEAD_TRIPS * (measured_trip(member) + run_times.commit))


def worth(ahead: float) -> float:
    """Return the run time that a request is worth, if jobs that run for *ahead* seconds may be granted."""
    return min(ahead, max(WORTH_SECONDS, ahead * WORTH_TRIPS / AHEAD_TRIPS))


def window(run_times: RunTimes, member: Member) -> tuple[float, float]:
    """Return the times from which on and up to which jobs may be granted behind those that *member* holds.

    If it holds none, that is always; if one of them was overdue already, never.
    """
    leases = member.leases.values()
    if not leases:
        return 0.0, float("inf")
    ends_at = next(iter(leases)).since
    for lease in leases:
        if lease.overdue:
            return float("inf"), 0.0
        ends_at += (lease.stop - lease.start) * run_times.of(lease.chunk.terms.task).mean
    early = EARLY_TRIPS * (trip(member) + run_times.commit) + EARLY_SECONDS
    return ends_at - early, ends_at + OVERDUE_SECONDS


def patience(longest: float, member: Member) -> float:
    """Return the seconds for which each job of a grant may hold up what was read ahead behind it.

    *longest* is the mean run time of the slowest of its tasks, in seconds. It is 0 if nothing should be read
    ahead, because that takes so long that a round trip hardly matters.
    """
    if longest >= LONG_TRIPS * trip(member) or (
        longest < TINY_SECONDS and measured_trip(member) < NEAR_SECONDS
    ):
        return 0.0
    return longest + OVERDUE_SECONDS


def last_begins_at(run_times: RunTimes, member: Member) -> float:
    """Return the time at which the last of the jobs that *member* holds begins, if all take what is usual."""
    at = next(iter(member.leases.values())).since
    mean = 0.0
    for lease in member.leases.values():
        mean = run_times.of(lease.chunk.terms.task).mean
        at += (lease.stop - lease.start) * mean
    return at - mean


def haste(run_times: RunTimes, member: Member, now: float) -> tuple[float, float]:
    """Return after how many seconds of a job those behind it are for an idle consumer; *member* holds them.

    The second value is how long that may be waited for, in seconds.
    """
    wait = min(HASTE_MAX, HASTE_TRIPS * trip(member) + HASTE_SECONDS)
    lasts = LASTING_TRIPS * trip(member) + LASTING_SECONDS
    if last_begins_at(run_times, member) > now + lasts:
        return 0.0, wait
    first = next(iter(member.leases.values()))
    return min(run_times.of(first.chunk.terms.task).mean, TOLD_MAX), wait


def trip(member: Member) -> float:
    """Return the seconds that a request of *member* takes at least."""
    return max(measured_trip(member), ROUND_TRIP_MIN)
