"""The queue knows how long a commit takes, since jobs read ahead have to last for that time."""

from __future__ import annotations

import pytest

from svc.broker.base import Broker
from svc.domain.scheduling.run_times import COMMIT_MAX
from tests.support.asking import chunk, submit
from tests.support.engines import ENGINES, LIMITS, Engine
from tests.support.memory_journals import LATE_SECONDS


def usual_commit(engine: Engine, queue: Broker) -> float:
    """Submit some jobs one by one; return the seconds of a commit, as the queue knows them."""
    for number in range(30):
        submit(queue, chunk(number))
    return engine.inside(lambda host: host.state.run_times.commit)


def test_on_every_journal_the_queue_learns_how_long_a_commit_takes(engine, queue):
    assert 0.0 < usual_commit(engine, queue) <= COMMIT_MAX


@pytest.mark.parametrize("way", ["local", "manager"])
def test_a_commit_lasts_until_other_hosts_have_confirmed_it(way, tmp_path):
    engine = ENGINES[f"{way}-memory-late"](tmp_path, LIMITS)
    try:
        assert usual_commit(engine, engine.client()) > LATE_SECONDS / 2
    finally:
        engine.close()
