"""Conditions that must hold after each step of a story: fast enough for a thousand checks a second.

`tests.support.state_checks` has the expensive checks, of lanes, outcomes and the journal.
"""

from __future__ import annotations

from collections import Counter
from operator import add

from svc.domain.lifecycle import JobState
from svc.domain.members import ON_TRIAL
from svc.domain.queue_state import QueueState
from svc.domain.scheduling.grants import may_lease
from tests.fuzz.oracle import Finding

#: Whether it is for suspects; its queue, priority, task and codec.
_Lane = tuple[bool, str, int, str, str]
_STATES = tuple(JobState)
_WORDS = tuple(each.word for each in _STATES)
_UNFINISHED = tuple(each for each in _STATES if not each.finished)
_NOTHING = [0] * len(_STATES)


def check_cheaply(state: QueueState) -> None:
    """Compare counts, leases and lanes with the states of all jobs.

    Raises:
        Finding: they differ.
    """
    counted: dict[str, list[int]] = {}
    ready: Counter[_Lane] = Counter()
    leased = 0
    for chunk in state.ledger.chunks.values():
        terms, states = chunk.terms, chunk._states
        found = [states.count(each) for each in _STATES]
        _require(sum(found) == chunk.known, "a chunk has states that are none")
        _require(chunk.count == len(states), "a chunk has another number of states than jobs")
        unfinished = sum([found[each] for each in _UNFINISHED])
        if chunk.unfinished != unfinished:
            raise Finding(
                f"chunk {chunk.id(0)} has {unfinished} unfinished jobs and counts {chunk.unfinished}"
            )
        sums = counted.get(terms.queue, _NOTHING)
        counted[terms.queue] = list(map(add, sums, found))
        leased += found[JobState.LEASED]
        if found[JobState.READY]:
            apart = sum(1 for index in chunk.suspects if chunk._states[index] == JobState.READY)
            ready[False, terms.queue, terms.priority, terms.task, terms.codec] += (
                found[JobState.READY] - apart
            )
            ready[True, terms.queue, terms.priority, terms.task, terms.codec] += apart
    _check_counts(state, counted)
    _check_leases(state, leased)
    lanes: Counter[tuple[bool, str, int, str, str]] = Counter()
    for lane in (*state.lanes, *state.suspects.lanes, *state.absentees.lanes):
        terms = lane.terms
        lanes[lane.apart, terms.queue, terms.priority, terms.task, terms.codec] += lane.count
    if +lanes != +ready:
        raise Finding(f"the lanes do not hold the ready jobs: {lanes}, {dict(ready)}")


def _check_counts(state: QueueState, counted: dict[str, list[int]]) -> None:
    for name in state.ledger.counts.keys() | counted.keys():
        known = state.ledger.counts.get(name)
        said = [known[each] for each in JobState] if known is not None else _NOTHING
        if said != counted.get(name, _NOTHING):
            raise Finding(f"the counts of a queue are {said}, its jobs {counted.get(name)}: {name!r}")


def _check_leases(state: QueueState, leased: int) -> None:
    held = 0
    for lease in state.leases.values():
        token = lease.token
        held += lease.stop - lease.start
        mine = lease.chunk._states[lease.start : lease.stop]
        _require(lease.start < lease.stop, f"a lease is empty: {token}")
        _require(mine.count(JobState.LEASED) == len(mine), f"a lease has jobs that are not leased: {token}")
        _require(lease.holder.leases.get(token) is lease, f"a holder does not know its lease: {token}")
        allowed = may_lease(lease.holder) or lease.holder.role == ON_TRIAL
        _require(allowed, f"a member holds jobs that may not: {lease.holder.role!r}")
    if held != leased:
        raise Finding(f"leases hold other jobs than are leased: {held}, {leased}")


def check_renewed(state: QueueState) -> None:
    """After a lease time of silence, require that only connected plain clients hold jobs.

    Leases on trial have a second more; that they end, `check_deserted` sees.

    Raises:
        Finding: another member holds a job.
    """
    for lease in state.leases.values():
        holder = lease.holder
        allowed = (holder.role == "plain" and holder.connected) or holder.role == ON_TRIAL
        _require(allowed, f"a silent {holder.role} pins jobs")


def check_deserted(state: QueueState) -> None:
    """A lease time after all members have gone, require that no job is held.

    Raises:
        Finding: a job is held.
    """
    _require(not state.leases, f"leases outlive all members: {sorted(state.leases)}")
    pinned = sum(chunk._states.count(JobState.LEASED) for chunk in state.ledger.chunks.values())
    _require(not pinned, f"jobs are leased, and nobody is there: {pinned}")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Finding(otherwise)
