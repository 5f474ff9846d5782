"""Promises 1 to 4 under a seeded scheduler of faults, and proof that it would notice a broken one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import msgspec
import pytest

from svc.broker.host import QueueHost
from svc.domain import admission
from svc.domain import commands as c
from svc.domain import events as e
from svc.domain import replies as r
from svc.domain.handlers import HANDLERS
from svc.domain.job_streams import JobStream
from svc.domain.limits import Limits
from svc.domain.members import LeaseRecord, Member
from svc.domain.origins import Origin
from svc.domain.queue_state import QueueState
from tests.support.simulated_peer import Violation
from tests.support.simulation import World

BUDGET = Limits().suspicion_budget
#: `SVC_SIMULATION_SEEDS=5000 pytest tests/simulation` looks longer; a failure names its seed.
SEEDS = int(os.environ.get("SVC_SIMULATION_SEEDS", "200"))


@pytest.mark.parametrize("first", range(0, SEEDS, 50))
def test_every_job_has_one_outcome_whatever_fails(first):
    for seed in range(first, min(first + 50, SEEDS)):
        try:
            World(seed).run()
        except Violation as violation:
            pytest.fail(f"seed {seed}: {violation}")


@pytest.mark.parametrize("first", [0, 30])
def test_large_values_are_those_of_the_outcome_whatever_fails(first):
    lost = 0
    for seed in range(first, first + 30):
        world = World(seed, large=True)
        try:
            world.run()
        except Violation as violation:
            pytest.fail(f"seed {seed}: {violation}")
        lost += world.values_lost
    assert lost, "no large value was ever lost: the simulation proves too little"


@pytest.mark.parametrize("first", [0, 30])
def test_each_put_that_may_wait_is_one_job_whatever_fails(first):
    waited = refused = 0
    for seed in range(first, first + 30):
        world = World(seed, jobs=2, puts=True)
        try:
            world.run()
        except Violation as violation:
            pytest.fail(f"seed {seed}: {violation}")
        waited += world.puts_waited
        refused += sum(each.refused for each in world.putters)
    assert waited > 5, "hardly a put has waited: the simulation proves too little"
    assert refused > 5


POISON = ("a-3", "a-4", "b-11")


def test_poison_jobs_are_dead_with_their_cause_and_no_other_job_is_dead_for_it():
    for seed in range(20):
        world = World(seed, poison=POISON, plain=False)
        world.run(steps=0)  # no other faults

        suspicions = {job: _suspicions(world, job) for job in world.submitted}
        assert {job: suspicions[job] for job in POISON} == dict.fromkeys(POISON, BUDGET)
        assert {world.seen[job][0].state.word for job in POISON} == {"dead"}
        assert max(suspicions[job] for job in world.submitted - set(POISON)) < BUDGET - 1
        # The first loss of each is free, and so is one that meets the first loss of another.
        assert world.workers_born - 2 <= len(POISON) * (BUDGET + 2)


@pytest.mark.parametrize("first", [0, 20])
def test_poison_jobs_end_whatever_else_fails(first):
    for seed in range(first, first + 20):
        try:
            World(seed, poison=POISON).run()
        except Violation as violation:
            pytest.fail(f"seed {seed}: {violation}")


def _suspicions(world: World, job: str) -> int:
    place = world.host.state.ledger.find(job)
    record = place[0].records.get(place[1]) if place is not None else None
    return record.suspicions if record is not None else 0


def test_a_seed_tells_the_same_story_again():
    first, second = World(7), World(7)
    first.run()
    second.run()

    assert first.executions == second.executions
    assert first.seen == second.seen


def test_the_faults_do_happen():
    """A simulation in which nothing goes wrong would prove nothing."""
    worlds = [World(seed) for seed in range(40)]
    for world in worlds:
        world.run()

    assert sum(world.journal.incarnation - 1 for world in worlds) > 20
    assert sum(world.workers_born - 2 for world in worlds) > 20
    assert sum(world.crashed.total() for world in worlds) > 10
    assert sum(world.hits.total() for world in worlds) > 100
    assert sum(world.early for world in worlds) > 50
    assert sum(world.recalled for world in worlds) > 20
    assert sum(world.values_read for world in worlds) > 200
    assert sum(world.streams_restarted for world in worlds) > 2
    assert sum(each > 1 for world in worlds for each in world.executions.values()) > 50


class HastyHost(QueueHost):
    """Delivers its replies before it has committed."""

    def call(
        self, commands: Sequence[c.Command], member: Member, deliver: Callable[[list[r.Reply]], None]
    ) -> None:
        super().call(commands, member, deliver)
        self.commits.outbox.deliver()


def _notices(host: type[QueueHost] = QueueHost, *, puts: bool = False) -> bool:
    """Return whether one of a few seeds finds fault with *host*."""
    for seed in range(40):
        try:
            World(seed, host, 2 if puts else 40, puts=puts).run()
        except Violation:
            return True
    return False


def test_replies_before_the_commit_are_noticed():
    assert _notices(HastyHost)


def test_tokens_that_stay_in_force_are_noticed(monkeypatch):
    def end_lease(self: QueueState, lease: LeaseRecord) -> None:
        lease.holder.leases.pop(lease.token, None)

    monkeypatch.setattr(QueueState, "end_lease", end_lease)

    assert _notices()


def test_a_submit_that_is_not_idempotent_is_noticed(monkeypatch):
    monkeypatch.setattr(Origin, "count_known", lambda self, first, count: 0)

    assert _notices()


def test_results_in_another_order_than_their_events_are_noticed(monkeypatch):
    def results_event(self: QueueState, now: float) -> tuple[int, e.Succeeded]:
        if self._succeeded is None:
            event = e.Succeeded(now, [])
            self._succeeded = (self.record(event), event)
        return self._succeeded

    monkeypatch.setattr(QueueState, "results_event", results_event)

    assert _notices()


def test_a_stream_that_goes_on_in_the_next_attempt_is_noticed(monkeypatch):
    monkeypatch.setattr(JobStream, "token", property(lambda self: 1))

    assert _notices()


def test_a_success_that_keeps_the_stream_of_another_attempt_is_noticed(monkeypatch):
    monkeypatch.setattr(JobStream, "supersede", lambda self, token, attempt: None)

    assert _notices()


def test_a_put_whose_key_is_not_looked_at_is_noticed(monkeypatch):
    monkeypatch.setattr(admission, "_same_key", lambda *arguments: None)

    assert _notices(puts=True)


def test_a_recall_that_takes_the_running_job_is_noticed(monkeypatch):
    def recall(state: QueueState, command: c.Recall, member: Member, now: float) -> r.Reply | None:
        return exact(state, msgspec.structs.replace(command, number=command.number - 1), member, now)

    exact = HANDLERS[c.Recall]
    monkeypatch.setitem(HANDLERS, c.Recall, recall)

    assert _notices()


def test_a_recall_that_gives_nothing_back_is_noticed(monkeypatch):
    monkeypatch.setitem(HANDLERS, c.Recall, lambda state, command, member, now: r.Done())

    assert _notices()
