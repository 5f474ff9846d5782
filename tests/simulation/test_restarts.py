"""The manager is killed, and all, some or no workers come back: the simulation would notice a mistake."""

from __future__ import annotations

import pytest

from svc.domain import enrolment, membership
from svc.domain.absentees import Absentees
from svc.domain.members import Worker
from svc.domain.queue_state import QueueState
from svc.domain.roster import WorkerRoster
from tests.support.simulated_peer import Violation
from tests.support.simulation import World

STEPS = 2500


def _world(seed: int, *, calm: bool = True) -> World:
    return World(seed, jobs=100, calm=calm)


def test_whoever_comes_back_in_time_keeps_its_jobs():
    """All kinds of restarts happen, and jobs go out meanwhile that no absent worker may hold."""
    worlds = [_world(seed) for seed in range(40)]
    for world in worlds:
        try:
            world.run(STEPS)
        except Violation as violation:
            pytest.fail(f"seed {world.seed}: {violation}")

    for kind in ("all", "some", "none"):
        assert sum(world.restarts.came_back[kind] for world in worlds) > 20
    assert sum(world.restarts.late for world in worlds) > 5
    assert sum(world.restarts.beyond for world in worlds) > 50


def _finding(*, calm: bool = True, seeds: int = 60) -> str:
    """Return what the first of some seeds finds fault with."""
    for seed in range(seeds):
        try:
            _world(seed, calm=calm).run(STEPS)
        except Violation as violation:
            return str(violation)
    pytest.fail("nothing was found")


def test_a_restart_that_waits_for_nobody_is_noticed(monkeypatch):
    monkeypatch.setattr(Absentees, "may_hold", lambda self, chunk: False)

    assert "in vain" in _finding()


def test_a_restart_that_waits_for_supervisors_alone_is_noticed(monkeypatch):
    def look_for(state: QueueState, worker: Worker) -> None:
        if worker.supervisor is not None:
            enrolment.said_goodbye(state, worker)

    monkeypatch.setattr(enrolment, "look_for", look_for)

    assert "in vain" in _finding()


def test_a_restart_that_waits_for_those_who_are_back_is_noticed(monkeypatch):
    monkeypatch.setattr(enrolment, "look_for", lambda state, worker: None)

    assert "is back, and waited for" in _finding()


def test_jobs_that_wait_for_a_worker_that_does_not_take_them_are_noticed(monkeypatch):
    monkeypatch.setattr(Absentees, "_is_taken", lambda self, terms: bool(self.names))

    assert "jobs of mail wait for" in _finding()


def test_a_watermark_that_falls_behind_the_grants_is_noticed(monkeypatch):
    move = WorkerRoster.move

    def slow(self: WorkerRoster, queue: str, up_to: int, row: int) -> list[int]:
        return move(self, queue, up_to - 1, row)

    monkeypatch.setattr(WorkerRoster, "move", slow)

    assert "in vain" in _finding(seeds=1000)  # it takes a grant of just the last jobs


def test_a_worker_that_is_on_no_roster_is_noticed(monkeypatch):
    monkeypatch.setattr(enrolment, "enrol", lambda state, member, now: None)

    assert "in vain" in _finding()


def test_an_idle_consumer_beside_ready_jobs_is_noticed(monkeypatch):
    heard_from = membership.heard_from

    def unheard(state: QueueState, worker: Worker, now: float) -> None:
        readied = state.readied
        heard_from(state, worker, now)
        state.readied = readied

    monkeypatch.setattr(membership, "heard_from", unheard)

    assert "is idle beside" in _finding(calm=False)
