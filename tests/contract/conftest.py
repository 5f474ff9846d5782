"""One suite for every engine: each must do all that a test asks of `engine`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from svc.broker.base import Broker
from tests.support.engines import Engine, LocalEngine, ManagerEngine

#: How each is made, and whether its journal is a file.
ENGINES: dict[str, tuple[Callable[..., Engine], bool]] = {
    "local-memory": (LocalEngine, False),
    "local-sqlite": (LocalEngine, True),
    "manager-memory": (ManagerEngine, False),
    "manager-sqlite": (ManagerEngine, True),
}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    kind, on_disk = ENGINES[request.param]
    made: Engine = kind(tmp_path / "journal.db" if on_disk else None)
    yield made
    made.close()


@pytest.fixture
def queue(engine: Engine) -> Broker:
    """A client of the engine."""
    return engine.client()


@pytest.fixture
def names() -> Iterator[str]:
    """Names for workers, no two of them equal."""
    return (f"w{number}" for number in count(1))
