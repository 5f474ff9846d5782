"""Consumers that ask for jobs while they run others: what is taken back from them runs once."""

from __future__ import annotations

import pytest

from svc.domain import settlement
from tests.support.simulated_asking import AskingConsumer
from tests.support.simulated_peer import Violation
from tests.support.simulation import World


@pytest.mark.parametrize(("calm", "steps", "jobs"), [(True, 2500, 100), (False, 900, 40)])
def test_no_job_runs_twice_because_it_was_read_ahead(calm, steps, jobs):
    worlds = [World(seed, jobs=jobs, calm=calm, consumer=AskingConsumer) for seed in range(20)]
    for world in worlds:
        try:
            world.run(steps)
        except Violation as violation:
            pytest.fail(f"seed {world.seed}: {violation}")

    assert sum(world.asked for world in worlds) > 200
    assert sum(world.behind for world in worlds) > 20
    assert sum(world.recalled for world in worlds) > 50
    assert sum(world.ordered for world in worlds) > 10


def test_a_recall_that_comes_late_and_takes_the_running_job_is_noticed(monkeypatch):
    monkeypatch.setattr(settlement, "_runs", lambda holder, token, number: True)

    with pytest.raises(Violation, match="in vain"):
        _run_calm_worlds()


def _run_calm_worlds() -> None:
    for seed in range(20):
        World(seed, jobs=100, calm=True, consumer=AskingConsumer).run(2500)
