"""How far consumers read ahead, and when they get the jobs that they ask for while others run.

A consumer on another host would stand still for a round trip between two grants. So it asks for its next
jobs while it runs (`Lease.running`), and gets them about a round trip before the jobs that it holds are over.
Until then they are for any other consumer. The supervisor measures the round trip; the run times are those
that the queue has seen.
"""

from __future__ import annotations

from svc.domain.members import Member
from svc.domain.scheduling.run_times import RunTimes

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
    early = EARLY_TRIPS * (_trip(member) + run_times.commit) + EARLY_SECONDS
    return ends_at - early, ends_at + OVERDUE_SECONDS


def patience(longest: float, member: Member) -> float:
    """Return the seconds for which each job of a grant may hold up what was read ahead behind it.

    *longest* is the mean run time of the slowest of its tasks, in seconds. It is 0 if nothing should be read
    ahead, because that takes so long that a round trip hardly matters.
    """
    if longest >= LONG_TRIPS * _trip(member) or (
        longest < TINY_SECONDS and measured_trip(member) < NEAR_SECONDS
    ):
        return 0.0
    return longest + OVERDUE_SECONDS


def _trip(member: Member) -> float:
    """Return the seconds that a request of *member* takes at least."""
    return max(measured_trip(member), ROUND_TRIP_MIN)
