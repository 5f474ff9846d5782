"""One suite for every engine: each must do all that a test asks of `engine`, each journal that of `kept`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from svc.broker.base import Broker
from tests.support.engines import ENGINES, LIMITS, Engine
from tests.support.journals import JOURNALS, Kept


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
def names() -> Iterator[str]:
    """Names for workers, no two of them equal."""
    return (f"w{number}" for number in count(1))
