"""A manager and a client, for the tests of workers that need no others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.workers import Client, Manager


@pytest.fixture
def manager() -> Iterator[Manager]:
    manager = Manager()
    manager.start()
    yield manager
    manager.stop()


@pytest.fixture
def client(manager: Manager) -> Iterator[Client]:
    with manager.client() as client:
        yield client
