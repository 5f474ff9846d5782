"""Workers that are not heard of: the jobs that go back, and the notices for the log."""

from __future__ import annotations

import pytest

from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain import upkeep
from svc.domain.apply import apply
from svc.domain.job import NewChunk, Terms
from svc.domain.limits import Limits
from svc.domain.members import RECONNECT_GRACE, Member, Notice
from svc.domain.membership import disconnected
from svc.domain.queue_state import QueueState

LEASE = 15.0


@pytest.fixture
def state() -> QueueState:
    return QueueState(limits=Limits(lease_seconds=LEASE))


@pytest.fixture
def worker(state: QueueState) -> list[Member]:
    """A supervisor and two consumers with a job each, and one of them with a second job read ahead."""
    members = [Member() for _ in range(3)]
    names = ("w", "w-1", "w-2")
    for member, name in zip(members, names, strict=True):
        role = "worker" if name == "w" else "consumer"
        apply(state, c.Hello(1, role, name, "w", "h1", tasks=["m:f"]), member, 0.0)
    apply(state, c.Submit("o", [NewChunk(0, Terms("m:f"), [b"x"] * 3)]), Member(), 0.0)
    for member in (members[1], members[2], members[2]):
        apply(state, c.Lease(1), member, 0.0)
    state.notices.clear()
    return members


def notices(state: QueueState, now: float) -> list[Notice]:
    """Let the queue look at time *now*, and return the notices of that."""
    state.upkeep_at = 0.0
    upkeep.tick(state, now)
    found, state.notices = state.notices, []
    return found


def view(state: QueueState, now: float) -> r.WorkerView:
    reply = apply(state, c.Members(), Member(), now)
    assert isinstance(reply, r.Roster)
    return reply.workers[0]


def hello(state: QueueState, life: int, now: float, host: str = "h2") -> None:
    """Let another process be worker w."""
    apply(state, c.Hello(1, "worker", "w", "w", host, tasks=["m:f"], life=life), Member(), now)


def test_two_living_processes_of_one_name_are_told_once(state, worker):
    hello(state, 7, 1.0)
    hello(state, 8, 2.0)
    assert state.notices == [Notice("doubled", "w", host="h1, h2")]


def test_a_worker_that_comes_back_after_a_long_silence_is_not_told_as_doubled(state, worker):
    hello(state, 0, 1.0)  # the same process, on a new connection
    hello(state, 7, 14.0)
    assert state.notices == []


def test_a_worker_that_comes_back_right_after_its_end_is_not_told_as_doubled(state, worker):
    disconnected(state, worker[0], 1.0)
    hello(state, 7, 1.1)
    assert all(each.what != "doubled" for each in state.notices)


def test_a_worker_is_shown_as_silent_from_the_moment_when_its_jobs_go_back(state, worker):
    upkeep.tick(state, LEASE - 0.1)
    before = view(state, LEASE - 0.1)
    upkeep.tick(state, LEASE)
    after = view(state, LEASE)
    assert (before.silent, before.leased) == (False, 3)
    assert (after.silent, after.leased) == (True, 0)


def test_the_log_is_told_once_of_each_silence_with_the_jobs_that_went_back(state, worker):
    assert notices(state, LEASE - 0.1) == []
    assert notices(state, LEASE) == [Notice("silent", "w", 3, "h1")]
    assert notices(state, LEASE + 5.0) == []
    apply(state, c.Extend(), worker[0], 20.0)
    assert not view(state, 20.0).silent
    assert notices(state, 20.0 + LEASE) == [Notice("silent", "w", 0, "h1")]


def test_time_in_which_the_manager_heard_nobody_makes_no_worker_silent(state, worker):
    upkeep.pause(state, LEASE, LEASE)
    assert notices(state, LEASE) == []
    assert not view(state, LEASE).silent


def test_the_log_is_told_how_many_jobs_a_lost_worker_had(state, worker):
    for at, member in enumerate(worker, start=1):
        disconnected(state, member, float(at))
    assert notices(state, 4.0 + RECONNECT_GRACE) == [Notice("lost", "w", 3, "h1")]


def test_jobs_that_went_back_in_its_silence_are_those_of_a_worker_that_is_lost_then(state, worker):
    assert notices(state, LEASE) == [Notice("silent", "w", 3, "h1")]
    for member in worker:
        disconnected(state, member, LEASE + 1)
    assert notices(state, LEASE + 1 + RECONNECT_GRACE) == [Notice("lost", "w", 3, "h1")]
