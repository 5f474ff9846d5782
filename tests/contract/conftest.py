"""One suite for every engine: each must do all that a test asks of `engine`, each journal that of `kept`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from svc.broker.base import Broker
from svc.domain import commands as c
from tests.support.asking import chunk, record, submit
from tests.support.engines import ENGINES, LIMITS, Engine
from tests.support.journals import JOURNALS, Kept
from tests.support.read_ahead import RUN, TRIP, learn


@pytest.fixture(params=JOURNALS)
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    """A journal."""
    kept = JOURNALS[request.param](tmp_path)
    yield kept
    kept.journal.close()


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    made = ENGINES[request.param](tmp_path, LIMITS)
    yield made
    made.close()


@pytest.fixture
def still(engine: Engine) -> None:
    """Let the clock stand still unless a test sets it forward: seconds pass on a busy machine."""
    engine.clock.stop()


@pytest.fixture
def queue(engine: Engine) -> Broker:
    """A client of the engine."""
    return engine.client()


@pytest.fixture
def supervisor(engine: Engine) -> Broker:
    """The supervisor of a worker at the far end of a link."""
    found = engine.supervisor()
    record(found, c.Extend(round_trip=TRIP))
    return found


@pytest.fixture
def consumer(engine: Engine, supervisor: Broker) -> Broker:
    """A consumer of that worker, whose task has a known run time, and six jobs that wait."""
    queue, found = engine.client(), engine.consumer()
    learn(queue, found, RUN)
    submit(queue, chunk(0, 6))
    return found


@pytest.fixture
def names() -> Iterator[str]:
    """Names for workers, no two of them equal."""
    return (f"w{number}" for number in count(1))
